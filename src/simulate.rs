//! `aviary simulate`: what would happen to a release, in virtual time, with the operator as it ships.

mod audience;
mod complete;
pub(crate) mod files;
pub(crate) mod load_tester;
pub(crate) mod manifests;
mod network;
mod objects;
mod releases;
mod report;
mod scenario;
mod schedule;
mod series;
mod subject;
mod table;
mod time;
mod timeline;
mod world;
mod yaml;

use std::io::Write;
use std::sync::Arc;

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
    let (setup, mut manifests) = match prepare(args, config) {
        Ok(prepared) => prepared,
        Err(problems) => return Ok(Err(problems)),
    };
    // Everything runs on this thread: a paused clock moves on when the thread has nothing left to do.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().context("start the runtime")?;
    // Actors that are dropped with the local set serve what is left in their mailboxes, which needs the runtime.
    let _entered = runtime.enter();
    let played = tokio::task::LocalSet::new().block_on(&runtime, world::play(&setup, &mut manifests))?;
    notes.append(&mut manifests.notes);
    let outcome = match played {
        Ok(outcome) => outcome,
        Err(problems) => return Ok(Err(problems)),
    };
    notes.extend(unknown_series(&outcome.observed.unknown_series, &manifests));
    if !outcome.violations.is_empty() {
        notes.push(format!("the operator broke its own rules, please report this: {}", outcome.violations.join(", ")));
    }
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

/// Reads and checks everything, and makes up what is missing.
fn prepare(args: &SimulateArgs, config: ControllerConfig) -> Refused<(world::Setup, Manifests)> {
    if let Some(provider) = &args.mesh_provider
        && let Err(error @ UnknownProvider::Unknown { .. }) = traffic::for_name(provider)
    {
        return Err(vec![format!("--mesh-provider={provider}: {error}")]);
    }
    let mut problems = Vec::new();
    let mut keep = |found: Vec<String>| problems.extend(found);
    let scenario = match &args.scenario {
        Some(path) => read_scenario(path).map_err(&mut keep).ok(),
        None => Some(Scenario::default()),
    };
    let texts = files::read(&args.filenames, args.recursive).map_err(&mut keep).ok();
    let manifests = texts.and_then(|texts| manifests::read(&texts, &args.namespace).map_err(&mut keep).ok());
    let subjects = manifests.as_ref().and_then(|manifests| {
        subject::subjects(manifests, &config, args.mesh_provider.is_some()).map_err(&mut keep).ok()
    });
    let (Some(scenario), Some(mut manifests), Some(subjects)) = (scenario, manifests, subjects) else {
        return Err(problems);
    };
    complete::complete(&mut manifests, &subjects, &scenario);
    if let Err(found) = objects::simulate_templates(&mut manifests, &subjects, &scenario) {
        problems.extend(found);
    }
    let file = args.scenario.as_deref().unwrap_or_default();
    match Releases::plan(&scenario, &subjects, &manifests) {
        Ok(releases) if problems.is_empty() => {
            let dangling = schedule::dangling(&scenario, &subjects, &releases);
            if !dangling.is_empty() {
                return Err(in_file(file, &dangling));
            }
            manifests.notes.extend(releases.notes.iter().cloned());
            let seed = args.seed.or(scenario.seed).unwrap_or(SEED);
            let time_limit = args.time_limit.unwrap_or_else(|| scenario.time_limit());
            let scenario = Arc::new(scenario);
            Ok((world::Setup { config, subjects, scenario, releases, seed, time_limit }, manifests))
        }
        Ok(_) => Err(problems),
        Err(found) => {
            problems.extend(in_file(file, &found));
            Err(problems)
        }
    }
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

/// Says which metrics were asked for that the simulation does not have, and by which template.
fn unknown_series(unknown: &std::collections::BTreeMap<String, String>, manifests: &Manifests) -> Vec<String> {
    unknown
        .iter()
        .map(|(name, query)| {
            let template = manifests.of("flagger.app", "MetricTemplate").find(|template| {
                template.object["spec"]["query"].as_str().is_some_and(|text| text.contains(name.as_str()))
            });
            let (who, field) = match template {
                Some(template) => (template.title(), template.name().to_owned()),
                None => {
                    (format!("the query {}", query.split_whitespace().collect::<Vec<_>>().join(" ")), "NAME".to_owned())
                }
            };
            format!(
                "{who} asks for {name}, which the simulation does not have; a scenario can give values: metrics.{field}"
            )
        })
        .collect()
}
