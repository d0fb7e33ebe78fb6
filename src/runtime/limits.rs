//! What one attempt may take of this process's memory, counted over all its memories and tables together.
//!
//! **Invariant:** the sum never passes the limit, and a denial is remembered: a guest that dies of it looks
//! like any other trap, so the memory of the denial is what names the cause.

use wasmtime::ResourceLimiter;

use super::host_limits::{INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};

/// Bytes that one table element costs the host.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// A growth that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denial {
    /// Bytes that were in use.
    pub(super) used: usize,
    /// Bytes that the guest wanted beside them.
    pub(super) wanted: usize,
    /// Bytes that it may have in all.
    pub(super) limit: usize,
}

/// Counts the memories and tables of one attempt.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    limit: usize,
    used: usize,
    denial: Option<Denial>,
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
        self.denial
    }

    fn grow(&mut self, more: usize) -> bool {
        match self.used.checked_add(more) {
            Some(sum) if sum <= self.limit => {
                self.used = sum;
                true
            }
            Some(_) | None => {
                self.denial = Some(Denial {
                    used: self.used,
                    wanted: more,
                    limit: self.limit,
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
        // Beyond the memory's own maximum the growth fails anyway and must not be counted.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(true);
        }
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(true);
        }
        let more = desired.saturating_sub(current);
        Ok(self.grow(more.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
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
        let denial = Denial {
            used: 76,
            wanted: 25,
            limit: 100,
        };
        assert_eq!(limit.denial(), Some(denial));
        assert!(limit.memory_growing(60, 84, None).unwrap());
    }

    #[test]
    fn growth_beyond_a_memorys_own_maximum_is_not_counted() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 90, Some(50)).unwrap());
        assert!(limit.memory_growing(0, 100, Some(100)).unwrap());
    }
}
