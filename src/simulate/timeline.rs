//! What happens to one canary, as its object and its Events tell it.

use std::collections::BTreeMap;

use aviary_actors::Metrics;
use aviary_crds::validated::MetricSource;
use aviary_crds::{CanaryStatus, Phase};
use aviary_sim::store::{ChangeType, StoreEvent, kinds};
use aviary_sim::traffic::{Traffic, WorkloadTotals};
use jiff::Timestamp;
use prometheus::core::Collector;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::subject::{Subject, limits};

/// Where a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum RowKind {
    /// An Event of type Normal.
    Normal,
    /// An Event of type Warning.
    Warning,
    /// A change of the target by the simulation.
    Release,
    /// Something that a user did, or a fault that began or ended.
    Action,
    /// A message to a chat.
    Alert,
}

/// The value of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckValue {
    pub(crate) metric: String,
    /// Percent for `request-success-rate`, milliseconds for `request-duration`.
    pub(crate) value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<f64>,
    /// Whether the value is within the limits.
    pub(crate) passed: bool,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) at: Timestamp,
    pub(crate) phase: Phase,
    /// Percent of the traffic that the canary gets.
    pub(crate) weight: i64,
    pub(crate) kind: RowKind,
    pub(crate) message: String,
    /// The checks of the round that led to this, if one did.
    pub(crate) checks: Vec<CheckValue>,
    /// Requests that the canary answered since the round before, if there was a round.
    pub(crate) sample: Option<WorkloadTotals>,
}

impl Row {
    /// Whether the operator told it.
    pub(crate) fn is_event(&self) -> bool {
        matches!(self.kind, RowKind::Normal | RowKind::Warning)
    }
}

/// From a new revision to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) started: Timestamp,
    pub(crate) ended: Option<(Timestamp, Phase)>,
    /// The canary's share when it ended, in percent.
    pub(crate) weight: i64,
    /// Image of the target when it began.
    pub(crate) image: String,
    /// Position of its first row.
    pub(crate) first_row: usize,
}

/// A canary and what happened to it.
pub(crate) struct Tracked {
    pub(crate) phase: Phase,
    pub(crate) weight: i64,
    pub(crate) rows: Vec<Row>,
    pub(crate) runs: Vec<Run>,
    /// Text of the condition `Promoted`.
    pub(crate) condition: String,
    pub(crate) is_deleted: bool,
    /// When phase, weight or revision changed last.
    pub(crate) changed: Instant,
    /// First image of the target at present.
    pub(crate) image: String,
    revision: Option<String>,
    configs: Option<BTreeMap<String, String>>,
    /// When the target was released last.
    released: Option<Timestamp>,
    /// When the operator last took notice of a release.
    noticed: Option<Timestamp>,
    rounds: u64,
    sampled: WorkloadTotals,
    /// The first row whose step has not stored its status yet: an Event comes before the status, or after it.
    unsettled: usize,
}

/// What a row needs to know besides.
pub(crate) struct Around<'a> {
    pub(crate) now: Timestamp,
    pub(crate) metrics: Option<&'a Metrics>,
    pub(crate) traffic: &'a Traffic,
}

fn is_terminal(phase: Phase) -> bool {
    matches!(phase, Phase::Uninitialized | Phase::Initialized | Phase::Succeeded | Phase::Failed)
}

/// The operator's message about a canary that is suspended.
const SUSPENDED: &str = "object is suspended";

