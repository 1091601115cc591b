//! What came of the releases.

use std::io;
use std::time::Duration;

use aviary_crds::Phase;
use aviary_crds::duration::format_go_duration;
use aviary_crds::names::PRIMARY_SUFFIX;
use aviary_sim::traffic::{TrafficReport, WorkloadTotals};

use super::screen::Screen;

/// One release.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The version that was released.
    pub version: String,
    /// `status.phase` at the end.
    pub phase: Phase,
    /// The message of the `Promoted` condition at the end.
    pub message: String,
    /// From the change of the image to the verdict, on the cluster's clock.
    pub cluster_time: Duration,
    /// The same on the wall.
    pub real_time: Duration,
    /// What the users sent meanwhile.
    pub requests: Requests,
    /// Writes of the operator to the API, without events.
    pub writes: u64,
    /// Writes of events.
    pub event_writes: u64,
    /// Reads of the operator; watches are none.
    pub reads: u64,
}

/// Requests of users during a release, by the workload that answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Requests {
    /// The new version.
    pub canary: WorkloadTotals,
    /// The version before, and once it is promoted the new one.
    pub primary: WorkloadTotals,
    /// Everything, that which nobody answered included.
    pub all: WorkloadTotals,
}

impl Requests {
    pub(super) fn between(before: &TrafficReport, after: &TrafficReport, target: &str) -> Requests {
        let minus = |after: WorkloadTotals, before: WorkloadTotals| WorkloadTotals {
            requests: after.requests - before.requests,
            failures: after.failures - before.failures,
        };
        let of = |workload: &str| minus(after.workload(workload), before.workload(workload));
        let all = |report: &TrafficReport| WorkloadTotals { requests: report.requests(), failures: report.failures() };
        Requests {
            canary: of(target),
            primary: of(&format!("{target}{PRIMARY_SUFFIX}")),
            all: minus(all(after), all(before)),
        }
    }
}

/// What came of the demo.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The good release, then the bad one.
    pub releases: Vec<Release>,
}

impl Report {
    /// Whether the good release was promoted and the bad one rolled back.
    pub fn is_as_expected(&self) -> bool {
        let phases: Vec<Phase> = self.releases.iter().map(|release| release.phase).collect();
        phases == [Phase::Succeeded, Phase::Failed]
    }

    pub(super) fn print(&self, screen: &mut Screen) -> io::Result<()> {
        let title = format!(
            "{:<9}{:<11}{:>13}{:>11}{:>19}{:>19}{:>19}{:>20}",
            "VERSION", "PHASE", "CLUSTER TIME", "REAL TIME", "CANARY FAILED/ALL", "PRIMARY FAILED/ALL", "USERS FAILED/ALL", "API WRITES/EVENTS/READS"
        );
        let title = screen.title(&title);
        screen.line(&title)?;
        for release in &self.releases {
            let phase = screen.verdict(&format!("{:<11}", release.phase.to_string()), release.phase == Phase::Succeeded);
            let calls = format!("{}/{}/{}", release.writes, release.event_writes, release.reads);
            screen.line(&format!(
                "{:<9}{phase}{:>13}{:>11}{:>19}{:>19}{:>19}{calls:>20}",
                release.version,
                format_go_duration(Duration::from_secs(release.cluster_time.as_secs())),
                format!("{:.1}s", release.real_time.as_secs_f64()),
                failed_of_all(release.requests.canary),
                failed_of_all(release.requests.primary),
                failed_of_all(release.requests.all),
            ))?;
        }
        screen.line("")?;
        for release in &self.releases {
            screen.line(&format!("{}  {}", release.version, release.message))?;
        }
        Ok(())
    }
}

fn failed_of_all(totals: WorkloadTotals) -> String {
    format!("{:.0}/{:.0}", totals.failures, totals.requests)
}
