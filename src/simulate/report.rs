//! The verdict, and everything that it rests on. The JSON output is this, field by field.

use std::time::Duration;

use aviary_crds::Phase;
use aviary_sim::traffic::WorkloadTotals;
use jiff::Timestamp;
use serde::Serialize;

use super::releases::Releases;
use super::subject::Subject;
use super::timeline::{CheckValue, RowKind, Run, Tracked};
use super::world::Outcome;
use crate::requests::Requests;

/// Version of the JSON output.
pub(crate) const API_VERSION: &str = "simulation.aviary.app/v1alpha1";

/// What came of a canary, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// The last release was promoted.
    Promoted,
    /// The last release was rolled back.
    RolledBack,
    /// The last release failed and keeps its share of the users, as its object asks for (`if_unhealthy: freeze`).
    Frozen,
    /// The last release had no end before the time limit: a gate stayed closed, or the monitoring away.
    Waiting,
    /// The operator did not take notice of a release: the canary is suspended, or nothing changed.
    NotReleased,
    /// The canary was deleted.
    Deleted,
    /// The canary never became ready to release anything.
    NotInitialized,
    /// Something in the input could not be understood.
    NotUnderstood,
}

impl Verdict {
    /// What the process exits with.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Promoted => 0,
            Verdict::NotUnderstood => 2,
            _ => 1,
        }
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Verdict::Promoted => "promoted",
            Verdict::RolledBack => "rolled back",
            Verdict::Frozen => "frozen",
            Verdict::Waiting => "still waiting",
            Verdict::NotReleased => "not released",
            Verdict::Deleted => "deleted",
            Verdict::NotInitialized => "not initialized",
            Verdict::NotUnderstood => "not understood",
        }
    }
}

/// What came of a simulation.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    api_version: &'static str,
    kind: &'static str,
    /// The worst verdict of all canaries.
    pub verdict: Verdict,
    /// What the process exits with.
    pub exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// What is wrong with the input; only with `NotUnderstood`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What was made up, left out or answered by the scenario.
    pub notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Cluster time from the first release to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_seconds: Option<f64>,
    /// Calls of the operator to the API server since the first release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<Api>,
    /// In the order of the input.
    pub canaries: Vec<CanaryReport>,
}

/// Calls to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Api {
    pub(crate) writes: u64,
    pub(crate) event_writes: u64,
    pub(crate) reads: u64,
    /// Calls that the scenario's faults hit.
    pub(crate) faults: u64,
}

/// What came of one canary.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryReport {
    #[serde(skip)]
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `Deployment/podinfo`.
    pub(crate) target: String,
    pub(crate) provider: String,
    /// What came of its last release.
    pub verdict: Verdict,
    /// `status.phase` at the end; empty if there is none.
    pub(crate) phase: Phase,
    /// Why, in order of weight.
    pub reasons: Vec<String>,
    pub(crate) releases: Vec<ReleaseReport>,
    pub(crate) requests: RequestsReport,
    pub(crate) webhooks: Vec<WebhookReport>,
    pub(crate) timeline: Vec<RowReport>,
}

/// One release.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReleaseReport {
    pub(crate) image: String,
    pub(crate) verdict: Verdict,
    pub(crate) start_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_seconds: Option<f64>,
}

/// Requests of users to the service since the first release, by who answered.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestsReport {
    pub(crate) total: Totals,
    pub(crate) primary: Totals,
    pub(crate) canary: Totals,
    /// Nobody answered: there was no ready pod, or no route.
    pub(crate) unanswered: Totals,
}

/// Numbers of requests; fractions are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
}

/// Calls of one webhook.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookReport {
    pub(crate) name: String,
    pub(crate) calls: u64,
    /// Calls that were not answered with 200, 201 or 202.
    pub(crate) refused: u64,
}

/// One line of the timeline.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RowReport {
    /// From the first release; negative before it.
    pub(crate) at_seconds: f64,
    pub(crate) phase: Phase,
    pub(crate) weight: i64,
    #[serde(rename = "type")]
    pub(crate) kind: RowKind,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) checks: Vec<CheckValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sample: Option<Totals>,
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^53 and never negative"
)]
fn whole(number: f64) -> u64 {
    number.round().max(0.0) as u64
}

impl From<Requests> for RequestsReport {
    fn from(requests: Requests) -> RequestsReport {
        let (primary, canary, unanswered) =
            (Totals::from(requests.primary), requests.canary.into(), Totals::from(requests.unanswered));
        let others = Totals::from(requests.others());
        // Each is rounded by itself; a total that is rounded, too, would not be their sum.
        let total = [canary, unanswered, others].into_iter().fold(primary, Totals::plus);
        RequestsReport { total, primary, canary, unanswered }
    }
}

