//! Watches one attempt: counts its time and cuts it when its time is up or somebody says stop.
//!
//! A guest that computes meets the watch at every epoch ([`Watch::tick`]) and gives its thread to others
//! there; one that goes on for longer is heavy, and stands in a line ([`Lane`]) for each further turn. One that
//! waits, in a host call or in the line, is raced with an alarm, which is armed only then: most calls end before
//! they wait for anything, and need no timer.
//!
//! **Invariant:** whatever the guest does, [`Watch::live`] returns within two epochs of the cut; only a single
//! bulk instruction (`memory.fill` over all of a large memory) is finished first, for wasm cannot be
//! interrupted inside one.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;
use wasmtime::UpdateDeadline;

use super::lane::Lane;
use crate::net::Client;

/// Epochs that a guest sees before it is heavy. It has computed for two of them then: what crosses the edge of
/// one by chance must not wait behind those that compute for seconds.
const LIGHT_TICKS: u32 = 3;

/// Why a guest was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// From outside.
    Stopped,
    /// The attempt's time limit passed.
    TimedOut,
    /// The guest used more CPU time than its spec allows.
    CpuSpent,
}

/// What holds a guest from the outside, and what it may hold on to there.
pub(super) struct Reins<'a> {
    /// Ends it.
    pub(super) stop: &'a CancellationToken,
    /// Where it stands in line once it is heavy.
    pub(super) lane: &'a Arc<Lane>,
    /// What it calls out through.
    pub(super) client: &'a Client,
}

/// The watch over one attempt.
pub(super) struct Watch {
    deadline: Instant,
    stop: CancellationToken,
    lane: Arc<Lane>,
    /// Epochs that the guest has seen.
    ticks: AtomicU32,
    cpu_limit: Option<Duration>,
    stopwatch: Stopwatch,
    /// The guest gave up its thread at an epoch and goes on by itself.
    yielded: AtomicBool,
    cut: OnceLock<Cut>,
}

impl Watch {
    /// A watch that begins now.
    pub(super) fn new(
        time_limit: Duration,
        cpu_limit: Option<Duration>,
        reins: &Reins<'_>,
    ) -> Self {
        let now = Instant::now();
        // Only a limit is worth a system call at each poll. Without one the wall clock is near enough.
        let clock = match cpu_limit {
            Some(_) => Clock::ThreadCpu,
            None => Clock::Wall(now),
        };
        Self {
            // A limit beyond the end of time is none; a century is as good.
            deadline: now
                .checked_add(time_limit)
                .unwrap_or(now + Duration::from_secs(3_155_760_000)),
            stop: reins.stop.clone(),
            lane: Arc::clone(reins.lane),
            ticks: AtomicU32::new(0),
            cpu_limit,
            stopwatch: Stopwatch::new(clock),
            yielded: AtomicBool::new(false),
            cut: OnceLock::new(),
        }
    }

    /// What an epoch does to the guest: cut it, or let others run and go on. The first one only counts: many guests end
    /// within a millisecond of it, and one that comes back to its thread after all others finds the caches cold.
    pub(super) fn tick(&self) -> UpdateDeadline {
        if let Some(cut) = self.due() {
            let _ = self.cut.set(cut);
            return UpdateDeadline::Interrupt;
        }
        if self.ticks.fetch_add(1, Ordering::Relaxed) == 0 {
            return UpdateDeadline::Continue(1);
        }
        self.yielded.store(true, Ordering::Relaxed);
        // tokio's own yield: it goes to the back of the queue, where wasmtime's would come back at once.
        UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
    }

    /// A watch without an end of its own over an instance whose calls each have theirs. It counts CPU time if that is
    /// limited for them.
    pub(super) fn endless(counts_cpu: bool, reins: &Reins<'_>) -> Self {
        let cpu_limit = counts_cpu.then_some(Duration::MAX);
        Self::new(Duration::MAX, cpu_limit, reins)
    }

    /// The guest waits for something: whatever it does next, it does not go on computing.
    pub(super) fn rest(&self) {
        self.ticks.store(0, Ordering::Relaxed);
    }

    /// Whether the guest only gave others a turn and waits for nothing.
    pub(super) fn has_yielded(&self) -> bool {
        self.yielded.load(Ordering::Relaxed)
    }

    fn due(&self) -> Option<Cut> {
        if self.stop.is_cancelled() {
            Some(Cut::Stopped)
        } else if Instant::now() >= self.deadline {
            Some(Cut::TimedOut)
        } else {
            let limit = self.cpu_limit?;
            (self.stopwatch.total() >= limit).then_some(Cut::CpuSpent)
        }
    }

