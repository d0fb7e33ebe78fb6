//! Whether a call is taken in, and when a refused one may come back.
//!
//! A synchronous call that no slot takes at once is judged by how long it would wait for one:
//!
//! ```text
//! estimate = max( before × m / slots,                     its own function
//!                 plane_before × M / plane_slots )        the plane, while all its slots are taken
//! ```
//!
//! - `before`: turns of its function that come before its own (callers who wait, and the turns of queued work
//!   in between); `slots`: what the function may run at once. `plane_before` adds the turns of the other
//!   functions that wait for a slot of the plane's.
//! - `m`, `M`: how long a slot is held, over the latest runs of the function and of the plane; loading code
//!   is left out, since the next run does not do it again.
//!
//! The estimate comes from what the slots can do, not from how many calls came lately: after a quiet time it is
//! as right as before. Each further run makes the ones before count [`RUN_KEPT`] as much; each
//! [`IDLE_HALF_LIFE`] in which nothing of the function ran makes them count half; and fewer than [`RUNS_MIN`]
//! count as if the missing ones had taken no time. So no history, and history of long ago, refuse nobody.
//! Where there is history, runs that take longer than it says count too while they run: a function that hangs
//! is known to hang before its runs have ended. A call that would be the next one is never refused by its
//! function's part: the run that it waits for says how it is now.
//!
//! **Invariant:** pure but for [`Scheduler`]'s methods, which take the one lock of their caller; a call that a
//! free slot would take is never refused by an estimate.

use std::time::Duration;

use tokio::time::Instant;

use super::call::{Crowded, Rated};
use super::decide::Release;
use super::queue::{Class, Crowd, Full, Item, Lane};
use super::rate::{Limited, Limiter};
use super::runner::class_of;
use super::state::State;
use super::{CallError, Scheduler};
use crate::model::{ExecutionId, Fence, FunctionId, RuntimeConfig, RuntimeRevision};
use crate::observe::RejectReason;
use crate::registry::Function;

/// How much of its weight a run keeps with each further one: the latest twenty make the picture.
const RUN_KEPT: f64 = 0.95;
/// Runs that make a picture; fewer count as if the missing ones had taken no time.
const RUNS_MIN: f64 = 4.0;
/// Time without any run in which history loses half of its weight.
const IDLE_HALF_LIFE: Duration = Duration::from_secs(30);
/// A shorter idle time changes nothing worth computing.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// The longest time that a refused caller is told to stay away, in s.
const RETRY_AFTER_S_MAX: u64 = 3600;

/// How long runs hold their slots. Times are told as what has passed since one moment, the same for all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RunTimes {
    /// Weighted sum of runs that have ended, in s.
    sum_s: f64,
    weight: f64,
    /// Runs under way, and the sum of the times at which they began.
    running: u32,
    began: Duration,
    /// When the last one ended.
    ended: Duration,
}

impl RunTimes {
    /// A run begins.
    fn begin(&mut self, now: Duration) {
        if self.running == 0 {
            self.fade(now.saturating_sub(self.ended));
        }
        self.running += 1;
        self.began = self.began.saturating_add(now);
    }

    /// A run that began then ends; it held its slot for so long, where that says anything about others.
    fn end(&mut self, began: Duration, held: Option<Duration>, now: Duration) {
        self.running = self.running.saturating_sub(1);
        self.began = self.began.saturating_sub(began);
        self.ended = now;
        if let Some(held) = held {
            self.sum_s = self.sum_s * RUN_KEPT + held.as_secs_f64();
            self.weight = self.weight * RUN_KEPT + 1.0;
        }
    }

    fn fade(&mut self, idle: Duration) {
        if idle >= IDLE_MIN {
            let kept = 0.5_f64.powf(idle.as_secs_f64() / IDLE_HALF_LIFE.as_secs_f64());
            self.sum_s *= kept;
            self.weight *= kept;
        }
    }

    /// Seconds that a run is expected to hold its slot.
    fn mean_s(&self, now: Duration) -> f64 {
        let ended = self.sum_s / self.weight.max(RUNS_MIN);
        // Without history a run under way may be loading code, which the next one does not.
        if self.running == 0 || self.weight < RUNS_MIN {
            return ended;
        }
        let running = f64::from(self.running);
        let so_far = now.as_secs_f64() - self.began.as_secs_f64() / running;
        ended.max(so_far)
    }
}

/// See the module.
fn estimate(crowd: Crowd, function: &RunTimes, plane: &RunTimes, now: Duration) -> Duration {
    let seconds = |before: usize, runs: &RunTimes, slots: usize| {
        count(before) * runs.mean_s(now) / count(slots.max(1))
    };
    let own = seconds(crowd.before, function, crowd.slots);
    let shared = crowd
        .plane
        .map_or(0.0, |(before, slots)| seconds(before, plane, slots));
    Duration::try_from_secs_f64(own.max(shared)).unwrap_or(Duration::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate of numbers far below 2^52"
)]
fn count(number: usize) -> f64 {
    number as f64
}

