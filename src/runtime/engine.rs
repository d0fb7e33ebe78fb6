//! Configures wasmtime: engines that run guests out of a pool of slots, and engines that only compile.
//!
//! There are two [flavors](Flavor) of each: the component model's async (WASI 0.3) makes every call dearer, so
//! only what needs it runs with it.
//!
//! **Invariant:** the serving and the compiling engine of a flavor share every setting that shapes machine code
//! ([`base`]), so what one compiles the other loads; whatever is particular to this machine is found out at
//! start and told in [`PoolReport`].

use std::fmt;

use serde::{Deserialize, Serialize};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

/// Stack of a guest, in bytes: wasmtime's default of 512 KiB is too little for deeply recursive programs.
const WASM_STACK_BYTES: usize = 1 << 20;
/// Stack of the fibre that a guest and the host calls below it run on, in bytes.
const ASYNC_STACK_BYTES: usize = 2 << 20;
/// Largest linear memory, in bytes: the upper end of `memoryMb`.
pub(super) const MEMORY_BYTES_MAX: usize = 4 << 30;
/// Elements that one table may have; 64-bit machines reserve 8 bytes of address space for each.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Core instances inside one component (a Python component has dozens).
pub(super) const CORE_INSTANCES_PER_GUEST_MAX: u32 = 100;
/// Linear memories of one guest.
pub(super) const MEMORIES_PER_GUEST_MAX: u32 = 20;
/// Tables of one guest.
pub(super) const TABLES_PER_GUEST_MAX: u32 = 50;
/// Linear memories that one permit pays for: the program's own and a garbage-collected heap.
pub(super) const MEMORIES_PER_PERMIT: u32 = 2;
/// Tables that one permit pays for; a JavaScript or Python component has a handful.
pub(super) const TABLES_PER_PERMIT: u32 = 8;
/// wasmtime's own record of one core instance or component, in bytes: globals, functions, table headers.
const INSTANCE_BYTES_MAX: usize = 16 << 20;
/// What a slot keeps in memory between two guests, for each of its memory, table and stack, in bytes. Wiping
/// these few pages is far cheaper than unmapping them and faulting them in again.
const KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// The same for a memory where only touched pages are wiped, and thus nothing is spent on the others. A JavaScript engine
/// touches several hundred KB in every call; with less, two threads that run it hinder each other at each page. More
/// would not help it: wasmtime's scan finds 32 stretches of touched pages at most, and gives back what lies behind them.
const KEEP_RESIDENT_TOUCHED_BYTES: usize = 1 << 20;
/// Slots that stay warm for the module which used them last.
const WARM_SLOTS_MAX: u32 = 64;

/// Stacks of an async slot: what runs on them are the tasks of one guest, of which a component made of several
/// may have more than one.
const STACKS_PER_ASYNC_SLOT: u32 = 4;

/// What an engine can do, and what that costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// Everything but the component model's async.
    #[default]
    Plain,
    /// With streams, futures and async functions: WASI 0.3.
    Async,
}

impl Flavor {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Plain, Self::Async];

    /// The word for it, in the log.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Async => "async",
        }
    }
}

/// Where guests find room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slots {
    /// In a pool that is reserved at start, each slot wiped between two guests.
    #[default]
    Pool,
    /// In memory that is mapped for each guest: for tools like valgrind, under which a pool finds no room. Such
    /// tools slow everything down, so guests look up less often too.
    OnDemand,
}

/// How a slot is wiped between two guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wipe {
    /// The kernel says which pages were touched (`PAGEMAP_SCAN`) and only these are reset.
    TouchedPages,
    /// Everything that may have been touched is reset or given back to the kernel.
    AllPages {
        /// Why the faster way is not used here.
        reason: &'static str,
    },
}

impl fmt::Display for Wipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TouchedPages => f.write_str("only touched pages (pagemap scan)"),
            Self::AllPages { reason } => write!(f, "all pages ({reason})"),
        }
    }
}

/// What the pool came to on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolReport {
    /// Guests that may run at once; fewer than asked for if the address space is small.
    pub guests: u32,
    /// Slots of the pool: a few more than guests, because a slot is busy a little longer than its guest.
    pub slots: u32,
    /// Linear memories of the pool.
    pub memories: u32,
    /// Address space that the memories reserve, in bytes; no memory is used before a guest touches it.
    pub reserved_bytes: u64,
    /// How slots are wiped.
    pub wipe: Wipe,
}

/// No pool could be made, however small.
#[derive(Debug, thiserror::Error)]
#[error("not even one slot for a guest could be reserved (address space limit?): {0}")]
pub struct NoPool(String);

