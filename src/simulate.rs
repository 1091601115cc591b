//! `aviary simulate`: what would happen to a release, in virtual time, with the operator as it ships.

mod audience;
mod chats;
mod complete;
pub(crate) mod files;
mod kinds;
pub(crate) mod load_tester;
pub(crate) mod manifests;
mod network;
mod objects;
mod pairs;
mod queries;
mod references;
mod releases;
mod report;
mod routes;
mod scenario;
mod schedule;
mod schema;
mod series;
mod services;
mod subject;
mod table;
mod time;
mod timeline;
mod world;
mod yaml;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aviary_actors::ControllerConfig;
use aviary_providers::traffic::{self, UnknownProvider};

use crate::args::{RunArgs, SimulateArgs, SimulateOutput};
use crate::settings;
use files::Text;
use manifests::Manifests;
use releases::Releases;
pub use report::{CanaryReport, Report, Verdict};
use scenario::Scenario;
pub use scenario::json_schema;
use subject::Subject;

/// Plays a simulation, writes its report to `out` and notes and problems to `messages`. Returns the report.
///
/// # Errors
/// If something cannot be written, or the operator cannot be started. What is wrong with the input is in the report.
pub fn run(args: &SimulateArgs, color: bool, out: &mut dyn Write, messages: &mut dyn Write) -> anyhow::Result<Report> {
    let mut notes = Vec::new();
    let mut report = match simulate(args, &mut notes)? {
        Ok(report) => report,
        Err(problems) => Report::refused(problems, Vec::new()),
    };
    report.notes = notes;
    for note in &report.notes {
        writeln!(messages, "note: {note}")?;
    }
    for problem in &report.problems {
        writeln!(messages, "error: {problem}")?;
    }
    match args.output {
        SimulateOutput::Table => table::print(&report, color, out)?,
        SimulateOutput::Json => {
            serde_json::to_writer_pretty(&mut *out, &report).context("write the report")?;
            writeln!(out)?;
        }
    }
    Ok(report)
}

type Refused<T> = Result<T, Vec<String>>;

fn simulate(args: &SimulateArgs, notes: &mut Vec<String>) -> anyhow::Result<Refused<Report>> {
    let config = controller_config(args)?;
    let (mut manifests, prepared) = prepare(args, config);
    // Everything runs on this thread: a paused clock moves on when the thread has nothing left to do.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().context("start the runtime")?;
    // Actors that are dropped with the local set serve what is left in their mailboxes, which needs the runtime.
    let _entered = runtime.enter();
    let local = tokio::task::LocalSet::new();
    let setup = match prepared {
        Ok(setup) => setup,
        Err(problems) => {
            let refusals = local.block_on(&runtime, world::refusals(&mut manifests));
            notes.append(&mut manifests.notes);
            return Ok(Err(without_repetitions(problems, refusals)));
        }
    };
    let played = local.block_on(&runtime, world::play(&setup, &mut manifests))?;
    notes.append(&mut manifests.notes);
    let outcome = match played {
        Ok(outcome) => outcome,
        Err(problems) => return Ok(Err(problems)),
    };
    let unanswerable = unanswerable(&outcome.observed.unanswerable);
    if !unanswerable.is_empty() {
        return Ok(Err(unanswerable));
    }
    if !outcome.violations.is_empty() {
        notes.push(format!("the operator broke its own rules, please report this: {}", outcome.violations.join(", ")));
    }
    let ended = outcome.time.seconds(outcome.ended, outcome.started).max(0.0);
    notes.extend(references::missed(&setup.scenario, Duration::from_secs_f64(ended)));
    let mut report = Report::of(&outcome, &setup.subjects, &setup.releases, setup.seed);
    report.description.clone_from(&setup.scenario.description);
    if !outcome.is_complete && report.verdict == Verdict::Promoted {
        notes.push("the time limit came before the end of the scenario".to_owned());
    }
    Ok(Ok(report))
}

/// Settings of the operator: those of `aviary run`, as far as they matter here.
fn controller_config(args: &SimulateArgs) -> anyhow::Result<ControllerConfig> {
    let mut run = RunArgs::without_flags()?;
    if let Some(provider) = &args.mesh_provider {
        run.mesh_provider.clone_from(provider);
    }
    run.selector_labels.clone_from(&args.selector_labels);
    run.include_label_prefix.clone_from(&args.include_label_prefix);
    run.no_cross_namespace_refs = args.no_cross_namespace_refs;
    run.metrics_errors = args.metrics_errors;
    run.metrics_outage_limit = args.metrics_outage_limit;
    Ok(settings::controller_config(&run))
}

