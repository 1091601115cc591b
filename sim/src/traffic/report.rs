//! What users saw.

use std::collections::BTreeMap;

/// What the users of a host saw since its first request. Copies of requests (mirroring) are not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficReport {
    /// By the name of the workload that answered. Requests that nothing answered are under `unknown`, as in Istio.
    pub workloads: BTreeMap<String, WorkloadTotals>,
    /// How often a change of the cluster left some requests without a ready pod or without a route, however short that
    /// was: on virtual time a gap between two changes can last no time at all and lose no request, and is a defect still.
    pub interruptions: u64,
}

/// Requests that one workload answered. Fractions are kept: an outage shorter than the gap between two requests is
/// nonetheless seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkloadTotals {
    /// All requests.
    pub requests: f64,
    /// Those that a user saw fail: status 500 and above, and those without any answer of the application.
    pub failures: f64,
}

impl TrafficReport {
    /// Requests to all workloads.
    #[must_use]
    pub fn requests(&self) -> f64 {
        self.workloads.values().map(|totals| totals.requests).sum()
    }

    /// Failed requests to all workloads.
    #[must_use]
    pub fn failures(&self) -> f64 {
        self.workloads.values().map(|totals| totals.failures).sum()
    }

    /// The totals of one workload; zero if it got no request.
    #[must_use]
    pub fn workload(&self, name: &str) -> WorkloadTotals {
        self.workloads.get(name).copied().unwrap_or_default()
    }
}
