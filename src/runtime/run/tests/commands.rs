//! Core programs: input, output, exit codes, traps, logs.

use super::*;

/// Copies stdin to stdout until the end.
const ECHO: &str = r#"
    (local $n i32)
    (loop $more
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 4096))
        (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $n (i32.load (i32.const 8)))
        (call $write (i32.const 1) (i32.const 1024) (local.get $n))
        (br_if $more (local.get $n)))"#;

#[tokio::test]
async fn a_program_reads_its_input_and_writes_its_output() {
    let echo = program("1", "", ECHO);
    let mut attempt = attempt(|_| {});
    attempt.input = json(&format!("{{\"text\": \"{}\"}}", "x".repeat(100_000)));
    let ran = run(&echo, &attempt).await;
    assert_eq!(succeeded(&ran), attempt.input.body);
    assert!(ran.logs.lines.is_empty());
    assert!(ran.cpu.is_some());

    attempt.input = json(r#""a \"quoted\" text""#);
    assert_eq!(
        succeeded(&run(&echo, &attempt).await),
        br#"a "quoted" text"#
    );
}

#[tokio::test]
async fn exit_codes_say_how_it_went() {
    for code in [
        0_i32, 1, 2, 63, 64, 65, 66, 75, 77, 78, 79, 125, 126, 255, 256, -1,
    ] {
        let ran = run_plain(&program(
            "1",
            "",
            &format!("(call $exit (i32.const {code}))"),
        ))
        .await;
        let shown = format!("EXIT_{}", code.cast_unsigned());
        match (code, &ran.outcome) {
            (0, Outcome::Success { body, .. }) => assert!(body.is_empty()),
            (64 | 65 | 77 | 78, Outcome::Error(failure)) => assert_eq!(failure.code, shown),
            (75, Outcome::Requeue(None)) => {}
            (_, Outcome::Retry(failure)) => {
                assert!(!matches!(code, 0 | 64 | 65 | 75 | 77 | 78), "{code}");
                assert_eq!(failure.code, shown);
                let sentence = format!("the program ended with exit code {}", code.cast_unsigned());
                assert_eq!(failure.message, sentence);
            }
            (_, other) => panic!("{code}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn output_written_before_exit_0_is_the_output() {
    let items = r#"(data (i32.const 100) "done")"#;
    let start =
        "(call $write (i32.const 1) (i32.const 100) (i32.const 4)) (call $exit (i32.const 0))";
    assert_eq!(
        succeeded(&run_plain(&program("1", items, start)).await),
        b"done"
    );
}

#[tokio::test]
async fn the_last_words_on_stderr_explain_an_exit_code_and_a_trap() {
    let items = r#"(data (i32.const 100) "warming up\nthe disk is full\n\n")"#;
    let cry = "(call $write (i32.const 2) (i32.const 100) (i32.const 29))";

    let ran = run_plain(&program(
        "1",
        items,
        &format!("{cry} (call $exit (i32.const 3))"),
    ))
    .await;
    assert_eq!(retried(&ran).code, "EXIT_3");
    assert_eq!(retried(&ran).message, "warming up | the disk is full");
    assert_eq!(
        lines(&ran, LogStream::Stderr),
        ["warming up", "the disk is full", ""]
    );

    let ran = run_plain(&program("1", items, &format!("{cry} unreachable"))).await;
    let failure = retried(&ran);
    assert_eq!(failure.code, "TRAP");
    assert!(
        failure.message.contains("unreachable"),
        "{}",
        failure.message
    );
    assert!(
        failure.message.ends_with("the disk is full"),
        "{}",
        failure.message
    );
    assert!(
        !failure.message.contains("backtrace"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn traps_are_named_in_wasms_words() {
    let divide = "(drop (i32.div_u (i32.const 1) (i32.const 0)))";
    let out_of_bounds = "(drop (i32.load (i32.const 70000)))";
    for (start, words) in [(divide, "divide by zero"), (out_of_bounds, "out of bounds")] {
        let ran = run_plain(&program("1", "", start)).await;
        assert_eq!(retried(&ran).code, "TRAP");
        assert!(retried(&ran).message.contains(words), "{:?}", ran.outcome);
    }
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let ran = run_plain(&program(
        "1",
        "(func $deeper (call $deeper))",
        "(call $deeper)",
    ))
    .await;
    assert_eq!(retried(&ran).code, "TRAP");
    assert!(
        retried(&ran).message.contains("call stack exhausted"),
        "{:?}",
        ran.outcome
    );
}

#[tokio::test]
async fn a_pointer_out_of_memory_is_the_guests_trap_and_not_our_fault() {
    let start =
        "(drop (call $fd_write (i32.const 1) (i32.const 70000) (i32.const 1) (i32.const 8)))";
    let ran = run_plain(&program("1", "", start)).await;
    assert_eq!(retried(&ran).code, "TRAP");
}

#[tokio::test]
async fn huge_output_ends_the_run_at_once_and_names_the_limit() {
    // After the write that is too much comes an endless loop, which must never be reached.
    let small_steps =
        "(loop $more (call $write (i32.const 1) (i32.const 0) (i32.const 1000)) (br $more))";
    let one_step =
        "(call $write (i32.const 1) (i32.const 0) (i32.const 3000000)) (loop $on (br $on))";
    for start in [small_steps, one_step] {
        let attempt = attempt(|spec| spec.output_bytes_max = 10_500);
        let ran = run(&program("64", "", start), &attempt).await;
        let message = limited(&ran, "OUTPUT_TOO_LARGE");
        assert_eq!(
            message,
            "the output is larger than 10500 bytes (outputBytesMax)"
        );
    }
}

#[tokio::test]
async fn output_of_exactly_the_limit_is_allowed() {
    let start = "(call $write (i32.const 1) (i32.const 100) (i32.const 10))";
    let ran = run(
        &program("1", "", start),
        &attempt(|spec| spec.output_bytes_max = 10),
    )
    .await;
    assert_eq!(succeeded(&ran).len(), 10);
}

#[tokio::test]
async fn a_flood_of_logs_is_cut_and_marked_and_the_run_goes_on() {
    let items = r#"(data (i32.const 100) "0123456\n") (data (i32.const 200) "last words\n")"#;
    let start = "(local $i i32)
        (loop $more
            (call $write (i32.const 2) (i32.const 100) (i32.const 8))
            (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 50000))))
        (call $write (i32.const 2) (i32.const 200) (i32.const 11))
        (call $exit (i32.const 1))";
    let ran = run(
        &program("1", items, start),
        &attempt(|spec| spec.log_bytes_max = 75),
    )
    .await;
    let logged = lines(&ran, LogStream::Stderr);
    assert_eq!(logged.len(), 11);
    assert_eq!(logged[9..], ["0123456", "01234"]);
    assert!(ran.logs.truncated);
    assert_eq!(retried(&ran).message, "0123456 | last words");
}

#[tokio::test]
async fn a_line_that_never_ends_is_bounded_too() {
    let start = "(local $i i32)
        (memory.fill (i32.const 100) (i32.const 120) (i32.const 1000))
        (loop $more
            (call $write (i32.const 2) (i32.const 100) (i32.const 1000))
            (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))";
    let ran = run(
        &program("1", "", start),
        &attempt(|spec| spec.log_bytes_max = 1500),
    )
    .await;
    succeeded(&ran);
    assert_eq!(lines(&ran, LogStream::Stderr), ["x".repeat(1500)]);
    assert!(ran.logs.truncated);
}

#[tokio::test]
async fn every_attempt_has_a_fresh_instance() {
    let items = r#"(global $n (mut i32) (i32.const 48))"#;
    let start = "(global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store8 (i32.const 100) (i32.add (global.get $n) (i32.load8_u (i32.const 101))))
        (i32.store8 (i32.const 101) (i32.const 7))
        (call $write (i32.const 1) (i32.const 100) (i32.const 1))";
    let code = program("1", items, start);
    for _ in 0..3 {
        assert_eq!(succeeded(&run_plain(&code).await), b"1");
    }
}
