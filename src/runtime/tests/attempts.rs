//! Attempts at what was prepared: code that is cold, warm or gone, and places for guests.
//!
//! **Invariant:** every attempt ends with an outcome, whatever it has to wait for.

use super::*;

/// Writes `hello` to standard output.
const HELLO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\"hello\"")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 7))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// Never ends by itself.
const SPIN: &str =
    r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

fn attempt(prepared: &Prepared, time_limit: Duration) -> Attempt {
    use crate::model::{
        ExecutionId, Fence, Input, JSON, Timestamp, Version, VersionNumber, VersionSpec,
    };

    Attempt {
        execution_id: ExecutionId::new(Timestamp(0)),
        function: "f".parse().unwrap(),
        version: Arc::new(Version {
            number: VersionNumber(1),
            code: Code::Wasm {
                digest: prepared.digest,
                shape: prepared.shape,
                size: prepared.size,
            },
            spec: VersionSpec::default(),
            created_at: Timestamp(0),
        }),
        number: 1,
        max_attempts: 1,
        requeues: 0,
        faults: 0,
        fence: Fence::new(1, 1),
        time_limit,
        idempotency_key: None,
        trace_id: None,
        traceparent: None,
        metadata: Arc::new([]),
        input: Input {
            content_type: JSON,
            body: Bytes::from_static(b"null"),
        },
        secrets: Arc::default(),
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_call_runs_what_was_prepared_and_says_whether_it_was_cold() {
    let world = World::new();
    let prepared = world.prepare(HELLO).await.unwrap();
    let world = world.restart();
    for cold in [true, false] {
        let ran = world
            .runtime
            .run(&attempt(&prepared, LONG), &CancellationToken::new())
            .await;
        let Outcome::Success { body, .. } = &ran.outcome else {
            panic!("{ran:?}");
        };
        assert_eq!(&body[..], b"\"hello\"");
        assert_eq!((ran.cold_start, ran.init_duration.is_some()), (cold, cold));
    }
    assert_eq!(world.runtime.stats().permits_used, 0);
}

/// They look up less often there, but they do.
#[tokio::test]
async fn guests_that_find_room_without_a_pool_run_and_are_stopped_too() {
    let world = World::of(Slots::OnDemand);
    let short = Duration::from_millis(20);
    for (wat, limit, is_stopped) in [(HELLO, LONG, false), (SPIN, short, true)] {
        let prepared = world.prepare(wat).await.unwrap();
        let attempt = attempt(&prepared, limit);
        let ran = world.runtime.run(&attempt, &CancellationToken::new()).await;
        let stopped = matches!(ran.outcome, Outcome::TimedOut(_));
        assert_eq!(stopped, is_stopped, "{ran:?}");
    }
}

#[tokio::test]
async fn code_that_is_gone_is_our_fault() {
    let world = World::new();
    let unknown = Prepared {
        digest: Digest::from_bytes([9; 32]),
        shape: Shape::CoreCommand,
        size: 1,
        outgoing: None,
    };
    let ran = world
        .runtime
        .run(&attempt(&unknown, LONG), &CancellationToken::new())
        .await;
    assert!(
        matches!(&ran.outcome, Outcome::Fault(text) if text.contains("not kept")),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_guest_waits_for_a_permit_until_its_time_is_over_or_it_is_stopped() {
    let world = World::new();
    let spin = world.prepare(SPIN).await.unwrap();
    let idle = world.prepare(IDLE).await.unwrap();
    let guests = world.runtime.stats().permits_max;
    let stop = CancellationToken::new();
    let mut spinning = tokio::task::JoinSet::new();
    for _ in 0..guests {
        let (runtime, stop) = (world.runtime.clone(), stop.clone());
        let attempt = attempt(&spin, LONG);
        spinning.spawn(async move { runtime.run(&attempt, &stop).await });
    }
    while world.runtime.stats().permits_used < guests {
        tokio::task::yield_now().await;
    }
    let run = async |limit, stop: &CancellationToken| {
        let attempt = attempt(&idle, limit);
        world.runtime.run(&attempt, stop).await.outcome
    };
    let late = run(Duration::from_millis(20), &CancellationToken::new()).await;
    assert!(
        matches!(&late, Outcome::TimedOut(failure) if failure.code == "TIMEOUT"),
        "{late:?}"
    );
    let cancelled = CancellationToken::new();
    let (stopped, ()) = tokio::join!(run(LONG, &cancelled), async { cancelled.cancel() });
    assert_eq!(stopped, Outcome::Interrupted);
    // A freed permit is handed on.
    let never = CancellationToken::new();
    let (served, ()) = tokio::join!(run(LONG, &never), async { stop.cancel() });
    assert!(matches!(served, Outcome::Success { .. }), "{served:?}");
    for ran in spinning.join_all().await {
        assert_eq!(ran.outcome, Outcome::Interrupted);
    }
    assert_eq!(world.runtime.stats().permits_used, 0);
}

#[tokio::test]
async fn guests_with_many_memories_never_exhaust_the_pool() {
    let world = World::new();
    let memories = "(memory 1)".repeat(19);
    let greedy =
        format!(r#"(module (memory (export "memory") 1) {memories} (func (export "_start")))"#);
    let greedy = world.prepare(&greedy).await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let runtime = world.runtime.clone();
        let attempt = attempt(&greedy, LONG);
        running.spawn(async move { runtime.run(&attempt, &CancellationToken::new()).await });
    }
    for ran in running.join_all().await {
        assert!(matches!(ran.outcome, Outcome::Success { .. }), "{ran:?}");
    }
}
