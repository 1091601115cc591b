//! Weighted canary: step by step to the canary, perhaps after an interval in which it gets copies of the requests.

use super::{Advance, News, Position};
use crate::snapshot::Split;

/// A weighted canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// The steps.
    pub weights: Weights,
    /// Whether the canary first gets copies of the requests, for one interval.
    pub mirror: bool,
}

impl Weighted {
    pub(super) fn next(&self, at: Position) -> Option<Advance> {
        if self.mirror && !at.has_begun() {
            return Some(Advance { to: Position { weight: 0, iterations: 1 }, news: News::Weight(0) });
        }
        // The copies are counted, so that they come once whatever the routes say (Flagger can be stuck with them).
        let weight = self.weights.next(at.weight)?;
        Some(Advance { to: Position { weight, iterations: 0 }, news: News::Weight(weight) })
    }

    pub(super) fn split(&self, at: Position) -> Split {
        let mirrored = self.mirror && at.iterations > 0 && at.weight == 0;
        Split { mirrored, ..Split::to_canary(at.weight) }
    }

    /// Before each increase, and once more before the promotion. The first weight after the copies was confirmed with
    /// them, as in Flagger.
    pub(super) fn asks_before_increase(&self, at: Position) -> bool {
        !self.split(at).mirrored
    }

    pub(super) fn asks_before_promotion(&self, at: Position) -> bool {
        self.next(at).is_none()
    }
}

/// The steps of a weighted canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// `stepWeight` up to `maxWeight`.
    Linear {
        /// Added at each step, 1–100.
        step: u32,
        /// No step is made from this weight on, 1–100. The last step may overshoot it: step 20 with maximum 50 gives
        /// 20, 40, 60 (documented behaviour of Flagger).
        max: u32,
    },
    /// `stepWeights`: increasing, the last one ends the analysis. Weights above 100 count as 100.
    List(Vec<u32>),
}

impl Weights {
    /// The weight that follows `weight`, or `None` when the promotion point is reached.
    ///
    /// A weight that is not in the list continues with the next greater entry; Flagger jumps to 100 % there (Q17).
    pub fn next(&self, weight: u32) -> Option<u32> {
        match self {
            Weights::Linear { step, max } => {
                let step = (*step).max(1);
                (weight < *max).then(|| weight.saturating_add(step).min(100))
            }
            Weights::List(list) => list.iter().map(|entry| (*entry).min(100)).find(|entry| *entry > weight),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Advance, News, Position, Weighted, Weights};
    use crate::snapshot::Split;

    fn walk(weights: &Weights) -> Vec<u32> {
        let mut weight = 0;
        let mut seen = Vec::new();
        while let Some(next) = weights.next(weight) {
            weight = next;
            seen.push(weight);
        }
        seen
    }

    #[test]
    fn linear_steps_may_overshoot_the_maximum() {
        assert_eq!(walk(&Weights::Linear { step: 10, max: 50 }), [10, 20, 30, 40, 50]);
        assert_eq!(walk(&Weights::Linear { step: 20, max: 50 }), [20, 40, 60]);
        assert_eq!(walk(&Weights::Linear { step: 50, max: 100 }), [50, 100]);
        assert_eq!(walk(&Weights::Linear { step: 30, max: 100 }), [30, 60, 90, 100]);
    }

    #[test]
    fn list_steps_as_in_flagger() {
        assert_eq!(walk(&Weights::List(vec![1, 2, 10, 80])), [1, 2, 10, 80]);
        assert_eq!(walk(&Weights::List(vec![1, 2, 10, 200])), [1, 2, 10, 100]);
    }

    #[test]
    fn q17_a_weight_outside_the_list_goes_on_with_the_next_greater_entry() {
        assert_eq!(Weights::List(vec![5, 20, 50]).next(10), Some(20));
        assert_eq!(Weights::List(vec![5, 20]).next(30), None);
    }

    #[test]
    fn copies_come_once_and_before_the_first_weight() {
        for weights in [Weights::Linear { step: 50, max: 100 }, Weights::List(vec![50, 100])] {
            let strategy = Weighted { weights, mirror: true };
            let mut at = Position::default();
            let mut seen = Vec::new();
            while let Some(Advance { to, news }) = strategy.next(at) {
                seen.push((strategy.split(to), news, strategy.asks_before_increase(at)));
                at = to;
            }
            let mirrored = Split { mirrored: true, ..Split::PRIMARY };
            let expected = [
                (mirrored, News::Weight(0), true),
                (Split::to_canary(50), News::Weight(50), false),
                (Split::CANARY, News::Weight(100), true),
            ];
            assert_eq!(seen, expected);
            assert!(strategy.asks_before_promotion(at));
        }
    }
}
