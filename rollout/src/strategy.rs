//! How traffic moves. One file per strategy, the same functions in each.

mod canary;

pub use canary::Weights;

/// How traffic moves during the analysis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Step by step to the canary.
    Canary(Weights),
}

impl Strategy {
    /// As the `deployment_strategy` label of the counters spells it.
    pub fn label(&self) -> &'static str {
        match self {
            Strategy::Canary(_) => "canary",
        }
    }

    /// The weight that follows `weight`, or `None` when the analysis at `weight` was the last one.
    pub fn next_weight(&self, weight: u32) -> Option<u32> {
        match self {
            Strategy::Canary(weights) => weights.next(weight),
        }
    }
}
