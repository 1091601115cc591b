//! What came of the releases.

use std::io;
use std::time::Duration;

use aviary_crds::Phase;
use aviary_crds::duration::format_go_duration;

use super::screen::Screen;
use crate::requests::Requests;

/// One release.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The version that was released.
    pub version: String,
    /// `status.phase` at the end.
    pub phase: Phase,
    /// The message of the `Promoted` condition at the end.
    pub message: String,
    /// Events of checks that failed, oldest first.
    pub halts: Vec<String>,
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

impl Release {
    /// How it ended, and what its events say about why it was rolled back.
    fn explanation(&self) -> String {
        let Some(last) = self.halts.last().filter(|_| self.phase == Phase::Failed) else { return self.message.clone() };
        let why = last.split_once(" advancement ").map_or(last.as_str(), |(_, why)| why);
        let checks = if self.halts.len() == 1 { "check" } else { "checks" };
        format!("{} {} {checks} failed, the last one because of {why}.", self.message, self.halts.len())
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

    /// What went otherwise than it should have, in one line.
    pub fn surprise(&self) -> Option<String> {
        let expected = [Phase::Succeeded, Phase::Failed];
        let (release, expected) =
            self.releases.iter().zip(expected).find(|(release, expected)| release.phase != *expected)?;
        let in_words = |phase| if phase == Phase::Succeeded { "promoted" } else { "rolled back" };
        let (expected, found) = (in_words(expected), in_words(release.phase));
        Some(format!("expected {} to be {expected}, but it was {found}", release.version))
    }

    pub(super) fn print(&self, screen: &mut Screen) -> io::Result<()> {
        let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
        let mut row = |name, cell: fn(&Release) -> String| rows.push((name, self.releases.iter().map(cell).collect()));
        row("cluster time", |release| format_go_duration(Duration::from_secs(release.cluster_time.as_secs())));
        row("real time", |release| format!("{:.1}s", release.real_time.as_secs_f64()));
        row("requests of users", |release| format!("{:.0}", release.requests.all.requests));
        row("  failed", |release| format!("{:.0}", release.requests.all.failures));
        row("requests to the canary", |release| format!("{:.0}", release.requests.canary.requests));
        row("  failed", |release| format!("{:.0}", release.requests.canary.failures));
        row("requests to the primary", |release| format!("{:.0}", release.requests.primary.requests));
        row("  failed", |release| format!("{:.0}", release.requests.primary.failures));
        row("API writes", |release| release.writes.to_string());
        row("API writes of events", |release| release.event_writes.to_string());
        row("API reads", |release| release.reads.to_string());

        let title: String = self.releases.iter().map(|release| cell(&format!("podinfo {}", release.version))).collect();
        let title = screen.title(&format!("{:NAME_WIDTH$}{title}", "release"));
        screen.line(&title)?;
        let phases = self
            .releases
            .iter()
            .map(|release| screen.verdict(&cell(&release.phase.to_string()), release.phase == Phase::Succeeded));
        let phases: String = phases.collect();
        screen.line(&format!("{:NAME_WIDTH$}{phases}", "status.phase"))?;
        for (name, cells) in rows {
            let cells: String = cells.iter().map(|text| cell(text)).collect();
            screen.line(&format!("{name:NAME_WIDTH$}{cells}"))?;
        }
        screen.line("")?;
        for release in &self.releases {
            screen.line(&format!("{}: {}", release.version, release.explanation()))?;
        }
        if let Some(surprise) = self.surprise() {
            let surprise = screen.verdict(&surprise, false);
            screen.line(&format!("\n{surprise}"))?;
        }
        Ok(())
    }
}

/// Columns of the names of rows.
const NAME_WIDTH: usize = 26;

fn cell(text: &str) -> String {
    format!("{text:>15}")
}
