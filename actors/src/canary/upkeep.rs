//! How often repairs may be made.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

/// Repairs within [`WINDOW`] before they rest. A person who tidies up by hand undoes one or two; a controller that owns
/// the same field undoes every one, at the speed of watches.
const BURST: usize = 5;
/// See [`BURST`].
const WINDOW: Duration = Duration::from_secs(60);
/// Repairs rest at least this long: rare enough to be harmless, often enough to be put right soon.
pub(super) const SHORTEST_REST: Duration = Duration::from_secs(60);

/// Repairs made lately, and until when none are made.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    recent: VecDeque<Timestamp>,
    rests_until: Option<Timestamp>,
}

impl Upkeep {
    /// Counts a repair; `false` when there were too many lately.
    pub(super) fn may_repair(&mut self, now: Timestamp) -> bool {
        self.recent.retain(|at| now.duration_since(*at).unsigned_abs() < WINDOW);
        if self.recent.len() >= BURST {
            self.recent.clear();
            return false;
        }
        self.recent.push_back(now);
        true
    }

    /// The repair that was counted last was not made: somebody else wrote the object meanwhile.
    pub(super) fn was_not_made(&mut self) {
        self.recent.pop_back();
    }

    /// No repairs until then.
    pub(super) fn rest_until(&mut self, at: Timestamp) {
        self.rests_until = Some(at);
    }

    /// The clock was set back.
    pub(super) fn not_after(&mut self, now: Timestamp, longest_rest: Duration) {
        self.recent.retain(|at| *at <= now);
        let latest = now.checked_add(longest_rest.max(SHORTEST_REST)).unwrap_or(Timestamp::MAX);
        self.rests_until = self.rests_until.map(|until| until.min(latest));
    }

    /// Whether repairs rest.
    pub(super) fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until(now).is_some()
    }

    /// When the rest ends, if it has not.
    pub(super) fn paused_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.rests_until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_begins_a_rest_anew() {
        let (mut upkeep, now) = (Upkeep::default(), Timestamp::UNIX_EPOCH);
        let later = |wait: Duration| now.checked_add(wait).unwrap_or(Timestamp::MAX);
        upkeep.rest_until(later(Duration::from_secs(3600)));
        upkeep.not_after(now, Duration::from_secs(72));
        assert_eq!(upkeep.paused_until(now), Some(later(Duration::from_secs(72))));
        upkeep.not_after(now, Duration::from_secs(90));
        assert_eq!(upkeep.paused_until(now), Some(later(Duration::from_secs(72))), "no longer than it was");
    }

    #[test]
    fn repairs_that_were_not_made_do_not_count() {
        let mut upkeep = Upkeep::default();
        let now = Timestamp::UNIX_EPOCH;
        for _ in 0..3 * BURST {
            assert!(upkeep.may_repair(now));
            upkeep.was_not_made();
        }
        for _ in 0..BURST {
            assert!(upkeep.may_repair(now));
        }
        assert!(!upkeep.may_repair(now));
    }
}
