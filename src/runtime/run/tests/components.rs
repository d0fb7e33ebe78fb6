//! WASI 0.2 programs.

use super::*;

/// A program that may use its standard `stream` (`stdout` or `stderr`): `$get` gives a handle on it, `$write`
/// takes handle, place, length and where to put the result. `run` is its body.
fn with_stream(stream: &str, run: &str) -> String {
    format!(
        r#"(component
        (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
        (alias export $errors "error" (type $error))
        (import "wasi:io/streams@0.2.0" (instance $streams
            (alias outer 1 $error (type $error))
            (export "error" (type $e (eq $error)))
            (export "output-stream" (type $stream (sub resource)))
            (type $stream-error (variant (case "last-operation-failed" (own $e)) (case "closed")))
            (export "stream-error" (type $se (eq $stream-error)))
            (export "[method]output-stream.write" (func (param "self" (borrow $stream))
                (param "contents" (list u8)) (result (result (error $se)))))))
        (alias export $streams "output-stream" (type $output-stream))
        (import "wasi:cli/{stream}@0.2.0" (instance $std
            (alias outer 1 $output-stream (type $stream))
            (export "output-stream" (type $s (eq $stream)))
            (export "get-{stream}" (func (result (own $s))))))
        (core module $memory (memory (export "memory") 64))
        (core instance $m (instantiate $memory))
        (core func $get (canon lower (func $std "get-{stream}")))
        (core func $write (canon lower (func $streams "[method]output-stream.write") (memory (core memory $m "memory"))))
        (core module $main
            (import "host" "get" (func $get (result i32)))
            (import "host" "write" (func $write (param i32 i32 i32 i32)))
            (import "m" "memory" (memory 64))
            (data (i32.const 64) "hello from a component\n")
            (func (export "run") (result i32) {run}))
        (core instance $i (instantiate $main (with "m" (instance $m)) (with "host" (instance
            (export "get" (func $get)) (export "write" (func $write))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $out (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $out)))"#
    )
}

/// Writes `len` bytes to `stream` in one call.
pub(super) fn writing(stream: &str, len: usize) -> String {
    let run = format!(
        "(call $write (call $get) (i32.const 64) (i32.const {len}) (i32.const 0)) (i32.const 0)"
    );
    with_stream(stream, &run)
}

/// Does something so often.
fn times(count: usize, what: &str) -> String {
    format!(
        "(local $left i32) (local.set $left (i32.const {count}))
        (loop $more
            {what}
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $more (local.get $left)))
        (i32.const 0)"
    )
}

/// Opens its stdout so often.
pub(super) fn opening_streams(count: usize) -> String {
    with_stream("stdout", &times(count, "(drop (call $get))"))
}

/// Makes so many resources of its own.
pub(super) fn making_handles(count: usize) -> String {
    let run = times(count, "(drop (call $new (i32.const 1)))");
    format!(
        r#"(component
        (type $r (resource (rep i32)))
        (core func $new (canon resource.new $r))
        (core module $main
            (import "host" "new" (func $new (param i32) (result i32)))
            (func (export "run") (result i32) {run}))
        (core instance $i (instantiate $main (with "host" (instance (export "new" (func $new))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $out (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $out)))"#
    )
}

/// Ends with this exit code.
fn exiting(code: u8) -> String {
    format!(
        r#"(component
        (import "wasi:cli/exit@0.2.0" (instance $exit
            (export "exit-with-code" (func (param "status-code" u8)))))
        (core func $exit (canon lower (func $exit "exit-with-code")))
        (core module $main
            (import "host" "exit" (func $exit (param i32)))
            (func (export "run") (result i32) (call $exit (i32.const {code})) unreachable))
        (core instance $i (instantiate $main (with "host" (instance (export "exit" (func $exit))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $out (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $out)))"#
    )
}

#[tokio::test]
async fn stdout_is_the_output_and_stderr_the_log() {
    let ran = run_plain(&command(&writing("stdout", 23))).await;
    assert_eq!(succeeded(&ran), b"hello from a component\n");
    assert!(ran.logs.lines.is_empty());

    let ran = run_plain(&command(&writing("stderr", 23))).await;
    assert_eq!(succeeded(&ran), b"");
    assert_eq!(lines(&ran, LogStream::Stderr), ["hello from a component"]);
}

#[tokio::test]
async fn too_much_output_is_named_here_too() {
    let ran = run(
        &command(&writing("stdout", 23)),
        &attempt(|spec| spec.output_bytes_max = 22),
    )
    .await;
    limited(&ran, "OUTPUT_TOO_LARGE");
}

#[tokio::test]
async fn exit_codes_and_results_say_how_it_went() {
    let fails = with_stream("stdout", "(i32.const 1)");
    assert_eq!(retried(&run_plain(&command(&fails)).await).code, "EXIT_1");
    assert_eq!(succeeded(&run_plain(&command(&exiting(0))).await), b"");
    assert_eq!(
        run_plain(&command(&exiting(75))).await.outcome,
        Outcome::Requeue(None)
    );
    let ran = run_plain(&command(&exiting(65))).await;
    assert!(matches!(ran.outcome, Outcome::Error(failure) if failure.code == "EXIT_65"));
    assert_eq!(
        retried(&run_plain(&command(&exiting(255))).await).code,
        "EXIT_255"
    );
}

#[tokio::test]
async fn lines_of_both_streams_are_kept_in_the_order_they_ended() {
    let capture = crate::runtime::output::Capture::logs_only(100);
    {
        use wasmtime_wasi::cli::StdoutStream as _;
        let mut stdout = capture.stream(LogStream::Stdout).p2_stream();
        let mut stderr = capture.stream(LogStream::Stderr).p2_stream();
        stdout.write(Bytes::from_static(b"one\ntw")).unwrap();
        stderr.write(Bytes::from_static(b"between\r\n")).unwrap();
        stdout.write(Bytes::from_static(b"o\n\xff!")).unwrap();
    }
    let logs = capture.written().take_logs();
    let seen: Vec<_> = logs
        .lines
        .iter()
        .map(|line| (line.stream, line.text.as_str()))
        .collect();
    let expected = [
        (LogStream::Stdout, "one"),
        (LogStream::Stderr, "between"),
        (LogStream::Stdout, "two"),
        (LogStream::Stdout, "\u{fffd}!"),
    ];
    assert_eq!(seen, expected);
    assert!(!logs.truncated);
}