/// Whole seconds, none of them begun in vain, within what a caller may be told.
fn retry_after_s(wait: Duration, least_s: u64) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.clamp(least_s.max(1), RETRY_AFTER_S_MAX)
}

fn as_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// What admission knows of the whole plane.
#[derive(Debug)]
pub(super) struct Admission {
    /// What the flags say.
    pub(super) start: RuntimeConfig,
    /// What was changed since.
    pub(super) revision: RuntimeRevision,
    /// Both together.
    pub(super) config: RuntimeConfig,
    rate: Limiter,
    /// What run times are told from.
    epoch: Instant,
    runs: [RunTimes; 2],
}

impl Admission {
    pub(super) fn new(start: RuntimeConfig, revision: RuntimeRevision) -> Self {
        let config = start.with(&revision.overrides);
        Self {
            start,
            revision,
            config,
            rate: Limiter::per_second(config.rate_max_per_second),
            epoch: Instant::now(),
            runs: Default::default(),
        }
    }

    fn time(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.epoch)
    }

    /// Takes a newer revision; it acts at once.
    pub(super) fn change(&mut self, revision: RuntimeRevision) {
        if revision.number > self.revision.number {
            self.revision = revision;
            self.config = self.start.with(&revision.overrides);
            self.rate.update_rate(self.config.rate_max_per_second);
        }
    }
}

/// How a new execution comes in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    /// With a caller, who waits for so long.
    Caller(Duration),
    /// Queued.
    Queued,
}

impl Entry {
    pub(super) fn lane(self) -> Lane {
        match self {
            Self::Caller(_) => Lane::Caller,
            Self::Queued => Lane::Queued,
        }
    }
}

/// How long a call may wait in its queue before it is given back.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimit {
    pub(super) until: Instant,
    pub(super) limit: Duration,
}

impl State {
    /// Takes a slot for a claim.
    pub(super) fn take_slot(
        &mut self,
        function: FunctionId,
        item: Item,
        fence: Fence,
        now: Instant,
    ) {
        let now = self.admission.time(now);
        self.admission.runs[item.class as usize].begin(now);
        if let Some(known) = self.functions.get_mut(&function) {
            known.runs.begin(now);
        }
        self.queues.claim(function, item, fence);
    }

    /// Frees a claim's slot, and remembers how long it was held.
    pub(super) fn free_slot(&mut self, release: Release, now: Instant) {
        let Some((function, class)) = self.queues.release(release.fence, now) else {
            return;
        };
        let (began, now) = (self.admission.time(release.began), self.admission.time(now));
        self.admission.runs[class as usize].end(began, release.held, now);
        if let Some(known) = self.functions.get_mut(&function) {
            known.runs.end(began, release.held, now);
        }
    }
}

impl Scheduler {
    /// Asks a function's rate, then the plane's: what one function has too many of is not spent from what all
    /// of them have.
    pub(super) fn check_rates(&self, state: &State, function: &Function) -> Result<(), CallError> {
        let Some(known) = state.functions.get(&function.id) else {
            return Ok(());
        };
        let refused = |rated: Rated, limited: Limited| {
            known.metrics.rejected(RejectReason::Rate);
            CallError::RateLimited {
                rated,
                per_second: limited.per_second,
                retry_after_s: limited.retry_after_s.max(1),
            }
        };
        let own = known.limiter.check();
        own.map_err(|limited| refused(Rated::Function(function.name.clone()), limited))?;
        let all = state.admission.rate.check();
        all.map_err(|limited| refused(Rated::Plane, limited))
    }

    /// Whether there is room for a new execution and, where somebody waits, in time.
    pub(super) fn check_entry(
        &self,
        state: &State,
        function: &Function,
        entry: Entry,
    ) -> Result<(), CallError> {
        let Err((crowded, wait)) = self.judge_entry(state, function, entry) else {
            return Ok(());
        };
        let least_s = match entry {
            Entry::Caller(_) => u64::from(state.admission.config.sync_queue_retry_after_s),
            Entry::Queued => 1,
        };
        if let Some(known) = state.functions.get(&function.id) {
            known.metrics.rejected(reason_of(&crowded));
            if entry.lane() == Lane::Caller {
                known.metrics.sync_queue().rejected();
            }
        }
        Err(CallError::QueueFull {
            crowded,
            retry_after_s: retry_after_s(wait, least_s),
        })
    }

