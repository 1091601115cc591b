//! Circuit breakers, one for each backend and, where tenants choose the backend, for each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the circuit. One or two are a hiccup; five are an outage.
const FAILURES: u32 = 5;
/// How long an open circuit answers by itself before one request is let through again. Half the shortest analysis
/// interval, so that no canary waits a round longer than it must.
const OPEN_FOR: Duration = Duration::from_secs(5);

/// Circuits that are remembered before those are forgotten that have been quiet for longest; addresses are chosen by
/// tenants. More backends than this are hardly down at once.
const CIRCUITS: usize = 1_000;

/// Origin of a backend, and the tenant whose failures count; `None` for all together.
pub(super) type CircuitKey = (String, Option<String>);

#[derive(Debug)]
struct Circuit {
    last_failure: Instant,
    failures: u32,
    last_error: String,
    open_until: Option<Instant>,
}

/// Remembers which backends do not answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker(Arc<Mutex<HashMap<CircuitKey, Circuit>>>);

impl Breaker {
    /// The last error of a backend whose circuit is open. One caller is let through when its time is up.
    pub(super) fn is_open(&self, backend: &CircuitKey) -> Option<String> {
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
    pub(super) fn record(&self, backend: CircuitKey, error: Option<String>) {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error else {
            circuits.remove(&backend);
            return;
        };
        let now = Instant::now();
        if circuits.len() >= CIRCUITS
            && !circuits.contains_key(&backend)
            && let Some(oldest) = circuits.iter().min_by_key(|(_, circuit)| circuit.last_failure)
        {
            let oldest = oldest.0.clone();
            circuits.remove(&oldest);
        }
        let circuit = circuits.entry(backend).or_insert_with(|| Circuit {
            last_failure: now,
            failures: 0,
            last_error: String::new(),
            open_until: None,
        });
        circuit.last_failure = now;
        circuit.failures += 1;
        circuit.last_error = error;
        if circuit.failures >= FAILURES {
            circuit.open_until = Some(now + OPEN_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_lets_one_through_again() {
        let breaker = Breaker::default();
        let key = |origin: &str, tenant: Option<&str>| (origin.to_owned(), tenant.map(str::to_owned));
        let (a, b) = (key("a", None), key("b", None));
        for _ in 0..FAILURES {
            assert_eq!(breaker.is_open(&a), None);
            breaker.record(a.clone(), Some("refused".into()));
        }
        assert_eq!(breaker.is_open(&a).as_deref(), Some("refused"));
        assert_eq!(breaker.is_open(&b), None, "another backend is not concerned");
        assert_eq!(breaker.is_open(&key("a", Some("x"))), None, "nor is a tenant who chose it");
        tokio::time::advance(OPEN_FOR).await;
        assert_eq!(breaker.is_open(&a), None);
        assert!(breaker.is_open(&a).is_some(), "only one is let through");
        breaker.record(a.clone(), None);
        assert_eq!(breaker.is_open(&a), None);
    }
}