/// All problems, but only the first one with the same thing: what is no duration for the operator is none for the API
/// server, either.
fn without_repetitions(mut problems: Vec<String>, more: Vec<String>) -> Vec<String> {
    let place = |problem: &str| problem.split_once(": ").map(|(place, _)| place.to_owned());
    let known: BTreeSet<Option<String>> = problems.iter().map(|problem| place(problem)).collect();
    problems.extend(more.into_iter().filter(|problem| !known.contains(&place(problem))));
    problems
}

/// Reads and checks everything, and makes up what is missing.
fn prepare(args: &SimulateArgs, config: ControllerConfig) -> (Manifests, Refused<world::Setup>) {
    if let Some(provider) = &args.mesh_provider
        && let Err(error @ UnknownProvider::Unknown { .. }) = traffic::for_name(provider)
    {
        return (Manifests::default(), Err(vec![format!("--mesh-provider={provider}: {error}")]));
    }
    if args.scenario.as_deref() == Some("-") && args.filenames.iter().any(|name| name == "-") {
        let problem = "-f - and --scenario=-: standard input can be read once only; give one of them as a file";
        return (Manifests::default(), Err(vec![problem.to_owned()]));
    }
    let scenario = match &args.scenario {
        Some(path) => read_scenario(path),
        None => Ok(Scenario::default()),
    };
    let (texts, mut problems) = files::read(&args.filenames, args.recursive);
    let (mut manifests, unreadable) = manifests::read(&texts, &args.namespace);
    problems.extend(unreadable);
    let (mut subjects, refusals) = subject::subjects(&manifests, &config, args.mesh_provider.is_some());
    problems.extend(refusals);
    if subjects.is_empty() && problems.is_empty() {
        problems.push("there is no Canary in the input".to_owned());
    }
    let scenario = match scenario {
        Ok(scenario) if problems.is_empty() => scenario,
        scenario => {
            problems.extend(scenario.err().into_iter().flatten());
            return (manifests, Err(problems));
        }
    };
    let rivals = subject::rivals(&subjects, &manifests);
    if !rivals.is_empty() {
        return (manifests, Err(rivals));
    }
    let unusable = routes::unusable(&config, &subjects, &manifests);
    if !unusable.is_empty() {
        return (manifests, Err(unusable));
    }
    let found = pairs::rewind(&mut manifests, &mut subjects)
        .and_then(|()| services::find_releases(&mut manifests, &mut subjects));
    if let Err(problems) = found {
        return (manifests, Err(problems));
    }
    complete::complete(&mut manifests, &subjects, &scenario);
    let setup = plan(args, config, &mut manifests, subjects, scenario);
    (manifests, setup)
}

/// What happens when, by the scenario.
fn plan(
    args: &SimulateArgs,
    config: ControllerConfig,
    manifests: &mut Manifests,
    subjects: Vec<Subject>,
    scenario: Scenario,
) -> Refused<world::Setup> {
    let mut problems = objects::simulate_templates(manifests, &subjects, &scenario).err().unwrap_or_default();
    problems.extend(queries::unanswerable(&config, &subjects, manifests, &scenario));
    let file = args.scenario.as_deref().unwrap_or_default();
    let time_limit = args.time_limit.unwrap_or_else(|| scenario.time_limit());
    let (releases, mut found) = Releases::plan(&scenario, &subjects, manifests);
    let planned = found.is_empty().then_some(&releases);
    found.extend(references::dangling(&scenario, &subjects, planned, manifests));
    found.extend(references::too_late(&scenario, time_limit));
    found.sort_by_key(|problem| problem.place);
    problems.extend(in_file(file, &found));
    if !problems.is_empty() {
        return Err(problems);
    }
    manifests.notes.extend(releases.notes.iter().cloned());
    let seed = args.seed.or(scenario.seed).unwrap_or(SEED);
    let scenario = Arc::new(scenario);
    let scenario_file = file.to_owned();
    Ok(world::Setup { config, subjects, scenario, scenario_file, releases, seed, time_limit })
}

/// Any will do; a fixed one makes two runs equal.
const SEED: u64 = 1;

fn read_scenario(path: &str) -> Refused<Scenario> {
    let Text { name, text } = files::read_one(path).map_err(|problem| vec![problem])?;
    Scenario::parse(&text).map_err(|problems| in_file(&name, &problems))
}

fn in_file(file: &str, problems: &[scenario::Problem]) -> Vec<String> {
    let line = |problem: &scenario::Problem| {
        let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
        format!("{file}:{}: {path}{}", problem.place, problem.message)
    };
    problems.iter().map(line).collect()
}

/// Says which queries that came up on the way gave no answer to judge by.
fn unanswerable(queries: &std::collections::BTreeMap<String, String>) -> Vec<String> {
    let message = |(query, why): (&String, &String)| {
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("no verdict: the query {query} came up on the way, and {why}; a scenario can give values: metrics.NAME")
    };
    queries.iter().map(message).collect()
}
