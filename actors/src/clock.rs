//! The time of day, real or virtual.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// Tells the time of day. Timers are tokio's; a virtual clock moves with them.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    speed: f64,
}

impl Clock {
    /// The system's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    pub fn system() -> Clock {
        Clock::from_fn(Timestamp::now)
    }

    /// A clock that shows `base` at this moment and runs `speed` times as fast as tokio's.
    pub fn running(base: Timestamp, speed: f64) -> Clock {
        let origin = tokio::time::Instant::now();
        Clock::from_fn(move || base.checked_add(scaled(origin.elapsed(), speed)).unwrap_or(Timestamp::MAX))
            .at_speed(speed)
    }

    /// A clock of somebody else.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Clock {
        Clock { now: Arc::new(now), speed: 1.0 }
    }

    /// Says that the clock runs so many times as fast as tokio's.
    #[must_use]
    pub fn at_speed(self, speed: f64) -> Clock {
        Clock { speed, ..self }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// How long a timer takes until this much has passed on this clock.
    pub fn timer(&self, wait: Duration) -> Duration {
        scaled(wait, self.speed.recip())
    }
}

/// Exact where both clocks run alike.
#[allow(clippy::float_cmp)]
fn scaled(time: Duration, factor: f64) -> Duration {
    if factor == 1.0 {
        return time;
    }
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fast_clock_needs_short_timers() {
        let clock = Clock::running(Timestamp::UNIX_EPOCH, 60.0);
        assert_eq!(clock.timer(Duration::from_secs(60)), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now(), Timestamp::from_second(120).unwrap());
        assert_eq!(Clock::system().timer(Duration::MAX), Duration::MAX);
        assert_eq!(Clock::system().at_speed(1e-300).timer(Duration::from_secs(1)), Duration::MAX, "no overflow");
    }
}
