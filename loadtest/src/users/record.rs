//! What became of each request.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

/// Failures that are kept verbatim. The first few tell what is wrong; of the others the number is enough.
const KEPT_FAILURES: usize = 20;

/// What a request got.
pub(super) struct Answer<'a> {
    pub(super) status: Option<StatusCode>,
    pub(super) version: Option<&'a str>,
    /// Why there is no status.
    pub(super) failure: Option<String>,
}

/// One request, in 32 bytes: an hour at 1,000 requests per second is 115 MB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// When the request was due, since the start.
    pub(super) due: Duration,
    /// Microseconds from then to its end, up to 71 minutes.
    latency: u32,
    pub(super) is_failed: bool,
    /// Index of the version that answered.
    pub(super) version: Option<u16>,
}

impl Sample {
    pub(super) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency.into())
    }

    /// When the answer had arrived, since the start.
    pub(super) fn answered(&self) -> Duration {
        self.due + self.latency()
    }
}

/// A failure, verbatim.
#[derive(Debug, Clone)]
pub(super) struct KeptFailure {
    pub(super) sample: Sample,
    pub(super) text: String,
}

/// All requests that have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) started: Timestamp,
    pub(super) rate: f64,
    pub(super) samples: Vec<Sample>,
    pub(super) versions: Vec<String>,
    indices: HashMap<String, u16>,
    pub(super) failures: Vec<KeptFailure>,
}

impl Record {
    pub(super) fn new(started: Timestamp, rate: f64) -> Self {
        Record { started, rate, ..Record::default() }
    }

    pub(super) fn add(&mut self, due: Duration, latency: Duration, answer: Answer<'_>) {
        let Answer { status, version, failure } = answer;
        // Pods of this bench answer 200 or 500; a gateway without a route says 404, which is a lost request too.
        let is_failed = status.is_none_or(|status| status.is_client_error() || status.is_server_error());
        let version = version.and_then(|version| self.index(version));
        let latency = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let sample = Sample { due, latency, is_failed, version };
        self.samples.push(sample);
        if is_failed && self.failures.len() < KEPT_FAILURES {
            let text = failure.or_else(|| Some(format!("status {}", status?))).unwrap_or_default();
            self.failures.push(KeptFailure { sample, text });
        }
    }

    /// The requests that were due in this second.
    pub(super) fn of_second(&self, second: u64) -> Record {
        let samples = self.samples.iter().filter(|sample| sample.due.as_secs() == second).copied().collect();
        Record { samples, versions: self.versions.clone(), ..Record::new(self.started, self.rate) }
    }

    /// None beyond 65,535 versions, which nobody releases.
    fn index(&mut self, version: &str) -> Option<u16> {
        if let Some(index) = self.indices.get(version) {
            return Some(*index);
        }
        let index = u16::try_from(self.versions.len()).ok()?;
        self.versions.push(version.to_owned());
        self.indices.insert(version.to_owned(), index);
        Some(index)
    }
}