/// The engine that guests run on, and what its pool came to. Tries `guests_max` first and halves until the
/// machine's address space is enough.
///
/// # Errors
/// [`NoPool`] if there is no room for a single guest.
pub(super) fn serving(flavor: Flavor, guests_max: u32) -> Result<(Engine, PoolReport), NoPool> {
    serving_with(flavor, guests_max, safest_fast_wipe())
}

/// An engine that makes room for each guest as it comes, and what stands for its pool's report. Slower, but
/// it reserves little address space.
///
/// # Errors
/// If the compiler does not support this machine.
pub(super) fn on_demand(flavor: Flavor, guests_max: u32) -> wasmtime::Result<(Engine, PoolReport)> {
    let report = PoolReport {
        guests: guests_max,
        slots: 0,
        memories: 0,
        reserved_bytes: 0,
        wipe: Wipe::AllPages {
            reason: "there is no pool",
        },
    };
    Ok((Engine::new(&base(flavor))?, report))
}

/// What the pool would come to on this machine right now. Reserves it for a moment.
///
/// # Errors
/// [`NoPool`] if there is no room for a single guest.
pub fn probe(guests_max: u32) -> Result<PoolReport, NoPool> {
    serving(Flavor::Plain, guests_max).map(|(_, report)| report)
}

/// [`serving`] with the way of wiping given.
pub(super) fn serving_with(
    flavor: Flavor,
    guests_max: u32,
    wipe: Wipe,
) -> Result<(Engine, PoolReport), NoPool> {
    let mut guests = guests_max.max(1);
    loop {
        let report = PoolReport::new(guests, wipe.clone());
        match Engine::new(&report.config(flavor)) {
            Ok(engine) => {
                tracing::info!(
                    pool.flavor = flavor.word(),
                    pool.guests = report.guests,
                    pool.guests_asked = guests_max,
                    pool.slots = report.slots,
                    pool.reserved_gib = report.reserved_bytes >> 30,
                    pool.wipe = %report.wipe,
                    "the pool for guests is reserved"
                );
                return Ok((engine, report));
            }
            Err(error) if guests == 1 => return Err(NoPool(format!("{error:#}"))),
            Err(error) => {
                tracing::warn!(
                    pool.flavor = flavor.word(),
                    pool.guests = guests,
                    error = %format_args!("{error:#}"),
                    "no room for this many guests, trying half"
                );
                guests /= 2;
            }
        }
    }
}

/// The engine that only compiles: it reserves nothing, so it works under a small address space limit.
///
/// # Errors
/// If the compiler does not support this machine.
pub(super) fn compiling(flavor: Flavor) -> wasmtime::Result<Engine> {
    Engine::new(&base(flavor))
}

