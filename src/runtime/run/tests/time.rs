//! Limits in time: what computes and what waits is cut, and its neighbours go on.

use super::*;

const SPIN: &str = "(loop $on (br $on))";
/// Ten minutes.
const SLEEP: &str = "(call $sleep (i64.const 600000))";
/// Asks the host for something, over and over.
const PESTER: &str = "(loop $on (drop (call $random_get (i32.const 100) (i32.const 8))) (br $on))";
/// Says a word and then spins.
const SAY_AND_SPIN: &str =
    "(call $write (i32.const 2) (i32.const 100) (i32.const 3)) (loop $on (br $on))";

fn briefly() -> Attempt {
    let mut attempt = attempt(|_| {});
    attempt.time_limit = Duration::from_millis(20);
    attempt
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_cut_whatever_it_does() {
    for start in [SPIN, SLEEP, PESTER] {
        let ran = run(&program("1", "", start), &briefly()).await;
        match ran.outcome {
            Outcome::TimedOut(failure) => {
                assert_eq!(failure.code, "TIMEOUT");
                assert!(failure.message.contains("20 ms"), "{}", failure.message);
                assert!(failure.message.contains("timeoutMs"), "{}", failure.message);
            }
            other => panic!("{start}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_written_before_the_cut_is_kept() {
    let ran = run(
        &program("1", r#"(data (i32.const 100) "hm\n")"#, SAY_AND_SPIN),
        &briefly(),
    )
    .await;
    assert!(matches!(ran.outcome, Outcome::TimedOut(_)));
    assert_eq!(lines(&ran, LogStream::Stderr), ["hm"]);
}

#[tokio::test]
async fn a_start_function_that_never_ends_is_cut_too() {
    let code = core(
        r#"(module (func $init (loop $on (br $on))) (start $init)
            (memory (export "memory") 1) (func (export "_start")))"#,
    );
    assert!(matches!(
        run(&code, &briefly()).await.outcome,
        Outcome::TimedOut(_)
    ));
}

#[tokio::test]
async fn stop_ends_an_attempt_whatever_it_does() {
    for start in [SPIN, SLEEP, PESTER] {
        let code = program("1", "", start);
        let attempt = attempt(|_| {});
        let stop = CancellationToken::new();
        let running = WORLD.runner.run(&code, &attempt, &stop);
        let stopping = async {
            // The guest has been polled once when this runs: join! polls in order.
            stop.cancel();
        };
        let (ran, ()) = tokio::join!(running, stopping);
        assert_eq!(ran.outcome, Outcome::Interrupted, "{start}");
    }
}

#[tokio::test]
async fn an_attempt_that_is_stopped_before_it_begins_does_not_run() {
    let stop = CancellationToken::new();
    stop.cancel();
    let code = program("1", "", "");
    let ran = WORLD.runner.run(&code, &attempt(|_| {}), &stop).await;
    assert_eq!(ran.outcome, Outcome::Interrupted);
}

#[tokio::test]
async fn an_attempt_after_a_stopped_one_has_limits_of_its_own() {
    let spin = program("1", "", SPIN);
    assert!(matches!(
        run(&spin, &briefly()).await.outcome,
        Outcome::TimedOut(_)
    ));
    let work = "(local $i i32) (loop $more
        (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000000))))";
    succeeded(&run_plain(&program("1", "", work)).await);
    assert!(matches!(
        run(&spin, &briefly()).await.outcome,
        Outcome::TimedOut(_)
    ));
}

#[tokio::test]
async fn computing_for_too_long_is_a_limit_and_waiting_is_not() {
    let spin = program("1", "", SPIN);
    let ran = run(&spin, &attempt(|spec| spec.cpu_ms = Some(15))).await;
    let message = limited(&ran, "CPU_LIMIT");
    assert_eq!(
        message,
        "the function computed for longer than 15 ms (cpuMs)"
    );
    assert!(ran.cpu.unwrap() >= Duration::from_millis(15));

    let nap = program("1", "", "(call $sleep (i64.const 60))");
    succeeded(&run(&nap, &attempt(|spec| spec.cpu_ms = Some(40))).await);
}

#[test]
fn a_small_guest_gets_its_turn_beside_guests_that_only_compute() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut greedy = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let stop = stop.clone();
            greedy.spawn(async move {
                let spin = program("1", "", SPIN);
                WORLD
                    .runner
                    .run(&spin, &attempt(|_| {}), &stop)
                    .await
                    .outcome
            });
        }
        // More guests spin than there are workers, and nobody stops them before the small ones are through.
        let mut small = tokio::task::JoinSet::new();
        small.spawn(async {
            let code = program("1", "", "(call $sleep (i64.const 1))");
            for _ in 0..20 {
                succeeded(&run_plain(&code).await);
            }
        });
        small.join_all().await;
        assert!(greedy.try_join_next().is_none());
        stop.cancel();
        let ends = greedy.join_all().await;
        assert_eq!(ends, vec![Outcome::Interrupted; 4]);
    });
}
