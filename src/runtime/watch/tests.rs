//! Tests of the watch with guests that are futures of our own, so that turns can be counted.
//!
//! **Invariant:** what is compared are turns, never times.

#![expect(
    clippy::disallowed_methods,
    reason = "tasks of a test end with its runtime"
)]

use std::pin::pin;
use std::task::Poll;

use futures_util::poll;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

/// A limit that no test comes near unless it means to.
const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_host_call_that_is_always_ready_is_cut_too() {
    let capture = super::super::output::Capture::logs_only(0);
    let mut stream = capture.stream(crate::model::LogStream::Stderr);
    let watch = Guest::new(&Arc::default(), Duration::from_millis(5)).watch;
    let never_ends = async {
        loop {
            wasmtime_wasi::p2::Pollable::ready(&mut stream).await;
        }
    };
    assert_eq!(
        watch.live(pin!(never_ends)).await,
        Err::<(), _>(Cut::TimedOut)
    );
}

#[tokio::test]
async fn a_result_that_comes_with_the_cut_is_kept() {
    let guest = Guest::new(&Arc::default(), Duration::ZERO);
    let done = async {
        guest.stop.cancel();
        7
    };
    assert_eq!(guest.watch.live(pin!(done)).await, Ok(7));
}

/// A guest under watch, and how many turns it had.
#[derive(Clone)]
struct Guest {
    watch: Arc<Watch>,
    stop: CancellationToken,
    turns: Arc<AtomicU64>,
}

impl Guest {
    fn new(lane: &Arc<Lane>, time_limit: Duration) -> Self {
        let stop = CancellationToken::new();
        let reins = Reins {
            stop: &stop,
            lane,
            client: &Client::new(Default::default()),
        };
        Self {
            watch: Arc::new(Watch::new(time_limit, None, &reins)),
            turns: Arc::default(),
            stop,
        }
    }

    fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Computes through this many epochs, or until it is cut.
    async fn compute(&self, epochs: u64) {
        for _ in 0..epochs {
            self.turns.fetch_add(1, Ordering::Relaxed);
            match self.watch.tick() {
                UpdateDeadline::YieldCustom(_, pause) => pause.await,
                UpdateDeadline::Continue(_) => {}
                UpdateDeadline::Interrupt | UpdateDeadline::Yield(_) | _ => return,
            }
        }
    }

    /// Computes for ever, in a task of its own.
    fn spin(&self) -> JoinHandle<Result<(), Cut>> {
        let guest = self.clone();
        tokio::spawn(async move { guest.watch.live(pin!(guest.compute(u64::MAX))).await })
    }

