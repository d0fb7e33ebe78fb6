//! Figures of the whole plane, one row each.
//!
//! **Invariant:** the variants are closed lists; a new one does not compile until it has a name and a help text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::families::{counters, registered};

/// Declares a closed list of figures: variant, name, help.
macro_rules! figures {
    ($(#[$doc:meta])* $list:ident { $($variant:ident = $name:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $list {
            $(#[doc = $help] $variant,)+
        }

        impl $list {
            /// All of them, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            fn name_and_help(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$variant => ($name, $help),)+
                }
            }
        }
    };
}

figures! {
    /// A figure that goes up and down.
    Gauge {
        Functions = "pelton_functions", "Functions that exist";
        LiveExecutions = "pelton_live_executions", "Executions that have not ended";
        QueuedInputBytes = "pelton_queued_input_bytes", "Bytes of queued inputs kept in memory, with their metadata";
        UncommittedResultBytes = "pelton_uncommitted_result_bytes", "Bytes of results on their way to disk";
        GuestsRunning = "pelton_guests_running", "Wasm attempts that run in this process";
        GuestsMax = "pelton_guests_max", "Wasm attempts that may run at once";
        EndpointCallsRunning = "pelton_endpoint_calls_running", "Attempts of POOL functions under way";
        PoolSlots = "pelton_pool_slots", "Instances that the pooling allocator has room for";
        PoolSlotsUsed = "pelton_pool_slots_used", "Of these, taken by running guests and by instances that wait for another call; one with many memories takes several";
        PoolMemories = "pelton_pool_memories", "Memories of running guests";
        PoolTables = "pelton_pool_tables", "Tables of running guests";
        PoolStacks = "pelton_pool_stacks", "Stacks of running guests";
        PoolResidentBytes = "pelton_pool_resident_bytes", "Bytes that free slots keep in memory for the next guest";
        PoolPagemapScan = "pelton_pool_pagemap_scan", "1 where the pool resets memory by pagemap scan, 0 where it decommits";
        WarmInstances = "pelton_warm_instances", "Instances of functions with reuse that wait for their next call";
        WarmMemoryBytes = "pelton_warm_memory_bytes", "Bytes of their memories";
        LoadedCode = "pelton_loaded_code", "Files whose compiled code is in memory";
        LoadedCodeBytes = "pelton_loaded_code_bytes", "Bytes of compiled code in memory";
        CompilationsWaiting = "pelton_compilations_waiting", "Uploads that wait for the compiler";
        CompilationsRunning = "pelton_compilations_running", "Uploads that are being compiled";
        StoreWritesWaiting = "pelton_store_writes_waiting", "Writes that wait for their batch";
        StoreCommitUnderWay = "pelton_store_commit_under_way_ms", "How long the commit that is under way has been, in ms; 0 if none is";
        StoreBufferBytes = "pelton_store_buffer_bytes", "Bytes in the write-behind buffer";
        StoreBufferBytesMax = "pelton_store_buffer_bytes_max", "Bytes that the write-behind buffer holds at most";
        StorePoisoned = "pelton_store_poisoned", "1 once the store takes no writes any more";
        TimerProgress = "pelton_timer_last_progress_timestamp_ms", "Up to when everything that was due was woken, in ms since 1970";
        WriterProgress = "pelton_writer_last_progress_timestamp_ms", "Up to when everything handed to the store's writer was written, in ms since 1970";
        CheckpointProgress = "pelton_checkpoint_last_progress_timestamp_ms", "Up to when every copy of the store's log that was asked for was made, in ms since 1970";
        PurgeProgress = "pelton_purge_last_progress_timestamp_ms", "Up to when old executions were looked for in time, in ms since 1970";
        SweepProgress = "pelton_sweep_last_progress_timestamp_ms", "Up to when code that nobody has was looked for in time, in ms since 1970";
        LoopsLate = "pelton_loops_late", "Loops that are further behind than --loop-deadline-ms";
    }
}

