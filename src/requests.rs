//! Requests of users during a release.

use aviary_sim::traffic::{TrafficReport, WorkloadTotals};

/// Requests of users to one service, by the workload that answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Requests {
    /// The new version.
    pub canary: WorkloadTotals,
    /// The version before, and once it is promoted the new one.
    pub primary: WorkloadTotals,
    /// Nobody: there was no ready pod, or no route.
    pub unanswered: WorkloadTotals,
    /// Everything, that which nobody answered included.
    pub all: WorkloadTotals,
}

impl Requests {
    /// What came between two reports about the service of a target.
    pub(crate) fn between(before: &TrafficReport, after: &TrafficReport, target: &str, primary: &str) -> Requests {
        let minus = |after: WorkloadTotals, before: WorkloadTotals| WorkloadTotals {
            requests: after.requests - before.requests,
            failures: after.failures - before.failures,
        };
        let of = |workload: &str| minus(after.workload(workload), before.workload(workload));
        let all = |report: &TrafficReport| WorkloadTotals { requests: report.requests(), failures: report.failures() };
        Requests {
            canary: of(target),
            primary: of(primary),
            unanswered: of("unknown"),
            all: minus(all(after), all(before)),
        }
    }

    /// What other workloads answered.
    pub(crate) fn others(&self) -> WorkloadTotals {
        let rest = |of: fn(&WorkloadTotals) -> f64| {
            of(&self.all) - of(&self.primary) - of(&self.canary) - of(&self.unanswered)
        };
        WorkloadTotals { requests: rest(|totals| totals.requests), failures: rest(|totals| totals.failures) }
    }
}
