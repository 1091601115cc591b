//! What came of it, for people and for programs.

use std::fmt;

use serde::Serialize;

/// All worlds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Seed of the first world.
    pub first_seed: u64,
    /// Worlds that were played, with trouble.
    pub worlds: u64,
    /// Releases that ended, in these worlds.
    pub rollouts: u64,
    /// Requests that were refused, delayed or lost their answer.
    pub faults: u64,
    /// Controllers that were killed.
    pub deaths: u64,
    /// Releases that ended otherwise than they should have, because the metrics lied.
    pub misjudged: u64,
    /// Real time that it took.
    pub seconds: f64,
    /// Worlds that went wrong: at most one for each thread.
    pub failures: Vec<Failure>,
}

/// A world that went wrong.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What was wrong, and the story of it.
    pub problems: Vec<String>,
}

impl Failure {
    /// The command that plays this world again.
    #[must_use]
    pub fn replay(&self) -> String {
        format!(
            "RUST_LOG=info cargo run --profile loadtest -p aviary-loadtest -- chaos --rollouts 1 --threads 1 --seed {}",
            self.seed
        )
    }
}

impl fmt::Display for Report {
    #[allow(clippy::cast_precision_loss)]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { first_seed, worlds, rollouts, faults, deaths, misjudged, seconds, failures } = self;
        for failure in failures {
            writeln!(formatter, "seed {} failed:", failure.seed)?;
            for problem in &failure.problems {
                writeln!(formatter, "{problem}")?;
            }
            writeln!(formatter, "Replay it with\n  {}", failure.replay())?;
        }
        let rate = *rollouts as f64 / seconds.max(f64::EPSILON);
        writeln!(
            formatter,
            "{rollouts} rollouts in {worlds} worlds from seed {first_seed} on: {faults} requests hit, {deaths} controllers \
             killed, {misjudged} releases misjudged by lying metrics, {} worlds failed; {seconds:.0} s, {rate:.0} rollouts/s",
            failures.len()
        )
    }
}