    /// Why there is no room, and after what time there may be.
    fn judge_entry(
        &self,
        state: &State,
        function: &Function,
        entry: Entry,
    ) -> Result<(), (Crowded, Duration)> {
        let class = class_of(&function.active.code);
        if state.queues.room(function.id, entry.lane()) == Err(Full) {
            let crowded = Crowded::Queue {
                function: function.name.clone(),
                queue_size: function.settings.queue_size,
            };
            return Err((crowded, turn_of(state, function.id, class)));
        }
        let config = &state.admission.config;
        let Entry::Caller(wait) = entry else {
            return Ok(());
        };
        let by_hand = self.inner.options.manual;
        let crowd = state.queues.crowd(function.id, class);
        if !config.sync_queue_enabled || (crowd.is_none() && !by_hand) {
            return Ok(());
        }
        if state.queues.waiting_callers_all() >= config.sync_queue_max_depth as usize {
            let callers_max = config.sync_queue_max_depth;
            return Err((
                Crowded::Callers { callers_max },
                turn_of_plane(state, class),
            ));
        }
        // By hand, nobody knows when work moves.
        let Some(crowd) = crowd.filter(|_| config.sync_queue_admission_enabled && !by_hand) else {
            return Ok(());
        };
        let estimated = estimate_of(state, function.id, class, crowd);
        let limit = config.sync_queue_max_estimated_wait.min(wait);
        if estimated <= limit {
            return Ok(());
        }
        let crowded = Crowded::Estimate {
            function: function.name.clone(),
            estimated_ms: as_ms(estimated),
            limit_ms: as_ms(limit),
        };
        Err((crowded, estimated - limit))
    }

    /// Until when a call without a key that came at `accepted` may wait in its queue, if that comes before its own
    /// time is over.
    pub(super) fn queue_limit(
        &self,
        state: &State,
        accepted: Instant,
        until: Instant,
    ) -> Option<QueueLimit> {
        let config = &state.admission.config;
        let limit = config.sync_queue_max_queue_wait;
        let ends = accepted.checked_add(limit)?;
        (config.sync_queue_enabled && ends < until).then_some(QueueLimit { until: ends, limit })
    }

    /// What a caller is told whose call has waited too long and never began.
    pub(super) fn given_back(
        &self,
        function: &Function,
        execution: ExecutionId,
        limit: Duration,
    ) -> CallError {
        let state = self.lock();
        if let Some(known) = state.functions.get(&function.id) {
            known.metrics.rejected(RejectReason::Timeout);
            known.metrics.sync_queue().timed_out();
        }
        let class = class_of(&function.active.code);
        let crowd = state.queues.crowd(function.id, class);
        let wait = crowd.map_or(Duration::ZERO, |crowd| {
            let estimated = estimate_of(&state, function.id, class, crowd);
            estimated.saturating_sub(limit)
        });
        let least_s = u64::from(state.admission.config.sync_queue_retry_after_s);
        CallError::QueueFull {
            crowded: Crowded::Waited {
                function: function.name.clone(),
                limit_ms: as_ms(limit),
                execution,
            },
            retry_after_s: retry_after_s(wait, least_s),
        }
    }
}

fn reason_of(crowded: &Crowded) -> RejectReason {
    match crowded {
        Crowded::Queue { .. } | Crowded::Callers { .. } => RejectReason::Depth,
        Crowded::Estimate { .. } => RejectReason::EstimatedWait,
        Crowded::Waited { .. } => RejectReason::Timeout,
    }
}

fn estimate_of(state: &State, function: FunctionId, class: Class, crowd: Crowd) -> Duration {
    let unknown = RunTimes::default();
    let known = state.functions.get(&function);
    let own = known.map_or(&unknown, |known| &known.runs);
    let now = state.admission.time(Instant::now());
    estimate(crowd, own, &state.admission.runs[class as usize], now)
}

/// How long one turn of a function takes: then the next place of its queue is free.
fn turn_of(state: &State, function: FunctionId, class: Class) -> Duration {
    let Some(crowd) = state.queues.crowd(function, class) else {
        return Duration::ZERO;
    };
    let turns = crowd.before + 1;
    let one = Crowd {
        before: 1,
        slots: crowd.slots,
        plane: crowd.plane.map(|(all, slots)| (1 + all / turns, slots)),
    };
    estimate_of(state, function, class, one)
}

/// How long one turn of the plane takes.
fn turn_of_plane(state: &State, class: Class) -> Duration {
    let running = state.queues.running_in(class);
    let one = Crowd {
        before: 0,
        slots: 1,
        plane: Some((1, running)),
    };
    let unknown = RunTimes::default();
    let now = state.admission.time(Instant::now());
    estimate(one, &unknown, &state.admission.runs[class as usize], now)
}

#[cfg(test)]
impl RunTimes {
    /// How many runs it believes to be under way.
    pub(super) fn running(&self) -> usize {
        self.running as usize
    }
}

