//! The pool's slots: free when a run has ended, wiped before the next, and an error of ours when there are none.

use futures_util::future::join_all;
use futures_util::{FutureExt as _, poll};

use super::*;

#[tokio::test]
async fn a_pool_without_a_free_slot_is_our_fault_and_not_the_guests() {
    let world = World::of(1);
    let code = world.core(&program_text("1", "", "(call $sleep (i64.const 600000))"));
    let attempt = attempt(|_| {});
    let never = CancellationToken::new();
    let mut sleeping = Vec::new();
    let outcome = loop {
        assert!(sleeping.len() < 100, "a pool for one guest took a hundred");
        let mut running = world.runner.run(&code, &attempt, &never).boxed();
        match poll!(&mut running) {
            std::task::Poll::Pending => sleeping.push(running),
            std::task::Poll::Ready(ran) => break ran.outcome,
        }
    };
    match outcome {
        Outcome::Fault(cause) => assert!(cause.contains("no free slot"), "{cause}"),
        other => panic!("{other:?}"),
    }

    sleeping.clear();
    let idle = world.core(&program_text("1", "", ""));
    succeeded(&world.runner.run(&idle, &attempt, &never).await);
}

#[tokio::test]
async fn dropping_a_run_gives_its_slot_back() {
    // The engine has far fewer slots than this has rounds.
    let code = program("1", "", "(call $sleep (i64.const 600000))");
    for _ in 0..100 {
        let attempt = attempt(|_| {});
        let stop = CancellationToken::new();
        let mut running = std::pin::pin!(WORLD.runner.run(&code, &attempt, &stop));
        assert!(poll!(&mut running).is_pending());
    }
    succeeded(&run_plain(&program("1", "", "")).await);
}

/// Looks through its memory, table and stack of operands for anything that is not as it should be at the
/// start, and exits with 1 if it finds something; then fills all of it and ends as the input's first byte
/// says: `e` returns, `t` traps, `s` sleeps for ever.
const NOSY: &str = r#"
    (local $at i32)
    (if (i32.ne (memory.grow (i32.const 30)) (i32.const 2)) (then (call $exit (i32.const 2))))
    (if (i32.ne (table.grow $t (ref.null func) (i32.const 500)) (i32.const 10))
        (then (call $exit (i32.const 2))))
    (loop $more
        (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (call $exit (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $more (i32.lt_u (local.get $at) (i32.const 2097152))))
    (local.set $at (i32.const 0))
    (loop $more
        (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then (call $exit (i32.const 1))))
        (table.set $t (local.get $at) (ref.func $sleep))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $at) (i32.const 510))))
    (memory.fill (i32.const 0) (i32.const 0x5a) (i32.const 2097152))
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 1))
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (if (i32.eq (i32.load8_u (i32.const 64)) (i32.const 116)) (then unreachable))
    (if (i32.eq (i32.load8_u (i32.const 64)) (i32.const 115))
        (then (call $sleep (i64.const 600000))))"#;

#[tokio::test]
async fn nothing_of_an_attempt_is_left_for_the_next_one_however_it_ended() {
    let items = "(table $t 10 funcref) (elem declare func $sleep)";
    let code = program("2", items, NOSY);
    let attempts = ["e", "t", "s"].map(|end| {
        let mut attempt = attempt(|_| {});
        attempt.input = json(&format!("\"{end}\""));
        attempt
    });
    for _ in 0..60 {
        let stop = CancellationToken::new();
        let runs = attempts
            .iter()
            .map(|attempt| WORLD.runner.run(&code, attempt, &stop));
        let ends = join_all(runs);
        let cut = async { stop.cancel() };
        // The sleeper is asleep when the others are through their first poll.
        let (ends, ()) = tokio::join!(ends, cut);
        for ran in ends {
            match &ran.outcome {
                Outcome::Success { .. } | Outcome::Interrupted => {}
                Outcome::Retry(failure) => assert_eq!(failure.code, "TRAP", "{failure:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
