//! Randomness as a parameter, as time is one: the system's, or a seeded sequence that a test repeats.
//!
//! **Invariant:** whatever a plane decides by chance (ids, jitter) it asks here, so that a seed and the order of
//! events say everything that happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ExecutionId, Timestamp};

/// A cheap handle on a source of random numbers. Not for secrets.
#[derive(Debug, Clone, Default)]
pub struct Dice(Option<Arc<AtomicU64>>);

impl Dice {
    /// The system's randomness.
    pub fn system() -> Self {
        Self(None)
    }

    /// The sequence that belongs to this seed; clones draw from the same one.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(seed))))
    }

    /// The next number, anywhere in its range.
    pub fn number(&self) -> u64 {
        match &self.0 {
            None => system_number(),
            Some(state) => {
                // splitmix64: the state only counts, so that threads may share it.
                const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
                let counted = state.fetch_add(STEP, Ordering::Relaxed);
                let mut mixed = counted.wrapping_add(STEP);
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
        }
    }

    /// A number in `0..=u32::MAX`, for the full jitter of a delay.
    pub fn jitter(&self) -> u32 {
        let [a, b, c, d, ..] = self.number().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// A new id for an execution created at `now`; the random part keeps ids of one millisecond apart.
    pub fn execution_id(&self, now: Timestamp) -> ExecutionId {
        let mut random = [0; 10];
        let drawn = [self.number().to_le_bytes(), self.number().to_le_bytes()];
        for (byte, drawn) in random.iter_mut().zip(drawn.as_flattened()) {
            *byte = *drawn;
        }
        ExecutionId::of(now, random)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
fn system_number() -> u64 {
    // Seeded once a thread: asking the system at every call would cost a system call.
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence_and_clones_share_it() {
        let draw = |dice: &Dice| {
            (
                dice.number(),
                dice.jitter(),
                dice.execution_id(Timestamp(7)),
            )
        };
        let (first, second) = (Dice::seeded(3), Dice::seeded(3));
        let shared = first.clone();
        let drawn = [draw(&first), draw(&shared)];
        assert_ne!(drawn[0], drawn[1]);
        assert_eq!(drawn, [draw(&second), draw(&second)]);
        assert_ne!(drawn[0], draw(&Dice::seeded(4)));
    }

    #[test]
    fn the_systems_numbers_differ() {
        let dice = Dice::system();
        assert_ne!(dice.number(), dice.number());
        assert_ne!(
            dice.execution_id(Timestamp(1)),
            dice.execution_id(Timestamp(1))
        );
    }
}