impl Tracked {
    /// Whether the last thing that the operator said is that the canary is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        self.rows.iter().rev().find(|row| row.is_event()).is_some_and(|row| row.message.ends_with(SUSPENDED))
    }

    pub(crate) fn new() -> Tracked {
        Tracked {
            phase: Phase::Uninitialized,
            weight: 0,
            rows: Vec::new(),
            runs: Vec::new(),
            condition: String::new(),
            is_deleted: false,
            changed: Instant::now(),
            image: String::new(),
            revision: None,
            configs: None,
            released: None,
            noticed: None,
            rounds: 0,
            sampled: WorkloadTotals::default(),
            unsettled: 0,
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_at_rest(&self) -> bool {
        is_terminal(self.phase) || self.is_deleted
    }

    pub(crate) fn is_initialized(&self) -> bool {
        !matches!(self.phase, Phase::Uninitialized | Phase::Initializing)
    }

    /// When the last release came, if the operator has not taken notice of it.
    pub(crate) fn unnoticed(&self) -> Option<Timestamp> {
        self.released.filter(|released| self.noticed.is_none_or(|noticed| noticed < *released))
    }

    /// Takes in a change of the cluster that concerns this canary; others are passed over.
    pub(crate) fn take(&mut self, subject: &Subject, change: &StoreEvent, around: &Around) {
        let object = change.object();
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if text("/metadata/namespace") != subject.namespace() {
            return;
        }
        if change.kind.kind == subject.kind()
            && change.kind.group == subject.group()
            && text("/metadata/name") == subject.name()
        {
            self.is_deleted = change.change == ChangeType::Deleted;
            self.take_status(&object["status"], around.now);
        } else if [kinds::DEPLOYMENT, kinds::DAEMON_SET].contains(&change.kind)
            && text("/metadata/name") == subject.canary_workload()
        {
            text("/spec/template/spec/containers/0/image").clone_into(&mut self.image);
        } else if change.kind == kinds::EVENT
            && change.change != ChangeType::Deleted
            && text("/involvedObject/kind") == subject.kind()
            && text("/involvedObject/name") == subject.name()
        {
            let kind = if text("/type") == "Warning" { RowKind::Warning } else { RowKind::Normal };
            self.add_event(kind, text("/message"), subject, around);
        }
    }

    fn take_status(&mut self, status: &Value, now: Timestamp) {
        let status: CanaryStatus = serde_json::from_value(status.clone()).unwrap_or_default();
        let condition = status.conditions.iter().find(|condition| condition.condition_type == "Promoted");
        if let Some(condition) = condition {
            self.condition.clone_from(&condition.message);
        }
        // What was told in this instant led to this.
        for row in self.rows.iter_mut().skip(self.unsettled).filter(|row| row.at == now && row.is_event()) {
            (row.phase, row.weight) = (status.phase, status.canary_weight);
        }
        self.unsettled = self.rows.len();
        let before = std::mem::replace(&mut self.phase, status.phase);
        let is_new_revision = status.last_applied_spec != self.revision;
        let has_new_configs = status.tracked_configs != self.configs;
        let bootstraps = matches!(before, Phase::Uninitialized | Phase::Initializing);
        let begins = is_terminal(before) && !is_terminal(status.phase) && !bootstraps;
        // A release that is taken back while it waits for approval changes nothing else.
        let is_taken_back = before == Phase::Waiting && is_terminal(status.phase);
        if is_new_revision || has_new_configs || begins || is_taken_back {
            self.noticed = Some(now);
        }
        self.configs = status.tracked_configs;
        if before == status.phase && self.weight == status.canary_weight && !is_new_revision {
            return;
        }
        self.weight = status.canary_weight;
        self.revision = status.last_applied_spec;
        self.changed = Instant::now();
        let ends = matches!(status.phase, Phase::Succeeded | Phase::Failed);
        let is_open = self.runs.last().is_some_and(|run| run.ended.is_none());
        let starts = !is_open && !bootstraps && (!is_terminal(status.phase) || (ends && is_new_revision));
        if starts {
            let first_row = self.rows.len();
            self.runs.push(Run { started: now, ended: None, weight: 0, image: self.image.clone(), first_row });
        }
        if let Some(run) = self.runs.last_mut().filter(|run| run.ended.is_none()) {
            // A restart on a newer revision goes on with it.
            run.image.clone_from(&self.image);
            run.ended = ends.then_some((now, status.phase));
            run.weight = self.weight;
        }
    }

    fn add_event(&mut self, kind: RowKind, message: &str, subject: &Subject, around: &Around) {
        let mut checks = Vec::new();
        let mut sample = None;
        if let Some(metrics) = around.metrics {
            let rounds = rounds(metrics, subject);
            if rounds > self.rounds {
                self.rounds = rounds;
                checks = take_checks(metrics, subject);
                let total = canary_totals(around.traffic, subject);
                sample = Some(WorkloadTotals {
                    requests: total.requests - self.sampled.requests,
                    failures: total.failures - self.sampled.failures,
                });
                self.sampled = total;
            }
        }
        let (phase, weight) = (self.phase, self.weight);
        self.rows.push(Row { at: around.now, phase, weight, kind, message: message.to_owned(), checks, sample });
    }

    /// The target was changed.
    pub(crate) fn release(&mut self, at: Timestamp, message: String) {
        self.released = Some(at);
        self.add(RowKind::Release, at, message);
    }

    /// A row that comes from the simulation itself.
    pub(crate) fn add(&mut self, kind: RowKind, at: Timestamp, message: String) {
        let (phase, weight) = (self.phase, self.weight);
        self.rows.push(Row { at, phase, weight, kind, message, checks: Vec::new(), sample: None });
    }
}

/// Requests that the canary answered, for everybody and on its own service.
fn canary_totals(traffic: &Traffic, subject: &Subject) -> WorkloadTotals {
    let mut sum = WorkloadTotals::default();
    for host in subject.hosts() {
        let totals = traffic.report(subject.namespace(), &host).workload(subject.canary_workload());
        sum.requests += totals.requests;
        sum.failures += totals.failures;
    }
    sum
}

fn has_labels(metric: &prometheus::proto::Metric, wanted: &[(&str, &str)]) -> bool {
    wanted
        .iter()
        .all(|(name, value)| metric.get_label().iter().any(|label| label.name() == *name && label.value() == *value))
}

/// Check rounds until now.
fn rounds(metrics: &Metrics, subject: &Subject) -> u64 {
    let labels = [("name", subject.target()), ("namespace", subject.namespace())];
    let families = metrics.canary_duration.collect();
    let mut series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    series.find(|metric| has_labels(metric, &labels)).map_or(0, |metric| metric.get_histogram().get_sample_count())
}

/// The values that were measured since this was asked last, in the order of the spec.
fn take_checks(metrics: &Metrics, subject: &Subject) -> Vec<CheckValue> {
    let families = metrics.metric_analysis.collect();
    let mut checks: Vec<CheckValue> = Vec::new();
    for check in subject.checks() {
        let labels = [("name", subject.target()), ("namespace", subject.namespace()), ("metric", check.name.as_str())];
        let mut series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        let Some(found) = series.find(|metric| has_labels(metric, &labels)) else { continue };
        if checks.iter().any(|known| known.metric == check.name) {
            continue;
        }
        let value = found.get_gauge().get_value();
        // Flagger's gauge of the duration is in seconds, and its limit in milliseconds.
        let is_duration = matches!(check.source, MetricSource::Duration | MetricSource::DurationInSeconds);
        let value = if is_duration { (value * 1000.0).trunc() } else { value };
        let (min, max) = limits(check);
        let passed = min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max);
        checks.push(CheckValue { metric: check.name.clone(), value, min, max, passed });
        // Whatever is there next time is new.
        let _ = metrics.metric_analysis.remove_label_values(&labels.map(|(_, value)| value));
    }
    checks
}
