//! What a run cost, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use aviary_sim::calls::{CallCounts, Verb};
use serde::Serialize;

use super::Options;
use super::measure::{Counts, Reading};

/// Both built-in checks are made in every round.
const CHECKS_PER_ROUND: u64 = 2;

/// What a run cost.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub options: Options,
    /// From the start of the controller until every canary is initialized.
    pub bootstrap: Stretch,
    /// Ten minutes in which nothing happens.
    pub quiet: Stretch,
    /// The time of the releases.
    pub hours: Stretch,
    /// How the releases ended.
    pub releases: Releases,
    /// Calls to the API that the controller made in the time of the releases.
    pub calls: Calls,
    /// Queries in the time of the releases.
    pub queries: Queries,
    /// Decisions in the time of the releases.
    pub decisions: Decisions,
    /// Memory of the process.
    pub memory: Memory,
    /// Decisions that broke an invariant, in the whole run.
    pub violations: u64,
    /// Actors that panicked, in the whole run.
    pub restarts: u64,
    /// Events that were not recorded, in the whole run.
    pub events_dropped: u64,
}

/// A part of the run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stretch {
    /// Cluster time in seconds.
    pub virtual_seconds: f64,
    /// Time on the clock, in seconds.
    pub real_seconds: f64,
    /// CPU time of the process (controller and embedded cluster), in seconds.
    pub cpu_seconds: Option<f64>,
    /// Calls of the controller but for watches, which the server ends and the controller opens again.
    pub calls: u64,
    /// Queries to Prometheus.
    pub queries: u64,
}

/// How the releases ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Releases {
    /// Deployments that were changed.
    pub started: usize,
    /// New revisions that became primary.
    pub promoted: usize,
    /// New revisions that did not.
    pub rolled_back: usize,
    /// Virtual seconds from the change of the Deployment to the end.
    pub median_seconds: Option<f64>,
    /// The longest of those.
    pub longest_seconds: Option<f64>,
    /// What is not as it should be; empty if all is well.
    pub wrong: Vec<String>,
}

/// Calls of the controller.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Calls {
    /// By verb and resource.
    pub by_kind: BTreeMap<String, u64>,
    /// Gets and lists.
    pub reads: u64,
    /// Watches that were opened again because the server had ended them.
    pub watches: u64,
    /// Writes but for events.
    pub writes: u64,
    /// Writes of events.
    pub event_writes: u64,
    /// Writes but for events, divided by releases.
    pub writes_per_release: Option<f64>,
    /// Calls that concern a canary which releases nothing.
    pub of_idle_canaries: u64,
}

/// Queries to Prometheus.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Queries {
    /// Checks that were answered.
    pub checks: u64,
    /// Queries that it took; fewer where several canaries share one.
    pub asked: u64,
}

/// How long decisions took, from looking at the objects on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Decisions {
    /// How many.
    pub count: u64,
    /// Mean in microseconds.
    pub mean_micros: Option<f64>,
    /// Half of them took at most so long; the bound of a histogram's bucket, in microseconds.
    pub median_below_micros: Option<f64>,
    /// The same for 99 of 100.
    pub p99_below_micros: Option<f64>,
}

/// Memory of the process, which holds the cluster and its users beside the controller.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory {
    /// The most that was resident, in bytes.
    pub peak_bytes: Option<u64>,
    /// Growth from the start until every canary is initialized, for each canary, in bytes.
    pub per_canary_bytes: Option<u64>,
    /// The part of that which came with the controller: its caches and actors, and the objects that it made.
    pub controller_per_canary_bytes: Option<u64>,
}

impl Memory {
    pub(super) fn new(canaries: usize, before: Option<u64>, cluster: Option<u64>, ready: Option<u64>) -> Memory {
        let per_canary = |from: Option<u64>| Some(ready?.saturating_sub(from?) / (canaries as u64).max(1));
        Memory {
            peak_bytes: crate::process::peak_resident_bytes(),
            per_canary_bytes: per_canary(before),
            controller_per_canary_bytes: per_canary(cluster),
        }
    }
}

impl Stretch {
    fn between(from: &Reading, to: &Reading) -> Stretch {
        let calls = calls_between(from, to);
        let virtual_time = to.cluster_time.duration_since(from.cluster_time);
        Stretch {
            virtual_seconds: virtual_time.as_secs_f64(),
            real_seconds: to.real.duration_since(from.real).as_secs_f64(),
            cpu_seconds: to.cpu_seconds.zip(from.cpu_seconds).map(|(to, from)| to - from),
            calls: calls.iter().filter(|(key, _)| !key.starts_with(Verb::Watch.as_str())).map(|(_, count)| count).sum(),
            queries: to.queries - from.queries,
        }
    }
}

