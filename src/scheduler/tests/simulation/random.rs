//! Choices by a seed.
//!
//! **Invariant:** the same everywhere, whatever the machine.

use crate::model::Dice;

/// A source of choices.
pub(super) struct Random(Dice);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Dice::seeded(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.number()
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// A small number more often than a large one, up to `1 << bits`.
    pub(super) fn mostly_small(&mut self, bits: u64) -> u64 {
        let bits = self.below(bits + 1);
        self.below(1 << bits)
    }
}