    /// Runs the guest to its end or to a cut, counting its time. The guest is pinned where it is made: each call of an
    /// async function that takes a future by value would hold room for it twice.
    ///
    /// # Errors
    /// [`Cut`] says why the guest was ended; its future is to be dropped.
    pub(super) async fn live<G: Future>(&self, mut guest: Pin<&mut G>) -> Result<G::Output, Cut> {
        let mut in_line = pin!(None);
        // Unconstrained: a guest that has used up its task's budget must not silence its alarm.
        let mut alarm = pin!(unconstrained(self.alarm()));
        poll_fn(|cx| {
            loop {
                let mut turn = None;
                if self.is_heavy() {
                    if in_line.is_none() {
                        in_line.set(Some(self.lane.turn()));
                    }
                    if let Some(place) = in_line.as_mut().as_pin_mut() {
                        match place.poll(cx) {
                            Poll::Ready(mine) => turn = Some(mine),
                            Poll::Pending => return self.poll_cut(alarm.as_mut(), cx).map(Err),
                        }
                    }
                    in_line.set(None);
                }
                self.stopwatch.start();
                let polled = guest.as_mut().poll(cx);
                self.stopwatch.stop();
                // Whatever the guest waits for now, it does so without keeping others from running.
                drop(turn);
                if let Poll::Ready(output) = polled {
                    return Poll::Ready(self.cut.get().map_or(Ok(output), |cut| Err(*cut)));
                }
                if !self.yielded.swap(false, Ordering::Relaxed) {
                    return self.poll_cut(alarm.as_mut(), cx).map(Err);
                }
                if !self.is_heavy() {
                    return Poll::Pending;
                }
                // Into the line at once: from the queue of the runtime it would come too late to make one.
            }
        })
        .await
    }

    /// Whether the guest has computed for long.
    fn is_heavy(&self) -> bool {
        self.ticks.load(Ordering::Relaxed) >= LIGHT_TICKS
    }

    /// Whether a guest that waits has to be cut; arms the alarm.
    fn poll_cut(
        &self,
        alarm: Pin<&mut impl Future<Output = Cut>>,
        cx: &mut Context<'_>,
    ) -> Poll<Cut> {
        match self.due() {
            Some(cut) => Poll::Ready(cut),
            None => alarm.poll(cx),
        }
    }

    async fn alarm(&self) -> Cut {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Cut::Stopped,
            () = tokio::time::sleep_until(self.deadline.into()) => Cut::TimedOut,
        }
    }

    /// Time spent inside the guest: CPU time where it is limited, else wall time while it was polled.
    pub(super) fn cpu(&self) -> Duration {
        self.stopwatch.total()
    }
}

/// What a stopwatch reads.
enum Clock {
    /// Time since then.
    Wall(Instant),
    /// CPU time of the current thread; a poll never changes its thread.
    ThreadCpu,
}

impl Clock {
    fn now_ns(&self) -> u64 {
        let now = match self {
            Self::Wall(origin) => origin.elapsed(),
            Self::ThreadCpu => {
                let time = clock_gettime(ClockId::ThreadCPUTime);
                Duration::try_from(time).unwrap_or_default()
            }
        };
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Adds up the time between its starts and stops; read from the outside and from within the guest, which
/// are never two threads at once.
struct Stopwatch {
    clock: Clock,
    /// Sum of the finished polls, in ns.
    spent: AtomicU64,
    /// The clock at the start of the current poll, in ns; none outside.
    since: AtomicU64,
}

/// No poll is going on.
const STANDS: u64 = u64::MAX;

impl Stopwatch {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            spent: AtomicU64::new(0),
            since: AtomicU64::new(STANDS),
        }
    }

    fn start(&self) {
        self.since.store(self.clock.now_ns(), Ordering::Relaxed);
    }

    fn stop(&self) {
        let current = self.current_ns();
        self.since.store(STANDS, Ordering::Relaxed);
        self.spent.fetch_add(current, Ordering::Relaxed);
    }

    fn current_ns(&self) -> u64 {
        match self.since.load(Ordering::Relaxed) {
            STANDS => 0,
            since => self.clock.now_ns().saturating_sub(since),
        }
    }

    fn total(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed) + self.current_ns())
    }
}

#[cfg(test)]
mod tests;