figures! {
    /// A figure that only grows.
    Counter {
        ReusedCalls = "pelton_reused_calls_total", "Calls given to an instance that had been given one before";
        WarmEvicted = "pelton_warm_instances_evicted_total", "Instances that ended while they waited for a call, because others needed the room";
        StoreCommits = "pelton_store_commits_total", "Batches committed";
        StoreWrites = "pelton_store_writes_total", "Writes committed, logged claims included";
        StoreStalls = "pelton_store_stalls_total", "Commits that took longer than 100 ms";
        StoreCheckpoints = "pelton_store_checkpoints_total", "Times that the write-ahead log was copied into the database";
        StoreBatchesIsolated = "pelton_store_batches_isolated_total", "Batches done again write by write, because one of them failed";
        StoreClaimsLost = "pelton_store_claims_lost_total", "Claims not logged because too many waited: after a crash their executions lack a fault";
        StoreRowsSummarised = "pelton_store_rows_summarised_total", "Ended executions kept as a summary because the write-behind buffer was half full";
        StoreRowsDropped = "pelton_store_rows_dropped_total", "Ended executions not kept because the write-behind buffer was full";
        StoreRowsPurged = "pelton_store_rows_purged_total", "Rows removed by retention";
    }
}

figures! {
    /// How often something was how large, or took how long.
    Distribution {
        StoreCommitMs = "pelton_store_commit_ms", "Time of commits, the sync included, in ms";
        StoreCommitWrites = "pelton_store_commit_writes", "Writes that one commit held";
        CompilationMs = "pelton_compilation_ms", "Time of compilations, waiting for the compiler included, in ms";
    }
}

/// A distribution as it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spread {
    /// Upper bounds of its buckets, ascending.
    pub bounds: Vec<f64>,
    /// How many values lie in each bucket (not in those before), and in one more beyond the last bound.
    pub counts: Vec<u64>,
    /// The values' sum.
    pub sum: f64,
}

/// The family of a distribution that others keep.
#[derive(Clone)]
struct Told {
    desc: Arc<Desc>,
    spread: Arc<Mutex<Spread>>,
}

impl Told {
    fn new(name: &str, help: &str) -> prometheus::Result<Self> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())?;
        Ok(Self {
            desc: Arc::new(desc),
            spread: Arc::default(),
        })
    }
}

impl Collector for Told {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let spread = self.spread.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = 0;
        let mut buckets = Vec::with_capacity(spread.bounds.len());
        for (bound, count) in spread.bounds.iter().zip(&spread.counts) {
            all += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(all);
            buckets.push(bucket);
        }
        let beyond = spread.counts.iter().skip(spread.bounds.len());
        let mut histogram = Histogram::default();
        histogram.set_sample_count(all + beyond.sum::<u64>());
        histogram.set_sample_sum(spread.sum);
        histogram.set_bucket(buckets);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

pub(super) struct Plane {
    gauges: Vec<IntGauge>,
    counters: Vec<IntCounter>,
    distributions: Vec<Told>,
    errors: IntCounterVec,
}

impl Plane {
    pub(super) fn register(registry: &Registry) -> Self {
        let gauges = Gauge::ALL.iter().map(|gauge| {
            let (name, help) = gauge.name_and_help();
            registered(registry, IntGauge::new(name, help))
        });
        let plain = Counter::ALL.iter().map(|counter| {
            let (name, help) = counter.name_and_help();
            registered(registry, IntCounter::new(name, help))
        });
        let distributions = Distribution::ALL.iter().map(|distribution| {
            let (name, help) = distribution.name_and_help();
            registered(registry, Told::new(name, help))
        });
        Self {
            gauges: gauges.collect(),
            counters: plain.collect(),
            distributions: distributions.collect(),
            errors: counters(
                registry,
                "pelton_errors_total",
                "Requests answered with an error, by its code",
                &["code"],
            ),
        }
    }

    pub(super) fn set(&self, gauge: Gauge, value: u64) {
        if let Some(series) = self.gauges.get(gauge as usize) {
            series.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn add(&self, counter: Counter, by: u64) {
        if let Some(series) = self.counters.get(counter as usize) {
            series.inc_by(by);
        }
    }

    pub(super) fn set_distribution(&self, distribution: Distribution, spread: Spread) {
        if let Some(told) = self.distributions.get(distribution as usize) {
            *told.spread.lock().unwrap_or_else(PoisonError::into_inner) = spread;
        }
    }

    pub(super) fn refused(&self, code: &str) {
        self.errors.with_label_values(&[code]).inc();
    }
}
