//! What became of the requests, per second and per version.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::record::{Record, Sample};

/// What became of users' requests. Times are since the first request was due; a request belongs to the time at which it
/// was due.
#[derive(Debug, Clone)]
pub struct Report {
    record: Record,
}

/// The latencies of some requests, in milliseconds. Those of failed requests count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// Half of the requests took at most so long.
    pub p50: f64,
    /// 99 % of the requests took at most so long.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// The requests of a second that one version answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SecondOfVersion {
    /// The second, from 0.
    pub second: u64,
    /// What the answers named as their version; none for those that did not, and for requests without an answer.
    pub version: Option<String>,
    /// Requests.
    pub requests: u64,
    /// Those of them that failed: no connection, no answer in time, or a status of 400 and above.
    pub failures: u64,
    /// Latencies in milliseconds.
    #[serde(rename = "latencyMilliseconds")]
    pub latencies: Latencies,
}

/// All requests that one version answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionTotals {
    /// As in [`SecondOfVersion::version`].
    pub version: Option<String>,
    /// Requests.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Latencies in milliseconds.
    #[serde(rename = "latencyMilliseconds")]
    pub latencies: Latencies,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedRequest {
    /// When it was due.
    pub time: Timestamp,
    /// The same in seconds since the start.
    pub second: f64,
    /// How long it took to fail.
    #[serde(rename = "latencyMilliseconds")]
    pub latency: f64,
    /// The version that answered.
    pub version: Option<String>,
    /// Why it failed.
    pub failure: String,
}

impl Report {
    pub(super) fn new(record: Record) -> Self {
        Report { record }
    }

    /// When the first request was due.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.record.started
    }

    /// This time of day as time since the start; zero for what was before.
    #[must_use]
    pub fn since_start(&self, time: Timestamp) -> Duration {
        Duration::try_from(time.duration_since(self.record.started)).unwrap_or_default()
    }

    /// Requests that have ended.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.record.samples.len() as u64
    }

    /// Requests that were due in this time and have ended.
    #[must_use]
    pub fn requests_in(&self, time: Range<Duration>) -> u64 {
        self.samples_in(&time).count() as u64
    }

    /// Requests that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        failures(self.record.samples.iter())
    }

    /// Requests that were due in this time and failed.
    #[must_use]
    pub fn failures_in(&self, time: Range<Duration>) -> u64 {
        failures(self.samples_in(&time))
    }

    /// The share of this version, from 0 to 1, in the answers that named a version to requests that were due in this time;
    /// none if there are no such answers.
    #[must_use]
    pub fn share(&self, version: &str, time: Range<Duration>) -> Option<f64> {
        let (mut of_version, mut of_all) = (0_u32, 0_u32);
        for sample in self.samples_in(&time) {
            let Some(name) = self.name(sample) else { continue };
            of_all += 1;
            of_version += u32::from(name == version);
        }
        (of_all > 0).then(|| f64::from(of_version) / f64::from(of_all))
    }

    /// When the first answer of this version arrived.
    #[must_use]
    pub fn first_answer(&self, version: &str) -> Option<Duration> {
        self.answered_by(version).map(Sample::answered).min()
    }

    /// When the last answer of this version arrived.
    #[must_use]
    pub fn last_answer(&self, version: &str) -> Option<Duration> {
        self.answered_by(version).map(Sample::answered).max()
    }

    /// The first failed requests, verbatim, by the time at which they ended.
    #[must_use]
    pub fn first_failures(&self) -> Vec<FailedRequest> {
        let failed = self.record.failures.iter().map(|failure| FailedRequest {
            time: self.record.started.checked_add(failure.sample.due).unwrap_or(Timestamp::MAX),
            second: failure.sample.due.as_secs_f64(),
            latency: milliseconds(failure.sample.latency()),
            version: self.name(&failure.sample).map(str::to_owned),
            failure: failure.text.clone(),
        });
        failed.collect()
    }

    /// Totals per version, those without one first.
    #[must_use]
    pub fn versions(&self) -> Vec<VersionTotals> {
        let mut groups: BTreeMap<Option<&str>, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.record.samples {
            groups.entry(self.name(sample)).or_default().push(sample);
        }
        let totals = groups.into_iter().map(|(version, samples)| VersionTotals {
            version: version.map(str::to_owned),
            requests: samples.len() as u64,
            failures: failures(samples.iter().copied()),
            latencies: Latencies::of(&samples),
        });
        totals.collect()
    }

    /// Each second's requests per version, in this order.
    #[must_use]
    pub fn seconds(&self) -> Vec<SecondOfVersion> {
        let mut groups: BTreeMap<(u64, Option<&str>), Vec<&Sample>> = BTreeMap::new();
        for sample in &self.record.samples {
            groups.entry((sample.due.as_secs(), self.name(sample))).or_default().push(sample);
        }
        let seconds = groups.into_iter().map(|((second, version), samples)| SecondOfVersion {
            second,
            version: version.map(str::to_owned),
            requests: samples.len() as u64,
            failures: failures(samples.iter().copied()),
            latencies: Latencies::of(&samples),
        });
        seconds.collect()
    }

    /// All of it, for programs.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "started": self.started(),
            "requestsPerSecond": self.record.rate,
            "requests": self.requests(),
            "failures": self.failures(),
            "versions": self.versions(),
            "firstFailures": self.first_failures(),
            "seconds": self.seconds(),
        })
    }

    fn samples_in(&self, time: &Range<Duration>) -> impl Iterator<Item = &Sample> {
        self.record.samples.iter().filter(move |sample| time.contains(&sample.due))
    }

    fn answered_by<'a>(&'a self, version: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.record.samples.iter().filter(move |sample| self.name(sample) == Some(version))
    }

    fn name(&self, sample: &Sample) -> Option<&str> {
        self.record.versions.get(usize::from(sample.version?)).map(String::as_str)
    }
}