    /// Waits until it stands in line.
    async fn is_in_line(&self) {
        while self.turns() < u64::from(LIGHT_TICKS) {
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

/// Many guests that compute for ever on the test's one thread, each of them heavy.
async fn a_crowd(lane: &Arc<Lane>) -> Vec<(Guest, JoinHandle<Result<(), Cut>>)> {
    let crowd: Vec<_> = (0..100)
        .map(|_| Guest::new(lane, LONG))
        .map(|guest| (guest.clone(), guest.spin()))
        .collect();
    while crowd.iter().any(|(guest, _)| !guest.watch.is_heavy()) {
        tokio::task::yield_now().await;
    }
    crowd
}

fn turns_of(crowd: &[(Guest, JoinHandle<Result<(), Cut>>)]) -> u64 {
    crowd.iter().map(|(guest, _)| guest.turns()).sum()
}

/// Turns of a crowd that others may have to wait for: the one that is given, and those that fall in while a
/// waker goes round.
const FEW: u64 = 4;

#[tokio::test]
async fn small_work_waits_for_a_few_turns_of_a_crowd_that_computes() {
    let lane = Arc::default();
    let crowd = a_crowd(&lane).await;
    for _ in 0..50 {
        let before = turns_of(&crowd);
        tokio::task::yield_now().await;
        let waited = turns_of(&crowd) - before;
        assert!(waited <= FEW, "waited for {waited} turns");
    }
    // A guest that is not heavy itself is small work too.
    let small = Guest::new(&lane, LONG);
    let before = turns_of(&crowd);
    let epochs = u64::from(LIGHT_TICKS) - 1;
    assert_eq!(small.watch.live(pin!(small.compute(epochs))).await, Ok(()));
    let waited = turns_of(&crowd) - before;
    assert!(waited <= FEW * (epochs + 1), "waited for {waited} turns");
}

#[tokio::test]
async fn a_stop_reaches_a_guest_wherever_it_stands_in_line() {
    let crowd = a_crowd(&Arc::default()).await;
    let mut crowd = crowd.into_iter();
    for _ in 0..20 {
        let (guest, running) = crowd.next().unwrap();
        let rest = crowd.as_slice();
        let before = turns_of(rest);
        guest.stop.cancel();
        assert_eq!(running.await.unwrap(), Err(Cut::Stopped));
        let waited = turns_of(rest) - before;
        assert!(waited <= FEW, "stopped after {waited} turns of others");
    }
}

#[tokio::test]
async fn turns_are_given_in_the_order_of_the_line() {
    let crowd = a_crowd(&Arc::default()).await;
    while turns_of(&crowd) < 5_000 {
        tokio::task::yield_now().await;
    }
    let turns = crowd.iter().map(|(guest, _)| guest.turns());
    let (least, most) = (turns.clone().min().unwrap(), turns.max().unwrap());
    assert!(most - least <= FEW, "{least} to {most} turns");
}

#[tokio::test]
async fn who_never_gets_a_turn_is_cut_in_line_and_does_not_pay_for_the_wait() {
    let lane: Arc<Lane> = Arc::default();
    let taken = lane.turn().await;
    let late = Guest::new(&lane, Duration::from_millis(30));
    let stopped = Guest::new(&lane, LONG);
    let (cut_late, cut_stopped) = (late.spin(), stopped.spin());
    stopped.is_in_line().await;
    assert_eq!(
        stopped.watch.stopwatch.since.load(Ordering::Relaxed),
        STANDS
    );
    stopped.stop.cancel();
    assert_eq!(cut_stopped.await.unwrap(), Err(Cut::Stopped));
    assert_eq!(cut_late.await.unwrap(), Err(Cut::TimedOut));
    for guest in [&late, &stopped] {
        assert_eq!(guest.turns(), u64::from(LIGHT_TICKS));
    }
    drop(taken);
}

#[tokio::test]
async fn a_turn_is_free_again_once_its_guest_is_gone_or_waits_for_something_else() {
    let lane: Arc<Lane> = Arc::default();
    let taken = lane.turn().await;
    // One that is dropped in line leaves its place to the next.
    let (gone, next) = (Guest::new(&lane, LONG), Guest::new(&lane, LONG));
    let dropped = gone.spin();
    gone.is_in_line().await;
    let calls_the_host = Arc::new(Notify::new());
    let host = Arc::clone(&calls_the_host);
    let guest = next.clone();
    let waits = tokio::spawn(async move {
        let body = async {
            guest.compute(u64::from(LIGHT_TICKS) + 1).await;
            host.notified().await;
        };
        guest.watch.live(pin!(body)).await
    });
    next.is_in_line().await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    assert_eq!(lane.free(), 0);
    drop(taken);
    while next.turns() <= u64::from(LIGHT_TICKS) {
        tokio::task::yield_now().await;
    }
    // One that is heavy and waits for the host keeps no turn.
    while lane.free() == 0 {
        tokio::task::yield_now().await;
    }
    calls_the_host.notify_one();
    assert_eq!(waits.await.unwrap(), Ok(()));
    assert_eq!(lane.free(), 1);
}

#[tokio::test]
async fn a_guest_that_meets_one_epoch_keeps_its_thread() {
    let guest = Guest::new(&Arc::default(), LONG);
    let computing = pin!(guest.compute(1));
    let mut short = pin!(guest.watch.live(computing));
    assert!(matches!(poll!(&mut short), Poll::Ready(Ok(()))));
    let guest = Guest::new(&Arc::default(), LONG);
    let computing = pin!(guest.compute(2));
    let mut longer = pin!(guest.watch.live(computing));
    assert!(poll!(&mut longer).is_pending());
}
