//! Watches the loops that nobody waits for: the scheduler's timer, the store's writer and its checkpoints,
//! retention, the removal of old code. One that hangs would stop all of its kind without a word.
//!
//! What each loop is asked is how long work that is due has been waiting for it; an idle loop is never behind.
//! Metrics show when a loop was last up to date, read when they are asked for, so that they are true even if this
//! watch hangs itself.
//!
//! **Invariant:** looks and tells; a loop that is late is logged once, and once more when it goes on.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::model::Timestamp;
use crate::observe::{Gauge, Metrics};
use crate::scheduler::Scheduler;
use crate::store::sqlite::Stats;

/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A loop that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    Timer,
    Writer,
    Checkpoint,
    Purge,
    Sweep,
}

impl Watched {
    const ALL: [Self; 5] = [
        Self::Timer,
        Self::Writer,
        Self::Checkpoint,
        Self::Purge,
        Self::Sweep,
    ];

    fn gauge(self) -> Gauge {
        match self {
            Self::Timer => Gauge::TimerProgress,
            Self::Writer => Gauge::WriterProgress,
            Self::Checkpoint => Gauge::CheckpointProgress,
            Self::Purge => Gauge::PurgeProgress,
            Self::Sweep => Gauge::SweepProgress,
        }
    }

    /// What it does, for people.
    fn work(self) -> &'static str {
        match self {
            Self::Timer => "waking what is due",
            Self::Writer => "writing to the store",
            Self::Checkpoint => "copying the store's log into its database",
            Self::Purge => "removing old executions",
            Self::Sweep => "removing code that nobody has",
        }
    }
}

/// When a loop that wakes by the clock has to have done its next turn.
#[derive(Debug)]
pub(super) struct Turn {
    /// Plane's time, in ms.
    due: AtomicI64,
}

impl Turn {
    /// The first one is due at this time.
    pub(super) fn at(due: Timestamp) -> Self {
        Self {
            due: AtomicI64::new(due.0),
        }
    }

    /// The last one is done, and the next one is due then.
    pub(super) fn next(&self, due: Timestamp) {
        self.due.store(due.0, Ordering::Relaxed);
    }

    fn behind_ms(&self, now: Timestamp) -> u64 {
        now.ms_since(Timestamp(self.due.load(Ordering::Relaxed)))
    }
}

/// How long work has waited for each loop, in ms, in the order of [`Watched::ALL`].
type Behind = [u64; Watched::ALL.len()];

/// Asks every loop how far it is.
pub(super) struct Watch {
    clock: Clock,
    deadline_ms: u64,
    pub(super) purge: Turn,
    pub(super) sweep: Turn,
}

impl Watch {
    /// A watch over loops that may be behind by so much.
    pub(super) fn new(clock: Clock, deadline_ms: u64, sweeps_at: Timestamp) -> Self {
        let purge = Turn::at(clock.now());
        Self {
            clock,
            deadline_ms,
            purge,
            sweep: Turn::at(sweeps_at),
        }
    }

    /// How far each loop is.
    pub(super) fn look(&self, scheduler: &Scheduler, store: &Stats) -> Behind {
        let now = self.clock.now();
        [
            scheduler.timer_behind_ms(),
            store.writing_us / 1000,
            store.checkpointing_us / 1000,
            self.purge.behind_ms(now),
            self.sweep.behind_ms(now),
        ]
    }

    /// Shows it: for each loop, up to when everything that was due is done.
    pub(super) fn show(&self, behind: &Behind, metrics: &Metrics) {
        let now = u64::try_from(self.clock.now().0).unwrap_or(0);
        for (watched, behind_ms) in Watched::ALL.into_iter().zip(behind) {
            metrics.set_gauge(watched.gauge(), now.saturating_sub(*behind_ms));
        }
        let late = behind
            .iter()
            .filter(|behind| self.is_late(**behind))
            .count();
        metrics.set_gauge(Gauge::LoopsLate, u64::try_from(late).unwrap_or(u64::MAX));
    }

    fn is_late(&self, behind_ms: u64) -> bool {
        behind_ms > self.deadline_ms
    }

    /// Loops that are late now and were not, and those that were late and are not now.
    fn news(&self, behind: &Behind, was_late: &mut [bool]) -> Vec<News> {
        let mut news = Vec::new();
        let all = Watched::ALL.into_iter().zip(behind);
        for ((watched, behind_ms), was_late) in all.zip(was_late) {
            let is_late = self.is_late(*behind_ms);
            match (*was_late, is_late) {
                (false, true) => news.push(News::Late(watched, *behind_ms)),
                (true, false) => news.push(News::GoesOn(watched)),
                (false, false) | (true, true) => {}
            }
            *was_late = is_late;
        }
        news
    }

    /// Looks again and again and logs what is new.
    pub(super) async fn run(&self, look: impl Fn() -> Behind) {
        let mut was_late = [false; Watched::ALL.len()];
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for news in self.news(&look(), &mut was_late) {
                news.log();
            }
        }
    }
}

/// What is new about a loop.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Late(Watched, u64),
    GoesOn(Watched),
}

impl News {
    fn log(&self) {
        match self {
            Self::Late(watched, behind_ms) => tracing::error!(
                loop.work = watched.work(),
                loop.behind_ms = behind_ms,
                "a loop of ours is late: if it does not go on by itself, look at the disk and restart the server"
            ),
            Self::GoesOn(watched) => {
                tracing::info!(loop.work = watched.work(), "a loop that was late goes on");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);

    #[test]
    fn a_late_loop_is_told_once_and_so_is_its_going_on() {
        let watch = Watch::new(Clock::manual(START), 1_000, START);
        let mut was_late = [false; 5];
        let mut told = |behind: Behind| watch.news(&behind, &mut was_late);
        assert_eq!(told([0, 1_000, 0, 0, 0]), []);
        let late = News::Late(Watched::Writer, 1_001);
        assert_eq!(told([0, 1_001, 0, 0, 0]), [late]);
        assert_eq!(told([0, 9_000, 0, 0, 0]), []);
        let news = [
            News::Late(Watched::Timer, 2_000),
            News::GoesOn(Watched::Writer),
        ];
        assert_eq!(told([2_000, 0, 0, 0, 0]), news);
    }

    #[test]
    fn a_turn_is_behind_from_the_time_that_it_was_due() {
        let turn = Turn::at(START);
        assert_eq!(turn.behind_ms(START), 0);
        assert_eq!(turn.behind_ms(START.plus_ms(70)), 70);
        turn.next(START.plus_ms(100));
        assert_eq!(turn.behind_ms(START.plus_ms(70)), 0);
        assert_eq!(turn.behind_ms(START.plus_ms(101)), 1);
    }

    #[test]
    fn metrics_say_up_to_when_each_loop_is_done() {
        let clock = Clock::manual(START);
        let watch = Watch::new(clock.clone(), 1_000, START.plus_ms(10_000));
        clock.advance(Duration::from_millis(5_000));
        let metrics = Metrics::default();
        watch.show(&[0, 30, 0, 5_000, 0], &metrics);
        let text = metrics.render();
        for line in [
            "pelton_timer_last_progress_timestamp_ms 1005000",
            "pelton_writer_last_progress_timestamp_ms 1004970",
            "pelton_purge_last_progress_timestamp_ms 1000000",
            "pelton_loops_late 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }
}
