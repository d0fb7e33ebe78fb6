//! What one attempt may take of this process's memory, counted over all its memories and tables together.
//!
//! **Invariant:** the sum never passes the limit, and a denial is remembered: a guest that dies of it looks
//! like any other trap, so the memory of the denial is what names the cause.

use std::time::Instant;

use wasmtime::ResourceLimiter;

use super::engine::{
    CORE_INSTANCES_PER_GUEST_MAX, MEMORIES_PER_GUEST_MAX, TABLE_ELEMENTS_MAX, TABLES_PER_GUEST_MAX,
};

/// Bytes that one table element costs the host.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// A growth that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// It would have passed the attempt's limit.
    Memory {
        /// Bytes that were in use.
        used: usize,
        /// Bytes that the guest wanted beside them.
        wanted: usize,
    },
    /// No slot of the pool has room for so large a table.
    Table {
        /// Elements that the table was to have.
        wanted: usize,
    },
}

/// Counts the memories and tables of one attempt.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    limit: usize,
    used: usize,
    denial: Option<(Denial, Instant)>,
}

impl MemoryLimit {
    /// A limit of `limit` bytes of which nothing is used.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            denial: None,
        }
    }

    /// The last growth that was refused, if one was.
    pub(super) fn denial(&self) -> Option<Denial> {
        self.denial.map(|(denial, _)| denial)
    }

    /// When that was.
    pub(super) fn denied_at(&self) -> Option<Instant> {
        self.denial.map(|(_, at)| at)
    }

    fn deny(&mut self, denial: Denial) {
        self.denial = Some((denial, Instant::now()));
    }

    /// Bytes that are in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Another call begins: what was refused in the one before is no concern of its.
    pub(super) fn forget_denial(&mut self) {
        self.denial = None;
    }

    /// Judges a growth from `current` to `desired` units of `unit_bytes` each.
    fn grow_to(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
        unit_bytes: usize,
    ) -> bool {
        let in_bytes = |units: usize| units.saturating_mul(unit_bytes);
        // What is beyond the guest's own maximum, but not beyond ours, fails without us: it must not count.
        let fails_anyway = maximum.is_some_and(|maximum| desired > maximum);
        if fails_anyway && in_bytes(desired) <= self.limit {
            return true;
        }
        self.grow(in_bytes(desired.saturating_sub(current)))
    }

    fn grow(&mut self, more: usize) -> bool {
        match self.used.checked_add(more) {
            Some(sum) if sum <= self.limit => {
                self.used = sum;
                true
            }
            Some(_) | None => {
                self.deny(Denial::Memory {
                    used: self.used,
                    wanted: more,
                });
                false
            }
        }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow_to(current, desired, maximum, 1))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The pool's bound arrives as the table's own maximum; what is beyond it fails without us.
        if desired > TABLE_ELEMENTS_MAX && maximum.is_none_or(|own| own >= TABLE_ELEMENTS_MAX) {
            self.deny(Denial::Table { wanted: desired });
            return Ok(false);
        }
        Ok(self.grow_to(current, desired, maximum, TABLE_ELEMENT_BYTES))
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_PER_GUEST_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_GUEST_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_GUEST_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit_and_a_denial_is_remembered() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.table_growing(0, 2, None).unwrap());
        assert_eq!(limit.denial(), None);
        assert!(!limit.memory_growing(60, 85, None).unwrap());
        let denial = Denial::Memory {
            used: 76,
            wanted: 25,
        };
        assert_eq!(limit.denial(), Some(denial));
        assert!(limit.memory_growing(60, 84, None).unwrap());
    }

    #[test]
    fn a_table_beyond_the_pools_bound_is_told_apart_from_one_beyond_its_own() {
        let mut limit = MemoryLimit::new(usize::MAX);
        let (bound, beyond) = (TABLE_ELEMENTS_MAX, TABLE_ELEMENTS_MAX + 1);
        assert!(limit.table_growing(0, bound, Some(bound)).unwrap());
        assert!(limit.table_growing(bound, beyond, Some(10)).unwrap());
        assert_eq!(limit.denial(), None);
        assert!(!limit.table_growing(bound, beyond, Some(bound)).unwrap());
        assert_eq!(limit.denial(), Some(Denial::Table { wanted: beyond }));
    }

    #[test]
    fn growth_beyond_a_memorys_own_maximum_is_not_counted() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 90, Some(50)).unwrap());
        assert!(limit.memory_growing(0, 100, Some(100)).unwrap());
        assert_eq!(limit.denial(), None);
        assert!(!limit.memory_growing(100, 1000, Some(500)).unwrap());
        assert!(limit.denial().is_some());
    }
}
