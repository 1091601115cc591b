//! Growing delays between tries.
//!
//! The one place that knows the `backoff` crate (unmaintained, RUSTSEC-2025-0012; only its arithmetic is used).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Share by which a delay is varied, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// The longest delay of a [`Retry`] with this `longest`, jitter included.
pub(crate) fn longest(longest: Duration) -> Duration {
    longest.mul_f64(1.0 + JITTER)
}

/// Delays that double from a first to a longest one, with jitter of ±20 %.
///
/// The jitter follows from who waits and how often it has waited, not from chance: a run on the embedded cluster can be
/// repeated.
#[derive(Debug)]
pub(crate) struct Retry {
    delays: ExponentialBackoff,
    who: u64,
    count: u64,
}

impl Retry {
    /// Delays from `first` to `longest`; `who` waits.
    pub(crate) fn new(first: Duration, longest: Duration, who: &impl Hash) -> Retry {
        let delays = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            max_interval: longest,
            multiplier: 2.0,
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Retry { delays, who: hash(who), count: 0 }
    }

    /// The next delay.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.delays.next_backoff().unwrap_or(self.delays.max_interval);
        self.count += 1;
        // 0 to 1, in thousandths.
        let share = (hash(&(self.who, self.count)) % 1001) as f64 / 1000.0;
        delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * share)
    }

    /// Starts over with the first delay.
    pub(crate) fn reset(&mut self) {
        self.delays.reset();
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_differ_between_those_who_wait_and_not_between_runs() {
        let delays = |who: &str| {
            let mut retry = Retry::new(Duration::from_secs(1), Duration::from_secs(8), &who);
            (0..6).map(|_| retry.next_delay().as_secs_f64()).collect::<Vec<_>>()
        };
        assert_eq!(delays("a"), delays("a"));
        assert_ne!(delays("a"), delays("b"));
        for (delay, nominal) in delays("a").iter().zip([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]) {
            assert!((nominal * 0.8..=nominal * 1.2).contains(delay), "{delay} is not about {nominal}");
        }
    }
}