fn calls_between(from: &Reading, to: &Reading) -> BTreeMap<String, u64> {
    let names = |counts: &CallCounts| -> BTreeMap<String, u64> {
        let counts = counts.iter().map(|(key, count)| {
            let slash = if key.subresource.is_empty() { "" } else { "/" };
            (format!("{} {}{slash}{}", key.verb, key.resource, key.subresource), count)
        });
        counts.collect()
    };
    let before = names(&from.calls);
    let calls = names(&to.calls).into_iter().map(|(name, count)| {
        let earlier = before.get(&name).copied().unwrap_or(0);
        (name, count - earlier)
    });
    calls.filter(|(_, count)| *count > 0).collect()
}

impl Report {
    /// `readings`: before the controller starts, when all canaries are initialized, after a quiet time, and at the end.
    pub(super) fn new(
        options: &Options,
        releases: Releases,
        readings: &[Reading; 4],
        idle_calls: u64,
        memory: Memory,
    ) -> Report {
        let [start, ready, quiet, end] = readings;
        Report {
            options: options.clone(),
            bootstrap: Stretch::between(start, ready),
            quiet: Stretch::between(ready, quiet),
            hours: Stretch::between(quiet, end),
            calls: Calls::new(calls_between(quiet, end), releases.started, idle_calls),
            queries: Queries {
                checks: (end.controller.rounds - quiet.controller.rounds) * CHECKS_PER_ROUND,
                asked: end.queries - quiet.queries,
            },
            decisions: Decisions::between(&quiet.controller, &end.controller),
            memory,
            violations: end.controller.violations,
            restarts: end.controller.restarts,
            events_dropped: end.controller.events_dropped,
            releases,
        }
    }

    /// Which bounds the controller exceeds, for people; empty if none.
    #[must_use]
    pub fn exceeded(&self) -> Vec<String> {
        let mut exceeded = Vec::new();
        let mut limit = |what: &str, is: f64, at_most: f64| {
            if is > at_most {
                exceeded.push(format!("{what}: {is} is more than {at_most}"));
            }
        };
        let virtual_hours = self.hours.virtual_seconds / 3600.0;
        // Everything runs on one thread, so its CPU time is the real time of a machine that has nothing else to do.
        let seconds = self.hours.cpu_seconds.unwrap_or(self.hours.real_seconds);
        limit("seconds for a virtual hour", seconds / virtual_hours, SECONDS_PER_HOUR);
        limit("calls while nothing happens", count(self.quiet.calls), 0.0);
        limit("queries while nothing happens", count(self.quiet.queries), 0.0);
        limit("calls of idle canaries", count(self.calls.of_idle_canaries), 0.0);
        limit("reads", count(self.calls.reads), 0.0);
        limit("writes per release", self.calls.writes_per_release.unwrap_or(0.0), WRITES_PER_RELEASE);
        limit(
            "median of decisions in microseconds",
            self.decisions.median_below_micros.unwrap_or(0.0),
            DECISION_MICROS,
        );
        limit("violations of invariants", count(self.violations), 0.0);
        limit("restarts of actors", count(self.restarts), 0.0);
        limit("events that were dropped", count(self.events_dropped), 0.0);
        exceeded
    }
}

/// Promised for a thousand canaries at an interval of 10 s with 200 releases, built with optimisation, on two cores.
const SECONDS_PER_HOUR: f64 = 10.0;
/// A promotion over five weights: detection, five weights, promotion, route back, scale-down, and the end, each with its
/// status.
const WRITES_PER_RELEASE: f64 = 20.0;
/// A thousand canaries that all wake at once have decided within a second. The median, because one that the system
/// interrupts says nothing.
const DECISION_MICROS: f64 = 1000.0;

// Counts of a test are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn count(number: u64) -> f64 {
    number as f64
}

impl Calls {
    fn new(by_kind: BTreeMap<String, u64>, releases: usize, of_idle_canaries: u64) -> Calls {
        let sum = |wanted: &dyn Fn(&str, &str) -> bool| {
            let counts = by_kind.iter().filter_map(|(kind, count)| {
                let (verb, resource) = kind.split_once(' ')?;
                wanted(verb, resource).then_some(*count)
            });
            counts.sum::<u64>()
        };
        let is_read = |verb: &str| matches!(verb, "get" | "list");
        let is_write = |verb: &str| !is_read(verb) && verb != "watch";
        let writes = sum(&|verb, resource| is_write(verb) && resource != "events");
        Calls {
            reads: sum(&|verb, _| is_read(verb)),
            watches: sum(&|verb, _| verb == "watch"),
            writes,
            event_writes: sum(&|verb, resource| is_write(verb) && resource == "events"),
            writes_per_release: (releases > 0).then(|| count(writes) / count(releases as u64)),
            of_idle_canaries,
            by_kind,
        }
    }
}

