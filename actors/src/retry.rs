//! Growing delays between tries.
//!
//! The one place that knows the `backoff` crate (unmaintained, RUSTSEC-2025-0012; only its arithmetic is used).

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Share by which a delay is varied, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// Delays that double from a first to a longest one, with jitter of ±20 %.
#[derive(Debug)]
pub struct Retry(ExponentialBackoff);

impl Retry {
    /// Delays from `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Retry {
        Retry(ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            max_interval: longest,
            multiplier: 2.0,
            randomization_factor: JITTER,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Starts over with the first delay.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}
