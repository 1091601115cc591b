//! Meters, read between the parts of a run.

use std::collections::HashSet;

use aviary_actors::Metrics;
use aviary_sim::calls::{CallCounts, CallEntry};
use aviary_sim::cluster::Cluster;
use aviary_sim::store::kinds;
use jiff::Timestamp;
use prometheus::core::{Collector, Metric};
use serde_json::Value;

use super::schedule::Release;
use super::{CONTROLLER, Options};
use crate::objects::{self, Name};
use crate::process;

/// Calls of one release, of the controller and of users, are some thirty; three times that, and the watches that are
/// opened anew in an hour.
const CALLS_PER_RELEASE: usize = 100;
const CALLS_BESIDES: usize = 20_000;

/// How many calls the log has to hold so that it holds those of all releases.
pub(super) fn log_capacity(releases: usize) -> usize {
    releases * CALLS_PER_RELEASE + CALLS_BESIDES
}

/// All meters at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) real: std::time::Instant,
    /// Time of the cluster.
    pub(super) cluster_time: Timestamp,
    pub(super) cpu_seconds: Option<f64>,
    /// All clients' calls.
    all_calls: CallCounts,
    /// The controller's.
    pub(super) calls: CallCounts,
    pub(super) queries: u64,
    pub(super) controller: Counts,
}

/// What the controller counts itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Rounds of checks.
    pub(super) rounds: u64,
    pub(super) decisions: u64,
    pub(super) decision_seconds: f64,
    /// Upper bound in seconds, and decisions that took at most so long.
    pub(super) decision_buckets: Vec<(f64, u64)>,
    pub(super) violations: u64,
    pub(super) restarts: u64,
    pub(super) events_dropped: u64,
}

impl Reading {
    pub(super) fn take(cluster: &Cluster, user_agent: &str, metrics: Option<&Metrics>) -> Reading {
        let all_calls = cluster.calls().snapshot();
        Reading {
            real: std::time::Instant::now(),
            cluster_time: cluster.clock().now(),
            cpu_seconds: process::cpu_seconds(),
            calls: all_calls.of_client(user_agent),
            all_calls,
            queries: cluster.prometheus().query_count(),
            controller: metrics.map(Counts::of).unwrap_or_default(),
        }
    }
}

impl Counts {
    fn of(metrics: &Metrics) -> Counts {
        let decisions = metrics.decision_duration.metric();
        let decisions = decisions.get_histogram();
        let buckets = decisions.get_bucket().iter();
        Counts {
            rounds: rounds(metrics),
            decisions: decisions.get_sample_count(),
            decision_seconds: decisions.get_sample_sum(),
            decision_buckets: buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect(),
            violations: sum(&metrics.violations),
            restarts: sum(&metrics.restarts),
            events_dropped: metrics.events_dropped.get(),
        }
    }
}

fn rounds(metrics: &Metrics) -> u64 {
    let families = metrics.canary_duration.collect();
    let series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    series.map(|metric| metric.get_histogram().get_sample_count()).sum()
}

fn sum(counter: &prometheus::IntCounterVec) -> u64 {
    let families = counter.collect();
    let series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    // Counts of a test are far below 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    series.map(|metric| metric.get_counter().get_value() as u64).sum()
}

/// Calls of the controller, since `since`, that concern a canary which releases nothing. Writes of events carry no name
/// of a canary; those are found by the events that they made.
///
/// # Errors
/// There were more calls than the log holds.
pub(super) fn idle_calls(
    cluster: &Cluster,
    options: &Options,
    releases: &[Release],
    since: &Reading,
) -> anyhow::Result<u64> {
    let releasing: HashSet<usize> = releases.iter().map(|release| release.canary).collect();
    let idle = (0..options.canaries).filter(|index| !releasing.contains(index));
    let idle: HashSet<Name> = idle.map(|index| objects::name(index, options.namespaces)).collect();

    let calls = usize::try_from(cluster.calls().since(&since.all_calls).total())?;
    let log = cluster.calls().entries();
    anyhow::ensure!(calls <= log_capacity(releases.len()), "{calls} calls are more than the log of calls holds");
    let recent = log.iter().skip(log.len().saturating_sub(calls));
    let named = recent.filter(|entry| entry.call.key.client == CONTROLLER && idle.contains(&subject(entry))).count();

    let events = cluster.store().list(&kinds::EVENT, None);
    let about_idle = events.iter().filter(|event| {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let about = Name { namespace: text("/involvedObject/namespace"), name: text("/involvedObject/name") };
        let at: Option<Timestamp> = text("/lastTimestamp").parse().ok();
        at.is_some_and(|at| at >= since.cluster_time) && idle.contains(&about)
    });
    Ok((named + about_idle.count()) as u64)
}

/// The canary that a call concerns, by the name of the object.
fn subject(entry: &CallEntry) -> Name {
    let name = entry.call.name.as_str();
    let canary = name.strip_suffix("-primary").or_else(|| name.strip_suffix("-canary")).unwrap_or(name);
    Name { namespace: entry.call.namespace.clone(), name: canary.to_owned() }
}
