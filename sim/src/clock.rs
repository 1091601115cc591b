//! Time of the embedded cluster.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// A base timestamp plus tokio's clock, so that timestamps follow `tokio::time::pause` and `advance`.
///
/// It may run faster or slower than tokio's. Whatever waits for a moment of the cluster waits through this clock;
/// whatever a client's patience depends on (lifetimes of watches, bookmarks, timeouts) does not.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Timestamp,
    started: Instant,
    speed: f64,
}

impl Clock {
    /// A clock that shows `base` at this moment.
    #[must_use]
    pub fn new(base: Timestamp) -> Self {
        Self::with_speed(base, 1.0)
    }

    /// A clock that shows `base` at this moment and runs `speed` times as fast as tokio's. A speed that is no positive
    /// number counts as 1.
    #[must_use]
    pub fn with_speed(base: Timestamp, speed: f64) -> Self {
        let speed = if speed.is_finite() && speed > 0.0 { speed } else { 1.0 };
        Self { base, started: Instant::now(), speed }
    }

    /// The cluster's present time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        // A clock past the year 9999 stays there; no simulation runs that long.
        self.base.checked_add(scale(self.started.elapsed(), self.speed)).unwrap_or(Timestamp::MAX)
    }

    /// How many times faster than tokio's clock this one runs.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Waits while this much time passes in the cluster.
    pub async fn sleep(&self, cluster_time: Duration) {
        tokio::time::sleep(scale(cluster_time, self.speed.recip())).await;
    }

    /// Waits for a moment of the cluster. One that has passed is no wait.
    pub async fn sleep_until(&self, at: Timestamp) {
        let left = at.duration_since(self.now()).max(jiff::SignedDuration::ZERO);
        let left = scale(left.unsigned_abs(), self.speed.recip());
        tokio::time::sleep_until(Instant::now() + left).await;
    }
}

/// Exact at speed 1, so that virtual time stays comparable to the nanosecond.
#[allow(clippy::float_cmp)]
fn scale(time: Duration, factor: f64) -> Duration {
    if factor == 1.0 {
        return time;
    }
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(LONGEST_WAIT)
}

/// What a product too large to be a time stands for: a thousand years, which can still be added to an instant.
const LONGEST_WAIT: Duration = Duration::from_secs(1_000 * 365 * 86_400);

/// The form of `metav1.Time`: RFC 3339 in UTC with whole seconds.
#[must_use]
pub fn format_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const BASE: &str = "2026-01-01T00:00:00Z";

    #[tokio::test(start_paused = true)]
    async fn a_fast_clock_runs_ahead_and_its_waits_are_short() {
        let clock = Clock::with_speed(BASE.parse().unwrap(), 60.0);
        let start = Instant::now();
        clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(clock.now().to_string(), "2026-01-01T00:01:00Z");
        clock.sleep_until("2026-01-01T01:00:00Z".parse().unwrap()).await;
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        assert_eq!(clock.now().to_string(), "2026-01-01T01:00:00Z");
        clock.sleep_until(BASE.parse().unwrap()).await;
        assert_eq!(start.elapsed(), Duration::from_secs(60), "a moment that has passed is no wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_speed_that_is_none_counts_as_one() {
        for speed in [1.0, 0.0, -2.0, f64::NAN, f64::INFINITY] {
            let clock = Clock::with_speed(BASE.parse().unwrap(), speed);
            tokio::time::advance(Duration::from_nanos(1_000_000_001)).await;
            assert_eq!(clock.now().to_string(), "2026-01-01T00:00:01.000000001Z", "{speed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_clock_can_wait_for_the_end_of_time() {
        let clock = Clock::with_speed(BASE.parse().unwrap(), 1e-300);
        let waited = tokio::time::timeout(Duration::from_secs(5), clock.sleep_until(Timestamp::MAX)).await;
        assert!(waited.is_err(), "it waits, and does not panic");
    }
}