impl Decisions {
    fn between(from: &Counts, to: &Counts) -> Decisions {
        let decisions = to.decisions - from.decisions;
        if decisions == 0 {
            return Decisions::default();
        }
        let earlier = |index: usize| from.decision_buckets.get(index).map_or(0, |(_, count)| *count);
        let below = |share: f64| {
            let buckets = to.decision_buckets.iter().enumerate();
            let mut reached =
                buckets.filter(|(index, (_, held))| count(held - earlier(*index)) >= share * count(decisions));
            // Slower than the last bucket: there is no bound.
            reached.next().map_or(Some(f64::MAX), |(_, (bound, _))| Some(bound * 1e6))
        };
        Decisions {
            count: decisions,
            mean_micros: Some((to.decision_seconds - from.decision_seconds) * 1e6 / count(decisions)),
            median_below_micros: below(0.5),
            p99_below_micros: below(0.99),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { canaries, namespaces, releases, interval, seed, .. } = &self.options;
        writeln!(
            out,
            "{canaries} canaries in {namespaces} namespaces, interval {interval:?}, {releases} releases, seed {seed}\n"
        )?;
        writeln!(out, "{:<32}{:>10}{:>10}{:>10}{:>10}{:>10}", "", "virtual s", "real s", "CPU s", "calls", "queries")?;
        let stretches = [("bootstrap", &self.bootstrap), ("nothing happens", &self.quiet), ("releases", &self.hours)];
        for (name, stretch) in stretches {
            let Stretch { virtual_seconds, real_seconds, cpu_seconds, calls, queries } = stretch;
            let cpu = or_unknown(cpu_seconds.map(|seconds| format!("{seconds:.2}")));
            writeln!(out, "{name:<32}{virtual_seconds:>10.0}{real_seconds:>10.2}{cpu:>10}{calls:>10}{queries:>10}")?;
        }

        let mut line = |name: &str, value: String| writeln!(out, "{name:<32}{value:>10}");
        let seconds = |seconds: Option<f64>| or_unknown(seconds.map(|seconds| format!("{seconds:.1} s")));
        line("\nreleases promoted", self.releases.promoted.to_string())?;
        line("releases rolled back", self.releases.rolled_back.to_string())?;
        line("not as it should be", self.releases.wrong.len().to_string())?;
        line("virtual time of a release", seconds(self.releases.median_seconds))?;
        line("  the longest", seconds(self.releases.longest_seconds))?;

        line("\ncalls while releases happen", self.hours.calls.to_string())?;
        for (kind, number) in &self.calls.by_kind {
            line(&format!("  {kind}"), number.to_string())?;
        }
        line("writes per release", or_unknown(self.calls.writes_per_release.map(|writes| format!("{writes:.1}"))))?;
        line("reads", self.calls.reads.to_string())?;
        line("calls of idle canaries", self.calls.of_idle_canaries.to_string())?;
        line("checks answered", self.queries.checks.to_string())?;
        line("queries asked", self.queries.asked.to_string())?;

        let micros = |micros: Option<f64>| or_unknown(micros.map(|micros| format!("{micros:.0} µs")));
        line("\ndecisions", self.decisions.count.to_string())?;
        line("  mean", micros(self.decisions.mean_micros))?;
        line("  half at most", micros(self.decisions.median_below_micros))?;
        line("  99 % at most", micros(self.decisions.p99_below_micros))?;

        let kib = |bytes: Option<u64>| or_unknown(bytes.map(|bytes| format!("{} KiB", bytes >> 10)));
        line("\npeak memory of the process", or_unknown(self.memory.peak_bytes.map(|b| format!("{} MiB", b >> 20))))?;
        line("  growth per canary", kib(self.memory.per_canary_bytes))?;
        line("  of it with the controller", kib(self.memory.controller_per_canary_bytes))?;

        line("\nviolations of invariants", self.violations.to_string())?;
        line("restarts of actors", self.restarts.to_string())?;
        line("events dropped", self.events_dropped.to_string())?;
        for problem in &self.releases.wrong {
            writeln!(out, "wrong: {problem}")?;
        }
        Ok(())
    }
}

fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}