#[cfg(test)]
impl Admission {
    /// How many runs of a class it believes to be under way.
    pub(super) fn running_in(&self, class: Class) -> usize {
        self.runs[class as usize].running()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    /// So many runs of this length, the last of which ends now.
    fn ran(runs: &mut RunTimes, times: u32, ms: u64) {
        for _ in 0..times {
            let held = Duration::from_millis(ms);
            let began = NOW - held;
            runs.begin(began);
            runs.end(began, Some(held), NOW);
        }
    }

    fn mean_ms_at(runs: &RunTimes, now: Duration) -> u64 {
        as_ms(Duration::from_secs_f64(runs.mean_s(now)) + Duration::from_micros(1))
    }

    fn mean_ms(runs: &RunTimes) -> u64 {
        mean_ms_at(runs, NOW)
    }

    fn own(before: usize, slots: usize) -> Crowd {
        Crowd {
            before,
            slots,
            plane: None,
        }
    }

    #[test]
    fn few_runs_say_little_and_many_say_all() {
        let mut runs = RunTimes::default();
        assert_eq!(mean_ms(&runs), 0);
        ran(&mut runs, 1, 1_000);
        assert_eq!(mean_ms(&runs), 250);
        ran(&mut runs, 1, 1_000);
        assert_eq!(mean_ms(&runs), 487);
        ran(&mut runs, 8, 1_000);
        assert_eq!(mean_ms(&runs), 1_000);
        // The function has become faster: soon that is what counts.
        ran(&mut runs, 60, 10);
        assert!(mean_ms(&runs) < 60, "{}", mean_ms(&runs));
    }

    #[test]
    fn an_idle_time_takes_the_weight_from_what_was_before() {
        let mut runs = RunTimes::default();
        ran(&mut runs, 100, 1_000);
        let after_idle = |seconds: u64| {
            let mut later = runs;
            let now = NOW + Duration::from_secs(seconds);
            later.begin(now);
            mean_ms_at(&later, now)
        };
        assert_eq!(after_idle(30), 1_000);
        let two_minutes = after_idle(120);
        assert!((200..400).contains(&two_minutes), "{two_minutes}");
        assert!(after_idle(600) < 1);
        // While something runs nothing fades, however long it takes.
        let mut busy = runs;
        busy.begin(NOW);
        busy.begin(NOW + Duration::from_secs(3_600));
        assert!(busy.weight > 19.0);
    }

    #[test]
    fn runs_that_hang_are_known_before_they_end() {
        let mut runs = RunTimes::default();
        let minute = Duration::from_secs(60);
        // Without history it may be loading code.
        runs.begin(NOW);
        assert_eq!(mean_ms_at(&runs, NOW + minute), 0);
        runs.end(NOW, None, NOW);
        ran(&mut runs, 20, 10);
        for _ in 0..2 {
            runs.begin(NOW);
        }
        assert_eq!(mean_ms(&runs), 10);
        assert_eq!(mean_ms_at(&runs, NOW + minute), 60_000);
        // One of them is replaced by one that is quick so far.
        let now = NOW + minute;
        runs.end(NOW, None, now);
        runs.begin(now);
        assert_eq!(mean_ms_at(&runs, now), 30_000);
        runs.end(NOW, None, now);
        runs.end(now, None, now);
        assert_eq!((runs.running, runs.began), (0, Duration::ZERO));
    }

    #[test]
    fn the_estimate_is_what_slots_and_run_times_make_of_the_queue() {
        let (mut function, mut plane) = (RunTimes::default(), RunTimes::default());
        ran(&mut function, 20, 100);
        ran(&mut plane, 20, 500);
        let ms = |crowd| as_ms(estimate(crowd, &function, &plane, NOW) + Duration::from_micros(1));
        assert_eq!(ms(own(0, 1)), 0);
        assert_eq!(ms(own(7, 1)), 700);
        assert_eq!(ms(own(7, 2)), 350);
        let full = |before| Crowd {
            plane: Some((before, 10)),
            ..own(7, 2)
        };
        assert_eq!(ms(full(1)), 350, "the longer of the two counts");
        assert_eq!(ms(full(40)), 2_000);
        let unknown = RunTimes::default();
        assert_eq!(
            estimate(own(1_000_000, 1), &unknown, &unknown, NOW),
            Duration::ZERO
        );
    }

    #[test]
    fn a_refused_caller_is_told_whole_seconds() {
        let after = |ms, least| retry_after_s(Duration::from_millis(ms), least);
        assert_eq!(after(0, 0), 1);
        assert_eq!(after(1, 2), 2);
        assert_eq!(after(2_001, 2), 3);
        assert_eq!(after(10_000_000, 2), 3_600);
    }
}
