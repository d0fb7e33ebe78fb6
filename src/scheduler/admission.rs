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
//! A call that would be the next one is never refused by its function's part: the run that it waits for says
//! how it is now.
//!
//! **Invariant:** pure but for [`Scheduler`]'s methods, which take the one lock of their caller; a call that a
//! free slot would take is never refused by an estimate.

use std::time::Duration;

use tokio::time::Instant;

use super::call::{Crowded, Rated};
use super::queue::{Class, Crowd, Full, Lane};
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

/// How long runs hold their slots.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RunTimes {
    /// Weighted sum, in s.
    sum_s: f64,
    weight: f64,
    /// Since when nothing runs.
    idle_since: Option<Instant>,
}

impl RunTimes {
    /// A run begins.
    pub(super) fn begin(&mut self, now: Instant) {
        let Some(since) = self.idle_since.take() else {
            return;
        };
        let idle = now.saturating_duration_since(since);
        if idle >= IDLE_MIN {
            let kept = 0.5_f64.powf(idle.as_secs_f64() / IDLE_HALF_LIFE.as_secs_f64());
            self.sum_s *= kept;
            self.weight *= kept;
        }
    }

    /// A run has held its slot for so long.
    pub(super) fn record(&mut self, held: Duration) {
        self.sum_s = self.sum_s * RUN_KEPT + held.as_secs_f64();
        self.weight = self.weight * RUN_KEPT + 1.0;
    }

    /// Nothing runs any more.
    pub(super) fn rest(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }

    /// Seconds that a run is expected to hold its slot.
    fn mean_s(&self) -> f64 {
        self.sum_s / self.weight.max(RUNS_MIN)
    }
}

/// See the module.
fn estimate(crowd: Crowd, function: &RunTimes, plane: &RunTimes) -> Duration {
    let seconds = |before: usize, runs: &RunTimes, slots: usize| {
        count(before) * runs.mean_s() / count(slots.max(1))
    };
    let own = seconds(crowd.before, function, crowd.slots);
    let shared = crowd.plane.map_or(0.0, |(before, slots)| {
        seconds(before, plane, slots)
    });
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
            runs: Default::default(),
        }
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
        class: Class,
        fence: Fence,
        now: Instant,
    ) {
        if self.queues.running_in(class) == 0 {
            self.admission.runs[class as usize].begin(now);
        }
        if self.queues.running(function) == 0
            && let Some(known) = self.functions.get_mut(&function)
        {
            known.runs.begin(now);
        }
        self.queues.claim(function, class, fence);
        self.gauges(function);
    }

    /// Frees a claim's slot, and remembers how long the run held it, where it ran to an end.
    pub(super) fn free_slot(&mut self, fence: Fence, held: Option<Duration>, now: Instant) {
        let Some((function, class)) = self.queues.release(fence) else {
            return;
        };
        let rests = self.queues.running_in(class) == 0;
        note(&mut self.admission.runs[class as usize], held, rests.then_some(now));
        let rests = self.queues.running(function) == 0;
        if let Some(known) = self.functions.get_mut(&function) {
            note(&mut known.runs, held, rests.then_some(now));
        }
        self.gauges(function);
    }
}

fn note(runs: &mut RunTimes, held: Option<Duration>, rests: Option<Instant>) {
    if let Some(held) = held {
        runs.record(held);
    }
    if let Some(now) = rests {
        runs.rest(now);
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

    /// Promises a place to a new execution, if there is room for it and, where somebody waits, in time.
    pub(super) fn reserve(
        &self,
        state: &mut State,
        function: &Function,
        entry: Entry,
    ) -> Result<(), CallError> {
        self.ensure_function(state, function)?;
        let judged = self.judge_entry(state, function, entry);
        if let Err((crowded, wait)) = judged {
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
            return Err(CallError::QueueFull {
                crowded,
                retry_after_s: retry_after_s(wait, least_s),
            });
        }
        let reserved = state.queues.reserve(function.id, entry.lane());
        // There was room a moment ago, under the same lock.
        reserved.map_err(|Full| CallError::UnknownFunction(function.name.clone()))
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
            return Err((Crowded::Callers { callers_max }, turn_of_plane(state, class)));
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

    /// Until when a call without a key may wait in its queue, if that comes before its own time is over.
    pub(super) fn queue_limit(&self, state: &State, until: Instant) -> Option<QueueLimit> {
        let config = &state.admission.config;
        let limit = config.sync_queue_max_queue_wait;
        let ends = Instant::now().checked_add(limit)?;
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
    estimate(crowd, own, &state.admission.runs[class as usize])
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
    estimate(one, &unknown, &state.admission.runs[class as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(runs: &mut RunTimes, times: u32, ms: u64) {
        for _ in 0..times {
            runs.record(Duration::from_millis(ms));
        }
    }

    fn mean_ms(runs: &RunTimes) -> u64 {
        as_ms(Duration::from_secs_f64(runs.mean_s()) + Duration::from_micros(1))
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
        let start = Instant::now();
        let mut runs = RunTimes::default();
        let after_idle = |runs: &RunTimes, seconds: u64| {
            let mut later = *runs;
            later.rest(start);
            later.begin(start + Duration::from_secs(seconds));
            mean_ms(&later)
        };
        ran(&mut runs, 100, 1_000);
        assert_eq!(after_idle(&runs, 30), 1_000);
        let two_minutes = after_idle(&runs, 120);
        assert!((200..400).contains(&two_minutes), "{two_minutes}");
        assert!(after_idle(&runs, 600) < 1);
        // Without an idle time nothing fades, however long it runs.
        let mut busy = runs;
        busy.begin(start + Duration::from_secs(3_600));
        assert_eq!(mean_ms(&busy), 1_000);
    }

    #[test]
    fn the_estimate_is_what_slots_and_run_times_make_of_the_queue() {
        let (mut function, mut plane) = (RunTimes::default(), RunTimes::default());
        ran(&mut function, 20, 100);
        ran(&mut plane, 20, 500);
        let ms = |crowd| as_ms(estimate(crowd, &function, &plane) + Duration::from_micros(1));
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
            estimate(own(1_000_000, 1), &unknown, &unknown),
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
