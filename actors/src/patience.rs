//! How long a workload may take to become ready, where its objects do not say since when it is not.
//!
//! Flagger measures from the last write of the canary's status, so that one unavailable pod of a canary that was idle for
//! longer than the deadline ends its next release at once (Q11). Here it is measured from when this process first saw the
//! workload unready at its present generation; a restart of the process prolongs the wait.

use std::time::Duration;

use aviary_rollout::{Readiness, Snapshot};
use jiff::{SignedDuration, Timestamp};

/// A wait for one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait {
    since: Timestamp,
    /// `metadata.generation`: another one is another attempt.
    generation: Option<i64>,
}

/// The waits for the two sides, as far as they are waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patience {
    target: Option<Wait>,
    primary: Option<Wait>,
}

/// `metadata.generation` of the two sides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Generations {
    /// The target's.
    pub(crate) target: Option<i64>,
    /// The primary's.
    pub(crate) primary: Option<i64>,
}

impl Patience {
    /// Gives every wait without an end the one that `deadline` after its beginning makes, and remembers when they began.
    pub(crate) fn limit(&mut self, seen: &mut Snapshot, generations: Generations, deadline: Duration) {
        let now = seen.now;
        let target = seen.target.as_mut().ok().map(|target| &mut target.readiness);
        self.target = limited(self.target, target, generations.target, now, deadline);
        let primary = seen.primary.as_mut().map(|primary| &mut primary.readiness);
        self.primary = limited(self.primary, primary, generations.primary, now, deadline);
    }

    /// The clock was set back.
    pub(crate) fn not_after(&mut self, now: Timestamp) {
        for wait in [&mut self.target, &mut self.primary].into_iter().flatten() {
            wait.since = wait.since.min(now);
        }
    }
}

fn limited(
    before: Option<Wait>,
    readiness: Option<&mut Readiness>,
    generation: Option<i64>,
    now: Timestamp,
    deadline: Duration,
) -> Option<Wait> {
    let readiness = readiness?;
    let Readiness::Waiting { reason, deadline: end @ None } = readiness else { return None };
    let wait = before.filter(|wait| wait.generation == generation).unwrap_or(Wait { since: now, generation });
    let span = SignedDuration::try_from(deadline).unwrap_or(SignedDuration::MAX);
    let at = wait.since.checked_add(span).unwrap_or(Timestamp::MAX);
    if now < at {
        *end = Some(at);
    } else {
        let reason = format!("{reason}, exceeded its progressDeadlineSeconds: {}", deadline.as_secs());
        *readiness = Readiness::Failed { reason };
    }
    Some(wait)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn look(before: &mut Option<Wait>, waits: bool, generation: i64, second: i64) -> Readiness {
        let mut readiness = match waits {
            true => Readiness::Waiting { reason: "1 of 2".into(), deadline: None },
            false => Readiness::Ready,
        };
        *before = limited(*before, Some(&mut readiness), Some(generation), at(second), DEADLINE);
        readiness
    }

    /// One pod that is away for a moment, long after the last write of the status.
    #[test]
    fn q11_a_wait_begins_when_a_workload_is_first_seen_unready() {
        let mut wait = None;
        let until = |second| Readiness::Waiting { reason: "1 of 2".into(), deadline: Some(at(second)) };
        assert_eq!(look(&mut wait, false, 1, 0), Readiness::Ready);
        assert_eq!(look(&mut wait, true, 1, 5000), until(5060));
        assert_eq!(look(&mut wait, true, 1, 5059), until(5060), "the same wait");
        assert_eq!(look(&mut wait, false, 1, 5059), Readiness::Ready);
        assert_eq!(look(&mut wait, true, 1, 5070), until(5130), "another one");
        assert_eq!(look(&mut wait, true, 2, 5129), until(5189), "another attempt");
        let reason = "1 of 2, exceeded its progressDeadlineSeconds: 60".to_owned();
        assert_eq!(look(&mut wait, true, 2, 5189), Readiness::Failed { reason });
    }

    #[test]
    fn a_clock_that_is_set_back_begins_a_wait_anew() {
        let wait = |second| Some(Wait { since: at(second), generation: Some(1) });
        let mut patience = Patience { target: wait(3600), primary: wait(-10) };
        patience.not_after(at(0));
        let until = |second| Readiness::Waiting { reason: "1 of 2".into(), deadline: Some(at(second)) };
        assert_eq!(look(&mut patience.target, true, 1, 0), until(60));
        assert_eq!(look(&mut patience.primary, true, 1, 0), until(50), "it lies behind");
    }

    #[test]
    fn a_deadline_of_the_workloads_own_counts() {
        let mut readiness = Readiness::Waiting { reason: String::new(), deadline: Some(at(1)) };
        assert_eq!(limited(None, Some(&mut readiness), None, at(0), DEADLINE), None);
        assert_eq!(readiness, Readiness::Waiting { reason: String::new(), deadline: Some(at(1)) });
        assert_eq!(limited(None, None, None, at(0), DEADLINE), None);
    }
}