fn failures<'a>(samples: impl Iterator<Item = &'a Sample>) -> u64 {
    samples.filter(|sample| sample.is_failed).count() as u64
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Latencies {
    fn of(samples: &[&Sample]) -> Latencies {
        let mut latencies: Vec<Duration> = samples.iter().map(|sample| sample.latency()).collect();
        latencies.sort_unstable();
        // The smallest latency that this share of the requests did not exceed.
        let at = |percent: usize| {
            let index = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(index).copied().map_or(0.0, milliseconds)
        };
        Latencies { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// Header over lines of [`SecondOfVersion`].
pub const SECONDS_HEADER: &str = " second  version                  requests  failures    p50 ms    p99 ms    max ms";

impl fmt::Display for SecondOfVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7}  ", self.second)?;
        line(f, self.version.as_deref(), self.requests, self.failures, self.latencies)
    }
}

fn line(
    f: &mut fmt::Formatter<'_>,
    version: Option<&str>,
    requests: u64,
    failures: u64,
    Latencies { p50, p99, max }: Latencies,
) -> fmt::Result {
    let version = version.unwrap_or("-");
    write!(f, "{version:<24} {requests:>8}  {failures:>8}  {p50:>8.1}  {p99:>8.1}  {max:>8.1}")
}

/// The totals and the first failures.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for VersionTotals { version, requests, failures, latencies } in self.versions() {
            write!(f, "  total  ")?;
            line(f, version.as_deref(), requests, failures, latencies)?;
            writeln!(f)?;
        }
        writeln!(f, "{} requests since {}, {} failed", self.requests(), self.started(), self.failures())?;
        let first = self.first_failures();
        if first.is_empty() {
            return Ok(());
        }
        writeln!(f, "The first failures:")?;
        for FailedRequest { time, latency, version, failure, .. } in first {
            let version = version.as_deref().unwrap_or("-");
            writeln!(f, "  {time:.3}  {version}  after {latency:.1} ms: {failure}")?;
        }
        Ok(())
    }
}
