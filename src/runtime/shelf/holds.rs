//! What an item of the shelf holds.
//!
//! **Invariant:** plain sums.

/// What an item holds while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::runtime) struct Holds {
    /// Bytes of its memories.
    pub(in crate::runtime) bytes: u64,
    /// Permits of the plane.
    pub(in crate::runtime) permits: u32,
    /// Permits of the pool for WASI 0.3.
    pub(in crate::runtime) own_permits: u32,
}

impl Holds {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            permits: self.permits.saturating_add(other.permits),
            own_permits: self.own_permits.saturating_add(other.own_permits),
        }
    }
}