/// Every setting that shapes machine code or what a guest may contain.
fn base(flavor: Flavor) -> Config {
    let with_async = flavor == Flavor::Async;
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .epoch_interruption(true)
        .concurrency_support(with_async)
        .wasm_component_model_async(with_async)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(ASYNC_STACK_BYTES)
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

impl PoolReport {
    fn new(guests: u32, wipe: Wipe) -> Self {
        let slots = guests.saturating_add((guests / 8).max(2));
        // One guest with all the memories it may have must fit beside nobody.
        let memories = slots
            .saturating_mul(MEMORIES_PER_PERMIT)
            .max(MEMORIES_PER_GUEST_MAX + MEMORIES_PER_PERMIT);
        Self {
            guests,
            slots,
            memories,
            reserved_bytes: u64::from(memories).saturating_mul(MEMORY_BYTES_MAX as u64),
            wipe,
        }
    }

    fn config(&self, flavor: Flavor) -> Config {
        let stacks = match flavor {
            Flavor::Plain => self.slots,
            Flavor::Async => self.slots.saturating_mul(STACKS_PER_ASYNC_SLOT),
        };
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(self.slots)
            .total_core_instances(self.slots.saturating_mul(CORE_INSTANCES_PER_GUEST_MAX))
            .total_memories(self.memories)
            .total_tables(
                self.slots
                    .saturating_mul(TABLES_PER_PERMIT)
                    .max(TABLES_PER_GUEST_MAX + TABLES_PER_PERMIT),
            )
            .total_stacks(stacks)
            .total_gc_heaps(self.slots)
            .max_core_instances_per_component(CORE_INSTANCES_PER_GUEST_MAX)
            .max_memories_per_component(MEMORIES_PER_GUEST_MAX)
            .max_memories_per_module(MEMORIES_PER_GUEST_MAX)
            .max_tables_per_component(TABLES_PER_GUEST_MAX)
            .max_tables_per_module(TABLES_PER_GUEST_MAX)
            .max_component_instance_size(INSTANCE_BYTES_MAX)
            .max_core_instance_size(INSTANCE_BYTES_MAX)
            .max_memory_size(MEMORY_BYTES_MAX)
            .table_elements(TABLE_ELEMENTS_MAX)
            .linear_memory_keep_resident(match self.wipe {
                Wipe::TouchedPages => KEEP_RESIDENT_TOUCHED_BYTES,
                Wipe::AllPages { .. } => KEEP_RESIDENT_BYTES,
            })
            .table_keep_resident(KEEP_RESIDENT_BYTES)
            .async_stack_keep_resident(KEEP_RESIDENT_BYTES)
            .max_unused_warm_slots(WARM_SLOTS_MAX)
            // A batch keeps everything its guests touched (up to 4 GiB each) until it is full, and saves
            // about a microsecond a call where touched pages are known: memory is given back at once.
            .decommit_batch_size(1)
            // Memory protection keys are not even built in: a fresh mapping of an image resets them, so
            // instances could read each other.
            .pagemap_scan(match self.wipe {
                Wipe::TouchedPages => Enabled::Yes,
                Wipe::AllPages { .. } => Enabled::No,
            });
        let mut config = base(flavor);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        config
    }
}

/// Pagemap scan where the kernel has it and the pool's pages cannot be swapped out. A touched page that was
/// swapped out is not found by the scan: the next guest in the slot would read what the last one wrote.
fn safest_fast_wipe() -> Wipe {
    let swaps = std::fs::read_to_string("/proc/swaps").ok();
    let swap_forbidden = cgroup_forbids_swap();
    match unsafe_to_scan(
        PoolingAllocationConfig::is_pagemap_scan_available(),
        swaps.as_deref(),
        swap_forbidden,
    ) {
        None => Wipe::TouchedPages,
        Some(reason) => Wipe::AllPages { reason },
    }
}

/// Whether the limit of swap of our own cgroup (version 2) is 0.
fn cgroup_forbids_swap() -> Option<SwapForbidden> {
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let file = std::path::Path::new("/sys/fs/cgroup")
        .join(path)
        .join("memory.swap.max");
    let limit = std::fs::read_to_string(file).ok()?;
    (limit.trim() == "0").then_some(SwapForbidden)
}

/// Proof that our cgroup may not swap.
struct SwapForbidden;

/// Why touched pages must not be relied on, if so. `swaps` is `/proc/swaps`: a heading, then a line for
/// each active swap.
fn unsafe_to_scan(
    available: bool,
    swaps: Option<&str>,
    forbidden: Option<SwapForbidden>,
) -> Option<&'static str> {
    if !available {
        return Some("the kernel has no PAGEMAP_SCAN, which came with Linux 6.7");
    }
    if forbidden.is_some() {
        return None;
    }
    match swaps {
        Some(swaps) if swaps.lines().skip(1).all(|line| line.trim().is_empty()) => None,
        Some(_) => Some("swap is active and our cgroup may use it"),
        None => Some("/proc/swaps cannot be read, so swap may be active"),
    }
}

/// What running guests take of the pool, and what free slots keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolUse {
    /// Memories of running guests.
    pub memories: u64,
    /// Tables of running guests.
    pub tables: u64,
    /// Stacks of running guests.
    pub stacks: u64,
    /// Bytes that free slots keep in memory.
    pub resident_bytes: u64,
}

impl PoolUse {
    /// What two pools come to together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            memories: self.memories + other.memories,
            tables: self.tables + other.tables,
            stacks: self.stacks + other.stacks,
            resident_bytes: self.resident_bytes + other.resident_bytes,
        }
    }
}

/// See [`PoolUse`].
pub(super) fn pool_use(engine: &Engine) -> PoolUse {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    engine
        .pooling_allocator_metrics()
        .map_or_else(PoolUse::default, |pool| PoolUse {
            memories: count(pool.memories()),
            tables: count(pool.tables()),
            stacks: count(pool.stacks()),
            resident_bytes: count(pool.unused_memory_bytes_resident()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_scanned_only_where_nothing_can_be_swapped() {
        const HEADING: &str = "Filename\tType\tSize\tUsed\tPriority\n";
        let active = format!("{HEADING}/dev/sda2 partition 1048572 0 -2\n");
        let check = |available, swaps: Option<&str>, forbidden: Option<SwapForbidden>| {
            unsafe_to_scan(available, swaps, forbidden).is_none()
        };
        assert!(check(true, Some(HEADING), None));
        assert!(!check(false, Some(HEADING), None));
        assert!(!check(true, Some(&active), None));
        assert!(check(true, Some(&active), Some(SwapForbidden)));
        assert!(!check(true, None, None));
    }

    #[test]
    fn the_pool_has_more_slots_than_guests_and_room_for_the_greediest() {
        for guests in [1, 2, 7, 64, 1000] {
            let report = PoolReport::new(guests, Wipe::TouchedPages);
            assert!(report.slots > report.guests);
            assert!(report.memories >= MEMORIES_PER_GUEST_MAX);
            assert!(report.memories >= report.guests * MEMORIES_PER_PERMIT);
        }
    }
}
