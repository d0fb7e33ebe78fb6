//! Open-loop load: calls are made at times that were set beforehand, however slow the answers are.
//!
//! A client that waits for an answer before it sends the next call is slowed down by the very server that it
//! measures, and counts one slow call where its users would have met many. Here a call's time begins when it was
//! due. One that is due while all connections are busy waits for the next that is free, and that waiting counts.
//!
//! Calls of many users who know nothing of each other come in bursts and with gaps (a Poisson process), and a
//! server's tail is made by the bursts; evenly spaced calls would spare it them, and could fall into step with
//! whatever a server does in a rhythm. So that is how a rate is kept, except where a schedule is what is asked for.
//! The dice are seeded: both sides of a comparison get the very same schedule.
//!
//! One free connection at a time holds the schedule and sleeps until the next call is due, on a timer that is as
//! fine as the kernel's; tokio's own are too coarse by far. So there is no dispatcher that could fall behind, and a call
//! costs the generator little more than its system calls.
//!
//! **Invariant:** every call of the schedule is made, its answer checked as in [`crate::load`], and its time counted
//! from when it was due; how late the generator itself was is told beside it.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::task::{JoinSet, LocalSet};

use crate::http::Connection;
use crate::load::{CHECK_EVERY, Load, Served};

/// Time after the last call is due within which all answers must be there.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// When calls are due, counted from the begin, ascending.
pub(crate) struct Schedule(Vec<Duration>);

impl Schedule {
    /// Calls of users who know nothing of each other, so many a second in the mean; the same for the same seed.
    pub(crate) fn poisson(per_second: f64, time: Duration, seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut due_s, mut all) = (0.0, Vec::new());
        loop {
            // In (0, 1], so that the logarithm is finite.
            let chance = 1.0 - dice.random::<f64>();
            due_s -= chance.ln() / per_second;
            let due = Duration::from_secs_f64(due_s);
            if due >= time {
                return Self(all);
            }
            all.push(due);
        }
    }

    /// One call every so often.
    pub(crate) fn even(every: Duration, time: Duration) -> Self {
        let calls = (0_u32..).map(|call| every * call);
        Self(calls.take_while(|due| *due < time).collect())
    }
}

/// A load to put on a server at set times.
pub(crate) struct OpenLoad {
    /// Its request is what every call sends, unless there are more.
    pub(crate) load: Load,
    /// Requests that take turns with the first one.
    pub(crate) more: Vec<Vec<u8>>,
    pub(crate) schedule: Schedule,
}

/// What came of an open-loop load.
pub(crate) struct Open {
    /// Times of the calls, from when each was due.
    pub(crate) served: Served,
    /// How late calls were sent though a connection was free: the generator's own fault.
    pub(crate) late: Served,
    /// Share of the calls that were due while no connection was free.
    pub(crate) waited: f64,
    /// What the generator's thread took of a core: near 1 it is the generator that is slow, whatever else is said.
    pub(crate) busy: f64,
}

/// What the connections share.
struct Shared {
    load: Load,
    more: Vec<Vec<u8>>,
    began: Instant,
    /// Held by the connection that makes the next call.
    turns: Mutex<Turns>,
}

/// The calls that have yet to be made.
struct Turns {
    schedule: std::vec::IntoIter<Duration>,
    made: usize,
    alarm: Alarm,
}

/// Times of one call, in µs.
struct Times {
    latency_us: u32,
    late_us: u32,
    waited: bool,
}

/// Puts a load on its server. Connections are opened before the first call is due.
pub(crate) async fn run(open: OpenLoad) -> Result<Open> {
    let OpenLoad {
        load,
        more,
        schedule: Schedule(schedule),
    } = open;
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Connection::open(load.address).await?);
    }
    let calls = schedule.len();
    let last = schedule.last().copied().unwrap_or_default();
    let shared = Rc::new(Shared {
        load,
        more,
        began: Instant::now(),
        turns: Mutex::new(Turns {
            schedule: schedule.into_iter(),
            made: 0,
            alarm: Alarm::new()?,
        }),
    });
    let mut times = Vec::with_capacity(calls);
    let cpu_before = thread_cpu();
    let tasks = LocalSet::new();
    let all_answered = tasks.run_until(async {
        let mut clients = JoinSet::new();
        for connection in connections {
            clients.spawn_local(in_turns(connection, Rc::clone(&shared)));
        }
        while let Some(served) = clients.join_next().await {
            times.extend(served.context("a client panicked")??);
        }
        anyhow::Ok(())
    });
    tokio::time::timeout(last + ANSWERED_WITHIN, all_answered)
        .await
        .context(
            "the server does not keep up: calls wait for answers long after the last was due",
        )??;
    let busy = (thread_cpu() - cpu_before).div_duration_f64(shared.began.elapsed());
    ensure!(
        times.len() == calls,
        "{} of {calls} calls were made",
        times.len()
    );
    let waited = times.iter().filter(|times| times.waited).count();
    Ok(Open {
        served: times.iter().map(|times| times.latency_us).collect(),
        late: times.iter().map(|times| times.late_us).collect(),
        waited: share(waited, calls),
        busy,
    })
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "no run makes 2^52 calls")]
fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}

/// Makes calls on one connection, each when it is this one's turn.
async fn in_turns(mut connection: Connection, shared: Rc<Shared>) -> Result<Vec<Times>> {
    let load = &shared.load;
    let mut all: Vec<Times> = Vec::new();
    loop {
        let free = Instant::now();
        let (due, request) = {
            let mut turns = shared.turns.lock().await;
            let Some(due) = turns.schedule.next() else {
                return Ok(all);
            };
            let due = shared.began + due;
            turns.alarm.sleep_until(due).await?;
            let number = turns.made;
            turns.made += 1;
            (due, request(&shared, number))
        };
        let sent = Instant::now();
        let answer = connection.call(request).await?;
        let latency = due.elapsed();
        answer.expect(&[load.status])?;
        if all.len().is_multiple_of(CHECK_EVERY) {
            (load.check)(&answer)?;
        }
        all.push(Times {
            latency_us: microseconds(latency),
            late_us: microseconds(sent - due.max(free)),
            waited: free > due,
        });
    }
}

/// What the call of this number sends.
fn request(shared: &Shared, number: usize) -> &[u8] {
    match number % (shared.more.len() + 1) {
        0 => &shared.load.request,
        other => &shared.more[other - 1],
    }
}

fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// A timer of the kernel's own resolution.
struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[expect(unsafe_code, reason = "so tokio asks who registers a descriptor")]
    fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)
            .context("there is no timer")?;
        // SAFETY: an owned descriptor is the same one, and open, for as long as tokio has it.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self(timer))
    }

    /// Sleeps until then; not at all if that is past.
    async fn sleep_until(&self, due: Instant) -> io::Result<()> {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                },
            };
            rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            // What it counted is never read: setting it again forgets that, and its next end is a new event.
            self.0.readable().await?.clear_ready();
        }
    }
}
