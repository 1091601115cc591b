//! Circuit breakers, one for each backend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the circuit. One or two are a hiccup; five are an outage.
const FAILURES: u32 = 5;
/// How long an open circuit answers by itself before one request is let through again. Half the shortest analysis
/// interval, so that no canary waits a round longer than it must.
const OPEN_FOR: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Circuit {
    failures: u32,
    last_error: String,
    open_until: Option<Instant>,
}

/// Remembers which backends do not answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker(Arc<Mutex<HashMap<String, Circuit>>>);

impl Breaker {
    /// The last error of a backend whose circuit is open. One caller is let through when its time is up.
    pub(super) fn is_open(&self, backend: &str) -> Option<String> {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let circuit = circuits.get_mut(backend)?;
        let until = circuit.open_until?;
        if Instant::now() < until {
            return Some(circuit.last_error.clone());
        }
        circuit.open_until = Some(Instant::now() + OPEN_FOR);
        None
    }

    /// Records how a request went.
    pub(super) fn record(&self, backend: &str, error: Option<String>) {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error else {
            circuits.remove(backend);
            return;
        };
        let circuit = circuits.entry(backend.to_owned()).or_insert_with(|| Circuit {
            failures: 0,
            last_error: String::new(),
            open_until: None,
        });
        circuit.failures += 1;
        circuit.last_error = error;
        if circuit.failures >= FAILURES {
            circuit.open_until = Some(Instant::now() + OPEN_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_lets_one_through_again() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert_eq!(breaker.is_open("a"), None);
            breaker.record("a", Some("refused".into()));
        }
        assert_eq!(breaker.is_open("a").as_deref(), Some("refused"));
        assert_eq!(breaker.is_open("b"), None, "another backend is not concerned");
        tokio::time::advance(OPEN_FOR).await;
        assert_eq!(breaker.is_open("a"), None);
        assert!(breaker.is_open("a").is_some(), "only one is let through");
        breaker.record("a", None);
        assert_eq!(breaker.is_open("a"), None);
    }
}