impl Totals {
    fn plus(self, other: Totals) -> Totals {
        Totals { requests: self.requests + other.requests, failed: self.failed + other.failed }
    }
}

impl From<WorkloadTotals> for Totals {
    fn from(totals: WorkloadTotals) -> Totals {
        Totals { requests: whole(totals.requests), failed: whole(totals.failures) }
    }
}

impl Report {
    /// The report of an input that is not understood.
    pub(crate) fn refused(problems: Vec<String>, notes: Vec<String>) -> Report {
        Report {
            api_version: API_VERSION,
            kind: "SimulationReport",
            verdict: Verdict::NotUnderstood,
            exit_code: Verdict::NotUnderstood.exit_code(),
            description: None,
            problems,
            notes,
            seed: None,
            duration_seconds: None,
            api: None,
            canaries: Vec::new(),
        }
    }

    /// The report of a simulation.
    pub(crate) fn of(outcome: &Outcome, subjects: &[Subject], releases: &Releases, seed: u64) -> Report {
        let canaries: Vec<CanaryReport> = subjects
            .iter()
            .enumerate()
            .filter_map(|(index, subject)| canary(index, subject, outcome, releases))
            .collect();
        let verdict = canaries.iter().map(|canary| canary.verdict).max().unwrap_or(Verdict::NotUnderstood);
        Report {
            api_version: API_VERSION,
            kind: "SimulationReport",
            verdict,
            exit_code: verdict.exit_code(),
            description: None,
            problems: Vec::new(),
            notes: Vec::new(),
            seed: Some(seed),
            duration_seconds: Some(outcome.time.seconds(outcome.ended, outcome.started)),
            api: Some(Api {
                writes: outcome.calls.writes(),
                event_writes: outcome.calls.event_writes(),
                reads: outcome.calls.reads(),
                faults: outcome.faults,
            }),
            canaries,
        }
    }
}

fn canary(index: usize, subject: &Subject, outcome: &Outcome, releases: &Releases) -> Option<CanaryReport> {
    let tracked = outcome.tracked.get(index)?;
    let (before, after) = outcome.requests.get(index)?;
    let freezes = subject.canary.freezes;
    let verdict = verdict(tracked, freezes);
    let seconds = |at: Timestamp| outcome.time.seconds(at, outcome.started);
    let mut timeline: Vec<RowReport> = tracked
        .rows
        .iter()
        .map(|row| RowReport {
            at_seconds: seconds(row.at),
            phase: row.phase,
            weight: row.weight,
            kind: row.kind,
            message: row.message.clone(),
            checks: row.checks.clone(),
            sample: row.sample.map(Totals::from),
        })
        .collect();
    for alert in outcome.observed.alerts.iter().filter(|alert| alert.canary == subject.id()) {
        let at_seconds = seconds(alert.at);
        let position = timeline.partition_point(|row| row.at_seconds <= at_seconds);
        let (phase, weight) = position
            .checked_sub(1)
            .and_then(|before| timeline.get(before))
            .map_or((Phase::Uninitialized, 0), |before| (before.phase, before.weight));
        let row = RowReport {
            at_seconds,
            phase,
            weight,
            kind: RowKind::Alert,
            message: alert.text.clone(),
            checks: Vec::new(),
            sample: None,
        };
        timeline.insert(position, row);
    }
    Some(CanaryReport {
        kind: subject.kind(),
        namespace: subject.namespace().to_owned(),
        name: subject.name().to_owned(),
        target: format!("{}/{}", subject.canary.target.kind, subject.target()),
        provider: subject.provider.clone(),
        verdict,
        phase: tracked.phase,
        reasons: reasons(verdict, tracked, outcome, releases.planned.is_empty()),
        releases: release_reports(tracked, freezes, outcome),
        requests: Requests::between(before, after, subject.canary_workload(), subject.primary_workload()).into(),
        webhooks: outcome
            .observed
            .webhooks
            .iter()
            .filter(|((canary, _), _)| *canary == subject.id())
            .map(|((_, name), calls)| WebhookReport { name: name.clone(), calls: calls.made, refused: calls.refused })
            .collect(),
        timeline,
    })
}

fn verdict(tracked: &Tracked, freezes: bool) -> Verdict {
    if tracked.is_deleted {
        return Verdict::Deleted;
    }
    match tracked.runs.last() {
        None if !tracked.is_initialized() => Verdict::NotInitialized,
        None => Verdict::NotReleased,
        // What comes while a release is under way may be taken up after it.
        Some(run) if run.ended.is_some() && tracked.unnoticed().is_some() => Verdict::NotReleased,
        Some(run) => of_run(run, freezes),
    }
}

