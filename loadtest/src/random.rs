//! Randomness that can be replayed.

/// The generator of the embedded cluster, with what stories need of it.
pub struct Random(aviary_sim::random::Random);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(aviary_sim::random::Random::new(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..end`; 0 for an empty range.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// One of the items.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, items: [T; N]) -> T {
        const { assert!(N > 0) };
        items[usize::try_from(self.below(N as u64)).unwrap_or(0)]
    }

    /// A number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let other = usize::try_from(self.next() % (end as u64 + 1)).unwrap_or(0);
            items.swap(end, other);
        }
    }
}
