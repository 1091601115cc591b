//! Blue/green: some iterations in which no user sees the canary (or it gets copies of their requests), one more with
//! everybody on it, then the promotion.

use super::{Advance, News, Position};
use crate::snapshot::Split;

/// A blue/green run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlueGreen {
    /// How many iterations before everybody gets the canary, at least 1.
    pub iterations: u32,
    /// Whether the canary gets copies of the requests meanwhile.
    pub mirror: bool,
    /// Whether everybody gets the canary in the end. A provider that routes nothing cannot do that; it promotes after the
    /// last iteration.
    pub switches: bool,
}

impl BlueGreen {
    /// Whether the run has come to where everybody gets the canary. That counts as one iteration more, as in Flagger.
    pub(super) fn serves_everybody(&self, at: Position) -> bool {
        at.weight >= 100 && at.iterations == self.iterations.saturating_add(1)
    }

    pub(super) fn next(&self, at: Position) -> Option<Advance> {
        if at.weight >= 100 {
            return None;
        }
        if at.iterations < self.iterations {
            let number = at.iterations + 1;
            return Some(Advance {
                to: Position { iterations: number, ..at },
                news: News::Iteration { number, of: self.iterations },
            });
        }
        self.switches.then(|| Advance {
            to: Position { weight: 100, iterations: at.iterations.saturating_add(1) },
            news: News::AllToCanary { was_mirrored: self.split(at).mirrored },
        })
    }

    pub(super) fn split(&self, at: Position) -> Split {
        let mirrored = self.mirror && at.iterations > 0 && at.weight == 0;
        Split { mirrored, ..Split::to_canary(at.weight) }
    }

    /// The traffic is not increased step by step.
    #[allow(clippy::unused_self, reason = "the same functions for each strategy")]
    pub(super) fn asks_before_increase(&self, _: Position) -> bool {
        false
    }

    /// Before everybody gets the canary. Flagger asks once more afterwards, and a gate that has closed meanwhile leaves
    /// everybody on the canary (Q22).
    pub(super) fn asks_before_promotion(&self, at: Position) -> bool {
        let was_asked = at.weight >= 100 && at.iterations > self.iterations;
        !was_asked && (at.weight >= 100 || at.iterations >= self.iterations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(strategy: &BlueGreen) -> Vec<(Split, News, bool)> {
        let mut at = Position::default();
        let mut seen = Vec::new();
        while let Some(Advance { to, news }) = strategy.next(at) {
            seen.push((strategy.split(to), news, strategy.asks_before_promotion(at)));
            at = to;
        }
        seen
    }

    #[test]
    fn users_come_after_the_iterations_and_the_gate() {
        let strategy = BlueGreen { iterations: 2, mirror: false, switches: true };
        let expected = [
            (Split::PRIMARY, News::Iteration { number: 1, of: 2 }, false),
            (Split::PRIMARY, News::Iteration { number: 2, of: 2 }, false),
            (Split::CANARY, News::AllToCanary { was_mirrored: false }, true),
        ];
        assert_eq!(walk(&strategy), expected);
        // The gate was open; it is not asked again.
        assert!(!strategy.asks_before_promotion(Position { weight: 100, iterations: 3 }));
        // A canary that serves everybody after a failed promotion has not been asked for.
        assert!(strategy.asks_before_promotion(Position { weight: 100, iterations: 0 }));
    }

    #[test]
    fn copies_stop_when_users_come() {
        let mirrored = Split { mirrored: true, ..Split::PRIMARY };
        let seen = walk(&BlueGreen { iterations: 1, mirror: true, switches: true });
        assert_eq!(seen[0].0, mirrored);
        assert_eq!((seen[1].0, seen[1].1), (Split::CANARY, News::AllToCanary { was_mirrored: true }));
    }

    #[test]
    fn without_routes_the_last_iteration_is_followed_by_the_promotion() {
        let strategy = BlueGreen { iterations: 1, mirror: false, switches: false };
        assert_eq!(walk(&strategy).len(), 1);
        assert!(strategy.asks_before_promotion(Position { weight: 0, iterations: 1 }));
    }

    #[test]
    fn a_run_that_was_a_weighted_one_keeps_its_weight_until_everybody_comes() {
        let strategy = BlueGreen { iterations: 1, mirror: true, switches: true };
        let to = strategy.next(Position { weight: 30, iterations: 0 }).map(|advance| advance.to);
        assert_eq!(to, Some(Position { weight: 30, iterations: 1 }));
        assert_eq!(strategy.split(Position { weight: 30, iterations: 1 }), Split::to_canary(30));
    }
}