fn of_run(run: &Run, freezes: bool) -> Verdict {
    match run.ended {
        None => Verdict::Waiting,
        Some((_, Phase::Succeeded)) => Verdict::Promoted,
        Some((_, Phase::Failed)) if freezes && run.weight > 0 => Verdict::Frozen,
        Some(_) => Verdict::RolledBack,
    }
}

/// Those that the operator took notice of, and the last one if it did not.
fn release_reports(tracked: &Tracked, freezes: bool, outcome: &Outcome) -> Vec<ReleaseReport> {
    let seconds = |at: Timestamp| outcome.time.seconds(at, outcome.started);
    let runs = tracked.runs.iter().map(|run| ReleaseReport {
        image: run.image.clone(),
        verdict: of_run(run, freezes),
        start_seconds: seconds(run.started),
        duration_seconds: run.ended.map(|(at, _)| seconds(at) - seconds(run.started)),
    });
    let unnoticed = tracked.unnoticed().filter(|_| verdict(tracked, freezes) == Verdict::NotReleased);
    let unnoticed = unnoticed.map(|at| ReleaseReport {
        image: tracked.image.clone(),
        verdict: Verdict::NotReleased,
        start_seconds: seconds(at),
        duration_seconds: None,
    });
    runs.chain(unnoticed).collect()
}

/// How many different warnings are told; the timeline has them all.
const TOLD: usize = 5;

fn reasons(verdict: Verdict, tracked: &Tracked, outcome: &Outcome, nothing_planned: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    let is_suspended = matches!(verdict, Verdict::NotReleased | Verdict::NotInitialized) && tracked.is_suspended();
    match verdict {
        _ if is_suspended => reasons.push("the canary is suspended (spec.suspend): nothing is released".to_owned()),
        Verdict::NotReleased if nothing_planned => reasons.push("there was no release".to_owned()),
        Verdict::NotReleased => reasons.push("the operator has not taken notice of the release".to_owned()),
        Verdict::Waiting => {
            let waited = outcome.time.seconds(outcome.ended, outcome.started).max(0.0);
            let waited = Duration::from_secs(whole(waited));
            reasons.push(format!(
                "no end after {}, the time limit; phase {}",
                aviary_crds::duration::format_go_duration(waited),
                tracked.phase
            ));
        }
        Verdict::NotInitialized => reasons.push("the canary was not initialized within an hour".to_owned()),
        Verdict::Deleted => reasons.push("the canary was deleted".to_owned()),
        Verdict::Promoted | Verdict::RolledBack | Verdict::Frozen if !tracked.condition.is_empty() => {
            reasons.push(tracked.condition.clone());
        }
        _ => {}
    }
    if verdict == Verdict::Promoted {
        return reasons;
    }
    let first_row = match tracked.runs.last() {
        Some(run) if verdict == Verdict::NotReleased => {
            // Why it was passed over may have been said before it came.
            let ended = run.ended.map_or(run.started, |(at, _)| at);
            tracked.rows.partition_point(|row| row.at <= ended)
        }
        Some(run) => run.first_row,
        None if verdict == Verdict::NotInitialized => 0,
        None => tracked.rows.iter().position(|row| !row.is_event()).unwrap_or(tracked.rows.len()),
    };
    let rows = tracked.rows.get(first_row..).unwrap_or_default();
    if verdict == Verdict::NotReleased {
        // Why nothing happens is no warning where somebody wanted it so.
        reasons.extend(rows.iter().rev().find(|row| row.kind == RowKind::Normal).map(|row| row.message.clone()));
    }
    // The last ones decided it; one that repeats is told once, as it was last.
    let mut warnings: Vec<(&str, usize)> = Vec::new();
    for row in rows.iter().rev().filter(|row| row.kind == RowKind::Warning) {
        let same = |(known, _): &&mut (&str, usize)| without_numbers(known) == without_numbers(&row.message);
        match warnings.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None => warnings.push((&row.message, 1)),
        }
    }
    reasons.extend(warnings.into_iter().take(TOLD).rev().map(|(message, count)| match count {
        1 => message.to_owned(),
        _ => format!("{message} ({count} times, this is the last one)"),
    }));
    reasons
}

/// Equal for messages that differ in their figures only.
fn without_numbers(message: &str) -> String {
    message.chars().filter(|letter| !letter.is_ascii_digit() && *letter != '.').collect()
}
