//! The runs of an execution that lives in memory.
//!
//! **Invariant:** runs are in the order of their claims. The latest one is always there, and of the earlier ones the latest whose logs fit in the bound
//! together with its own: an execution may be sent back a million times.

use std::collections::VecDeque;

use crate::model::{LogLine, Logs};
use crate::store::AttemptRecord;

/// What a run takes beside its logs, in bytes.
const RUN_BYTES: usize = size_of::<AttemptRecord>();

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    runs: VecDeque<AttemptRecord>,
    bytes: u64,
}

impl History {
    /// Adds a run, mostly the latest (one that was stopped may end after its successor), and drops the oldest ones
    /// that are too much for `bytes_max`. The oldest that is left says so: its logs are marked as cut off.
    pub(super) fn add(&mut self, run: AttemptRecord, bytes_max: u64) {
        self.bytes += bytes_of(&run);
        let earlier = |other: &AttemptRecord| other.fence < run.fence;
        let at = self.runs.partition_point(earlier);
        // Nearly all have one run only.
        if self.runs.is_empty() {
            self.runs.reserve_exact(1);
        }
        self.runs.insert(at, run);
        let before = self.runs.len();
        while self.bytes > bytes_max
            && self.runs.len() > 1
            && let Some(oldest) = self.runs.pop_front()
        {
            self.bytes -= bytes_of(&oldest);
        }
        if self.runs.len() < before
            && let Some(oldest) = self.runs.front_mut()
        {
            oldest.logs.truncated = true;
        }
    }

    /// All that are left, oldest first.
    pub(super) fn to_vec(&self) -> Vec<AttemptRecord> {
        self.runs.iter().cloned().collect()
    }

    /// Takes them out.
    pub(super) fn take(&mut self) -> Vec<AttemptRecord> {
        std::mem::take(self).runs.into()
    }
}

/// What a run takes in memory.
fn bytes_of(run: &AttemptRecord) -> u64 {
    log_bytes(&run.logs) + RUN_BYTES as u64
}

/// What logs take in memory.
pub(super) fn log_bytes(logs: &Logs) -> u64 {
    let lines = logs.lines.iter();
    let bytes: usize = lines
        .map(|line| size_of::<LogLine>() + line.text.len())
        .sum();
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fence, LogStream, Timestamp};

    fn run(number: u32, text: &str) -> AttemptRecord {
        AttemptRecord {
            fence: Fence::new(1, number.into()),
            number,
            started_at: Timestamp(0),
            finished_at: Timestamp(0),
            outcome: "requeue",
            failure: None,
            logs: Logs {
                lines: vec![LogLine {
                    stream: LogStream::Stderr,
                    text: text.to_owned(),
                }],
                truncated: false,
            },
            cold_start: false,
            init_ms: None,
            run_us: 0,
            cpu_us: None,
        }
    }

    #[test]
    fn the_latest_runs_are_kept_and_the_oldest_of_them_says_that_others_were_not() {
        let mut history = History::default();
        let three = 3 * bytes_of(&run(1, "four"));
        for number in 1..=3 {
            history.add(run(number, "four"), three);
        }
        let kept = history.to_vec();
        assert_eq!(kept.len(), 3);
        assert!(kept.iter().all(|run| !run.logs.truncated));
        for number in 4..=1000 {
            history.add(run(number, "four"), three);
        }
        let numbers: Vec<_> = history.to_vec().iter().map(|run| run.number).collect();
        assert_eq!(numbers, [998, 999, 1000]);
        let cut: Vec<_> = history
            .to_vec()
            .iter()
            .map(|run| run.logs.truncated)
            .collect();
        assert_eq!(cut, [true, false, false]);
    }

    #[test]
    fn the_latest_run_is_kept_however_much_it_wrote() {
        let mut history = History::default();
        history.add(run(1, "a little"), 1);
        history.add(run(2, &"much ".repeat(1000)), 1);
        let kept = history.take();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].number, kept[0].logs.truncated), (2, true));
        assert!(history.take().is_empty());
    }

    #[test]
    fn a_run_that_ends_late_stands_where_it_began() {
        let mut history = History::default();
        for number in [2, 1, 3] {
            history.add(run(number, "four"), 1_000_000);
        }
        let numbers = |history: &History| -> Vec<_> {
            history.to_vec().iter().map(|run| run.number).collect()
        };
        assert_eq!(numbers(&history), [1, 2, 3]);
        // Nor does one that is too old for the bound push out a newer one.
        let mut full = History::default();
        let one = bytes_of(&run(1, "four"));
        full.add(run(2, "four"), one);
        full.add(run(1, "four"), one);
        assert_eq!(numbers(&full), [2]);
    }
}
