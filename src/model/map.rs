//! Maps by ids that this program makes itself.
//!
//! **Invariant:** for keys that nobody outside chooses. A hasher that is easily outwitted is safe there, and
//! costs a tenth of the standard one.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by ids of ours: of functions, executions, claims.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A set of such ids.
pub type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Mixes whole words by one multiplication each, whose upper half is folded into the lower.
#[derive(Debug, Default, Clone, Copy)]
pub struct IdHasher(u64);

impl IdHasher {
    fn add(&mut self, word: u64) {
        // An odd number without pattern: the fraction of the golden ratio.
        let wide = u128::from(self.0.rotate_left(23) ^ word) * 0x9e37_79b9_7f4a_7c15;
        let (lower, upper) = (wide & u128::from(u64::MAX), wide >> 64);
        self.0 = u64::try_from(lower ^ upper).unwrap_or_default();
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.add(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_i64(&mut self, number: i64) {
        self.add(number.cast_unsigned());
    }

    /// The length of an id is always the same.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;
    use crate::model::{ExecutionId, Fence, FunctionId, Timestamp};

    /// How many of 4,096 keys share their lowest 12 bits with an earlier one.
    fn collisions<K: std::hash::Hash>(keys: impl Iterator<Item = K>) -> usize {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        let mut seen = HashSet::new();
        keys.take(4_096)
            .filter(|key| !seen.insert(hasher.hash_one(key) & 0xfff))
            .count()
    }

    #[test]
    fn ids_spread_about_as_well_as_chance_would_have_it() {
        // Chance has about 1,500.
        for count in [
            collisions((1..).map(FunctionId)),
            collisions((1..).map(|counter| Fence::new(7, counter))),
            collisions((0..).map(|ms| ExecutionId::new(Timestamp(1_760_000_000_000 + ms)))),
        ] {
            assert!(count < 1_800, "{count}");
        }
    }
}
