//! How an analysis proceeds. One file per strategy, the same functions in each:
//!
//! - `next`: the step that follows a position, or `None` when the analysis at it was the last one;
//! - `split`: how requests are divided at a position;
//! - `asks_before_increase`, `asks_before_promotion`: which confirm gate must be open before a position is left.
//!
//! All of them are pure functions of the [`Position`], which `.status` stores. A run that was cut anywhere therefore goes
//! on from where it was.

mod ab_testing;
mod blue_green;
mod canary;

pub use ab_testing::AbTesting;
pub use blue_green::BlueGreen;
pub use canary::{Weighted, Weights};

use crate::snapshot::Split;

/// Where an analysis stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Weight of the canary, 0–100.
    pub weight: u32,
    /// Iterations done. A weighted canary that mirrors has 1 while it does.
    pub iterations: u32,
}

impl Position {
    /// Whether anything was done yet: before that come the pre-rollout hooks.
    pub fn has_begun(self) -> bool {
        self.weight > 0 || self.iterations > 0
    }
}

/// A step of an analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Where it leads.
    pub to: Position,
    /// What is told about it.
    pub news: News,
}

/// What is told about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The canary's weight.
    Weight(u32),
    /// One more of so many iterations.
    Iteration {
        /// Which one, from 1.
        number: u32,
        /// How many there are.
        of: u32,
    },
    /// Everybody gets the canary.
    AllToCanary {
        /// Whether it got copies of the requests until now.
        was_mirrored: bool,
    },
}

/// How an analysis proceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Step by step to the canary.
    Canary(Weighted),
    /// Those who meet the conditions get the canary, for some iterations.
    AbTesting(AbTesting),
    /// Some iterations without users, then everybody at once.
    BlueGreen(BlueGreen),
}

impl Strategy {
    /// A weighted canary that does not mirror.
    pub fn weighted(weights: Weights) -> Strategy {
        Strategy::Canary(Weighted { weights, mirror: false })
    }

    /// As the `deployment_strategy` label of the counters spells it.
    pub fn label(&self) -> &'static str {
        match self {
            Strategy::Canary(_) => "canary",
            Strategy::AbTesting(_) => "ab-testing",
            Strategy::BlueGreen(_) => "blue-green",
        }
    }

    /// The position as a run of this strategy understands it. An analysis whose strategy was changed on the way may have left
    /// one that none of its own has: in an A/B test 100 is the weight among those who meet the conditions, and no reason to
    /// send everybody there. Such a run begins anew.
    fn understood(&self, at: Position) -> Position {
        let foreign = at.weight > 0
            && at.iterations > 0
            && match self {
                Strategy::Canary(_) => true,
                Strategy::AbTesting(_) => at.weight < 100,
                Strategy::BlueGreen(blue_green) => at.weight >= 100 && !blue_green.serves_everybody(at),
            };
        if foreign { Position::default() } else { at }
    }

    /// The step that follows, or `None` when the analysis at this position was the last one.
    pub fn next(&self, at: Position) -> Option<Advance> {
        let at = self.understood(at);
        match self {
            Strategy::Canary(canary) => canary.next(at),
            Strategy::AbTesting(ab_testing) => ab_testing.next(at),
            Strategy::BlueGreen(blue_green) => blue_green.next(at),
        }
    }

    /// How requests are divided at this position.
    pub fn split(&self, at: Position) -> Split {
        let at = self.understood(at);
        match self {
            Strategy::Canary(canary) => canary.split(at),
            Strategy::AbTesting(ab_testing) => ab_testing.split(at),
            Strategy::BlueGreen(blue_green) => blue_green.split(at),
        }
    }

    /// Whether the confirm-traffic-increase gate must be open before this position is left.
    pub fn asks_before_increase(&self, at: Position) -> bool {
        let at = self.understood(at);
        match self {
            Strategy::Canary(canary) => canary.asks_before_increase(at),
            Strategy::AbTesting(ab_testing) => ab_testing.asks_before_increase(at),
            Strategy::BlueGreen(blue_green) => blue_green.asks_before_increase(at),
        }
    }

    /// Whether the confirm-promotion gate must be open before this position is left.
    pub fn asks_before_promotion(&self, at: Position) -> bool {
        let at = self.understood(at);
        match self {
            Strategy::Canary(canary) => canary.asks_before_promotion(at),
            Strategy::AbTesting(ab_testing) => ab_testing.asks_before_promotion(at),
            Strategy::BlueGreen(blue_green) => blue_green.asks_before_promotion(at),
        }
    }

    /// Whether a canary at 100 % serves everybody there. In a running A/B test it serves only those who meet the
    /// conditions; everybody else depends on the primary.
    pub fn is_for_everybody(&self, at: Position) -> bool {
        match self {
            Strategy::Canary(_) | Strategy::BlueGreen(_) => self.understood(at) == at,
            Strategy::AbTesting(_) => at.iterations == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ab_test_that_becomes_another_analysis_begins_anew() {
        let tested = Position { weight: 100, iterations: 2 };
        let weighted = Strategy::weighted(Weights::Linear { step: 10, max: 50 });
        let blue_green = Strategy::BlueGreen(BlueGreen { iterations: 3, mirror: false, switches: true });
        for strategy in [weighted, blue_green] {
            assert_eq!(strategy.split(tested), Split::PRIMARY, "{strategy:?}");
            assert_eq!(strategy.next(tested), strategy.next(Position::default()), "{strategy:?}");
            assert!(!strategy.is_for_everybody(tested) && !strategy.asks_before_promotion(tested), "{strategy:?}");
        }
    }

    #[test]
    fn a_weighted_canary_and_a_blue_green_run_know_their_own_positions() {
        let weighted = Strategy::weighted(Weights::Linear { step: 10, max: 50 });
        assert_eq!(weighted.split(Position { weight: 30, iterations: 0 }), Split::to_canary(30));
        let blue_green = Strategy::BlueGreen(BlueGreen { iterations: 3, mirror: false, switches: true });
        for iterations in [0, 4] {
            assert_eq!(blue_green.split(Position { weight: 100, iterations }), Split::CANARY);
        }
    }
}
