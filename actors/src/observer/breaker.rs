//! Circuit breakers: one for each backend and each source of queries. Where a whole backend is away, each source finds out by
//! itself: that costs no more than its queries do when the backend is there, and nobody is told another's failures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::checks::QuerySource;

/// Failures in a row that open the circuit. One or two are a hiccup; five are an outage.
const FAILURES: u32 = 5;
/// How long an open circuit answers by itself before one request is let through again. Half the shortest analysis
/// interval, so that no canary waits a round longer than it must.
const OPEN_FOR: Duration = Duration::from_secs(5);

/// Circuits that are remembered before those are forgotten that have been quiet for longest; addresses are chosen by
/// tenants. Three for each namespace of a large cluster, some megabytes.
const CIRCUITS: usize = 10_000;

/// Queries that fail together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CircuitKey {
    /// Of the backend.
    pub(super) origin: String,
    /// Whether the source has chosen the backend; its credentials may be other ones than the controller's.
    pub(super) is_chosen: bool,
    /// Who asks.
    pub(super) source: QuerySource,
}

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
    /// The last error of a request that is not worth sending: the circuits of all who want it are open. One caller is let
    /// through when the time of a circuit is up.
    pub(super) fn refusal(&self, concerned: &[CircuitKey]) -> Option<String> {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reason = None;
        for key in concerned {
            reason = Some(circuits.get_mut(key)?.refusal()?);
        }
        reason
    }

    /// Records how a request went that all of these wanted.
    pub(super) fn record(&self, concerned: Vec<CircuitKey>, error: Option<&str>) {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in concerned {
            match error {
                None => drop(circuits.remove(&key)),
                Some(error) => record_failure(&mut circuits, key, error),
            }
        }
    }
}

impl Circuit {
    fn refusal(&mut self) -> Option<String> {
        let now = Instant::now();
        if now < self.open_until? {
            return Some(self.last_error.clone());
        }
        self.open_until = Some(now + OPEN_FOR);
        None
    }
}

fn record_failure(circuits: &mut HashMap<CircuitKey, Circuit>, key: CircuitKey, error: &str) {
    let now = Instant::now();
    if circuits.len() >= CIRCUITS
        && !circuits.contains_key(&key)
        && let Some(oldest) = circuits.iter().min_by_key(|(_, circuit)| circuit.last_failure)
    {
        let oldest = oldest.0.clone();
        circuits.remove(&oldest);
    }
    let circuit = circuits.entry(key).or_insert_with(|| Circuit {
        last_failure: now,
        failures: 0,
        last_error: String::new(),
        open_until: None,
    });
    circuit.last_failure = now;
    circuit.failures += 1;
    error.clone_into(&mut circuit.last_error);
    if circuit.failures >= FAILURES {
        circuit.open_until = Some(now + OPEN_FOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::QueryAuthor;

    fn key(origin: &str, namespace: &str, author: QueryAuthor) -> CircuitKey {
        let source = QuerySource { namespace: namespace.to_owned(), author };
        CircuitKey { origin: origin.to_owned(), is_chosen: false, source }
    }

    fn open(breaker: &Breaker, key: &CircuitKey) {
        for _ in 0..FAILURES {
            assert_eq!(breaker.refusal(std::slice::from_ref(key)), None);
            breaker.record(vec![key.clone()], Some("refused"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_lets_one_through_again() {
        let breaker = Breaker::default();
        let a = [key("a", "test", QueryAuthor::Controller)];
        open(&breaker, &a[0]);
        assert_eq!(breaker.refusal(&a).as_deref(), Some("refused"));
        for other in [
            key("b", "test", QueryAuthor::Controller),
            key("a", "other", QueryAuthor::Controller),
            key("a", "test", QueryAuthor::Canary),
            CircuitKey { is_chosen: true, ..a[0].clone() },
        ] {
            assert_eq!(breaker.refusal(&[other]), None);
        }
        tokio::time::advance(OPEN_FOR).await;
        assert_eq!(breaker.refusal(&a), None);
        assert!(breaker.refusal(&a).is_some(), "only one is let through");
        breaker.record(a.to_vec(), None);
        assert_eq!(breaker.refusal(&a), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_several_want_is_asked_as_long_as_one_of_them_may() {
        let breaker = Breaker::default();
        let both = ["a", "b"].map(|namespace| key("prometheus", namespace, QueryAuthor::Controller));
        open(&breaker, &both[0]);
        assert_eq!(breaker.refusal(&both), None);
        open(&breaker, &both[1]);
        assert!(breaker.refusal(&both).is_some());
        breaker.record(both.to_vec(), None);
        assert_eq!(breaker.refusal(&both[..1]), None, "the answer was for both");
    }
}
