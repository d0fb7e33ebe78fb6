//! Figures of the whole plane, one row each.
//!
//! **Invariant:** the variants are closed lists; a new one does not compile until it has a name and a help text.

use prometheus::{IntCounter, IntGauge, Registry};

use super::families::registered;

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
        QueuedInputBytes = "pelton_queued_input_bytes", "Bytes of queued inputs kept in memory";
        GuestsRunning = "pelton_guests_running", "Wasm attempts that run in this process";
        GuestsMax = "pelton_guests_max", "Wasm attempts that may run at once";
        EndpointCallsRunning = "pelton_endpoint_calls_running", "Attempts of POOL functions under way";
        PoolSlots = "pelton_pool_slots", "Instances that the pooling allocator has room for";
        PoolPagemapScan = "pelton_pool_pagemap_scan", "1 where the pool resets memory by pagemap scan, 0 where it decommits";
        LoadedCodeBytes = "pelton_loaded_code_bytes", "Bytes of compiled code in memory";
        CompilationsWaiting = "pelton_compilations_waiting", "Uploads that wait for the compiler";
        StoreWritesWaiting = "pelton_store_writes_waiting", "Writes that wait for their batch";
        StoreBufferBytes = "pelton_store_buffer_bytes", "Bytes in the write-behind buffer";
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
        StoreCommits = "pelton_store_commits_total", "Batches committed";
        StoreRowsSummarised = "pelton_store_rows_summarised_total", "Ended executions kept as a summary because the write-behind buffer was half full";
        StoreRowsDropped = "pelton_store_rows_dropped_total", "Ended executions not kept because the write-behind buffer was full";
        StoreRowsPurged = "pelton_store_rows_purged_total", "Rows removed by retention";
    }
}

pub(super) struct Plane {
    gauges: Vec<IntGauge>,
    counters: Vec<IntCounter>,
}

impl Plane {
    pub(super) fn register(registry: &Registry) -> Self {
        let gauges = Gauge::ALL.iter().map(|gauge| {
            let (name, help) = gauge.name_and_help();
            registered(registry, IntGauge::new(name, help))
        });
        let counters = Counter::ALL.iter().map(|counter| {
            let (name, help) = counter.name_and_help();
            registered(registry, IntCounter::new(name, help))
        });
        Self {
            gauges: gauges.collect(),
            counters: counters.collect(),
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
}
