//! Times of a simulation, which count from the first release.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aviary_sim::clock::Clock;
use jiff::Timestamp;

/// The cluster's clock and the moment of the first release.
#[derive(Clone)]
pub(crate) struct Time {
    clock: Clock,
    release: Arc<OnceLock<Timestamp>>,
}

impl Time {
    pub(crate) fn new(clock: Clock) -> Time {
        Time { clock, release: Arc::default() }
    }

    /// The cluster's clock.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// The first release is now.
    pub(crate) fn start(&self) {
        // It begins once.
        let _ = self.release.set(self.clock.now());
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time since the first release; `None` before it.
    pub(crate) fn since_release(&self) -> Option<Duration> {
        let release = self.release.get()?;
        Some(self.clock.now().duration_since(*release).unsigned_abs())
    }

    /// Seconds from the first release to a time; negative before it. The start of the cluster counts as the release while
    /// there was none.
    pub(crate) fn seconds(&self, at: Timestamp, start: Timestamp) -> f64 {
        let release = self.release.get().copied().unwrap_or(start);
        at.duration_since(release).as_secs_f64()
    }
}
