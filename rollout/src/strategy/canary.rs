//! Weighted canary: the arithmetic of its steps.

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
    use super::Weights;

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
}
