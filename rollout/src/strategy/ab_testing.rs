//! A/B testing: those who meet the conditions get the canary, everybody else the primary, for some iterations.
//!
//! The weights are those of the requests that meet the conditions; the status says 100 (Flagger's says 0, Q21).

use super::{Advance, News, Position};
use crate::snapshot::Split;

/// An A/B test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbTesting {
    /// How many iterations, at least 1.
    pub iterations: u32,
}

impl AbTesting {
    pub(super) fn next(&self, at: Position) -> Option<Advance> {
        // A failed promotion is being mended: the canary was tested before, one good round is enough.
        let mends = at == Position { weight: 100, iterations: 0 };
        // Iterations of a run that was another one before do not count: those who meet the conditions had no part in them.
        let done = if at.weight >= 100 { at.iterations } else { 0 };
        // Also where the number was lowered below what is done (Flagger would wait for ever, Q20).
        if mends || done >= self.iterations {
            return None;
        }
        let number = done + 1;
        Some(Advance {
            to: Position { weight: 100, iterations: number },
            news: News::Iteration { number, of: self.iterations },
        })
    }

    #[allow(clippy::unused_self, reason = "the same functions for each strategy")]
    pub(super) fn split(&self, at: Position) -> Split {
        Split::to_canary(at.weight)
    }

    /// The traffic is not increased.
    #[allow(clippy::unused_self, reason = "the same functions for each strategy")]
    pub(super) fn asks_before_increase(&self, _: Position) -> bool {
        false
    }

    pub(super) fn asks_before_promotion(&self, at: Position) -> bool {
        self.next(at).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_are_counted_and_then_it_is_promoted() {
        let strategy = AbTesting { iterations: 2 };
        let mut at = Position::default();
        let mut seen = Vec::new();
        while let Some(Advance { to, news }) = strategy.next(at) {
            assert!(!strategy.asks_before_promotion(at) && !strategy.asks_before_increase(at));
            seen.push((to.weight, news));
            at = to;
        }
        assert_eq!(seen, [1, 2].map(|number| (100, News::Iteration { number, of: 2 })));
        assert!(strategy.asks_before_promotion(at));
    }

    #[test]
    fn a_run_that_was_blue_green_begins_anew() {
        let at = Position { weight: 0, iterations: 1 };
        let first = Advance { to: Position { weight: 100, iterations: 1 }, news: News::Iteration { number: 1, of: 1 } };
        assert_eq!(AbTesting { iterations: 1 }.next(at), Some(first));
    }

    #[test]
    fn q20_fewer_iterations_than_are_done_end_the_test() {
        let at = Position { weight: 100, iterations: 7 };
        assert_eq!(AbTesting { iterations: 5 }.next(at), None);
    }
}
