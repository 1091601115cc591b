//! When a dead actor gets its next life.

use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Retry;

/// First delay after a panic.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Delays double up to this. A canary that dies each time is looked at every five minutes: rare enough to cost nothing,
/// often enough that a repaired object is picked up without anybody's help.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// A life as long as this counts as healthy and resets the history.
const QUIET_PERIOD: Duration = Duration::from_secs(600);
/// From this many deaths in a row on, the actor is quarantined: five doublings, half a minute of trying.
const QUARANTINE_AFTER: u32 = 5;

/// Restart history of one actor, and the rule that follows from it.
#[derive(Debug)]
pub struct RestartPolicy {
    retry: Retry,
    deaths: u32,
    last_death: Option<Instant>,
}

impl RestartPolicy {
    /// Of an actor that has not died yet; `who` it is decides the jitter of its delays.
    pub fn new(who: &impl Hash) -> RestartPolicy {
        RestartPolicy { retry: Retry::new(FIRST_DELAY, LONGEST_DELAY, who), deaths: 0, last_death: None }
    }

    /// Records a death and says how long to wait. From the fifth death in a row on, the wait is the longest one at once.
    pub fn next_delay(&mut self) -> Duration {
        let now = Instant::now();
        if self.last_death.is_some_and(|last| now.duration_since(last) >= QUIET_PERIOD) {
            self.deaths = 0;
            self.retry.reset();
        }
        self.last_death = Some(now);
        self.deaths += 1;
        if self.is_quarantined() { LONGEST_DELAY } else { self.retry.next_delay() }
    }

    /// Deaths in a row.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// Whether the actor keeps dying.
    pub fn is_quarantined(&self) -> bool {
        self.deaths >= QUARANTINE_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_grow_then_quarantine_then_a_quiet_period_forgives() {
        let mut policy = RestartPolicy::new(&"podinfo");
        let delays: Vec<_> = (0..4).map(|_| policy.next_delay().as_secs_f64()).collect();
        for (delay, nominal) in delays.iter().zip([1.0, 2.0, 4.0, 8.0]) {
            assert!((nominal * 0.79..=nominal * 1.21).contains(delay), "{delay} is not about {nominal}");
        }
        assert!(!policy.is_quarantined());
        assert_eq!(policy.next_delay(), LONGEST_DELAY);
        assert!(policy.is_quarantined());
        tokio::time::advance(QUIET_PERIOD).await;
        assert!(policy.next_delay() < Duration::from_secs(2));
        assert!(!policy.is_quarantined());
    }
}
