//! The typed world: what goes in, what comes out, and what becomes of it.

use super::*;

/// Answers `success` with the media type and the body of the input.
pub(super) const ECHO: &str = r#"
    (i32.store8 (i32.const 16) (i32.const 0))
    (i64.store (i32.const 24) (i64.load (i32.add (local.get $in) (i32.const 88))))
    (i64.store (i32.const 32) (i64.load (i32.add (local.get $in) (i32.const 96))))
    (i32.const 16)"#;

/// A component of the typed world: `items` beside the main module, whose `handle` is `body`. `$in` points to
/// the record of the execution (88 bytes) and the payload; the outcome is built at 16.
pub(super) fn component(items: &str, body: &str) -> String {
    format!(
        r#"(component
        {items}
        (core module $main
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 4096))
            (func (export "realloc") (param i32 i32) (param $align i32) (param $len i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and
                    (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
                    (i32.sub (i32.const 0) (local.get $align))))
                (global.set $next (i32.add (local.get $at) (local.get $len)))
                (loop $more
                    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                        (then
                            (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
                            (br $more))))
                (local.get $at))
            (data (i32.const 1024) "text/plain")
            (data (i32.const 1040) "OUT_OF_STOCK")
            (data (i32.const 1060) "nothing left")
            (func (export "handle") (param $in i32) (result i32) {body}))
        (core instance $i (instantiate $main))
        (type $execution (record (field "id" string) (field "function" string) (field "version" u64)
            (field "attempt" u32) (field "max-attempts" u32) (field "time-left-ms" u64)
            (field "requeues" u32) (field "idempotency-key" (option string))
            (field "trace-id" (option string)) (field "traceparent" (option string))
            (field "metadata" (list (tuple string string)))))
        (type $payload (record (field "content-type" string) (field "body" (list u8))))
        (type $failure (record (field "code" string) (field "message" string)))
        (type $outcome (variant (case "success" $payload) (case "error" $failure)
            (case "retry" $failure) (case "requeue" (option u64))))
        (func $handle (param "execution" $execution) (param "input" $payload) (result $outcome)
            (canon lift (core func $i "handle") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
        (component $named
            (type $execution (record (field "id" string) (field "function" string) (field "version" u64)
                (field "attempt" u32) (field "max-attempts" u32) (field "time-left-ms" u64)
                (field "requeues" u32) (field "idempotency-key" (option string))
                (field "trace-id" (option string)) (field "traceparent" (option string))
                (field "metadata" (list (tuple string string)))))
            (type $payload (record (field "content-type" string) (field "body" (list u8))))
            (type $failure (record (field "code" string) (field "message" string)))
            (import "t-execution" (type $e (eq $execution)))
            (import "t-payload" (type $p (eq $payload)))
            (import "t-failure" (type $f (eq $failure)))
            (type $outcome (variant (case "success" $p) (case "error" $f) (case "retry" $f)
                (case "requeue" (option u64))))
            (import "t-outcome" (type $o (eq $outcome)))
            (import "f-handle" (func $handle (param "execution" $e) (param "input" $p) (result $o)))
            (export $e2 "execution" (type $e))
            (export $p2 "payload" (type $p))
            (export $f2 "failure" (type $f))
            (type $outcome2 (variant (case "success" $p2) (case "error" $f2) (case "retry" $f2)
                (case "requeue" (option u64))))
            (export $o2 "outcome" (type $outcome2))
            (export "handle" (func $handle)
                (func (param "execution" $e2) (param "input" $p2) (result $o2))))
        (instance $out (instantiate $named
            (with "t-execution" (type $execution)) (with "t-payload" (type $payload))
            (with "t-failure" (type $failure)) (with "t-outcome" (type $outcome))
            (with "f-handle" (func $handle))))
        (export "pelton:function/handler@0.1.0" (instance $out)))"#
    )
}

/// A handler whose outcome is `case`, with two strings: their places and lengths.
fn answering(case: u32, first: (u32, u32), second: (u32, u32)) -> Runnable {
    let body = format!(
        "(i32.store8 (i32.const 16) (i32.const {case}))
        (i32.store (i32.const 24) (i32.const {})) (i32.store (i32.const 28) (i32.const {}))
        (i32.store (i32.const 32) (i32.const {})) (i32.store (i32.const 36) (i32.const {}))
        (i32.const 16)",
        first.0, first.1, second.0, second.1
    );
    handler(&component("", &body))
}

const CODE: (u32, u32) = (1040, 12);
const MESSAGE: (u32, u32) = (1060, 12);

#[tokio::test]
async fn input_comes_back_unchanged_with_its_media_type() {
    let echo = handler(&component("", ECHO));
    let mut attempt = attempt(|_| {});
    for (content_type, body) in [
        (
            "application/json",
            Bytes::from_static(b" {\"a\" : [1,2 ]}\n"),
        ),
        (
            "application/octet-stream",
            Bytes::from(vec![0xff; 3_000_000]),
        ),
        ("text/plain; charset=utf-8", Bytes::new()),
    ] {
        attempt.input = Input {
            content_type: crate::model::ContentType(content_type.into()),
            body: body.clone(),
        };
        let ran = run(&echo, &attempt).await;
        let expected = Outcome::Success {
            content_type: Some(attempt.input.content_type.clone()),
            body,
        };
        assert_eq!(ran.outcome, expected);
    }
}

#[tokio::test]
async fn the_four_outcomes_arrive_as_they_were_given() {
    let failure = Failure::new("OUT_OF_STOCK", "nothing left");
    let ran = run_plain(&answering(1, CODE, MESSAGE)).await;
    assert_eq!(ran.outcome, Outcome::Error(failure.clone()));
    let ran = run_plain(&answering(2, CODE, MESSAGE)).await;
    assert_eq!(ran.outcome, Outcome::Retry(failure));
    // requeue(none), requeue(some(1500)): the discriminant stands at 24, the number at 32.
    let ran = run_plain(&answering(3, (0, 0), (7, 0))).await;
    assert_eq!(ran.outcome, Outcome::Requeue(None));
    let ran = run_plain(&answering(3, (1, 0), (1500, 0))).await;
    assert_eq!(ran.outcome, Outcome::Requeue(Some(1500)));
}

#[tokio::test]
async fn a_failure_without_a_code_gets_one_and_a_success_without_a_type_has_none() {
    let ran = run_plain(&answering(1, (0, 0), MESSAGE)).await;
    assert_eq!(
        ran.outcome,
        Outcome::Error(Failure::new("ERROR", "nothing left"))
    );
    let ran = run_plain(&answering(0, (0, 0), MESSAGE)).await;
    let body = Bytes::from_static(b"nothing left");
    assert_eq!(
        ran.outcome,
        Outcome::Success {
            content_type: None,
            body
        }
    );
}

#[tokio::test]
async fn an_output_over_the_limit_is_named_and_one_at_the_limit_is_not() {
    let echo = handler(&component("", ECHO));
    let mut attempt = attempt(|spec| spec.output_bytes_max = 1000);
    // The second is refused while it is being copied out of the guest.
    for len in [1001, 3_000_000] {
        attempt.input.body = vec![b' '; len].into();
        let ran = run(&echo, &attempt).await;
        let message = limited(&ran, "OUTPUT_TOO_LARGE");
        assert_eq!(
            message,
            "the output is larger than 1000 bytes (outputBytesMax)"
        );
    }
    attempt.input.body = vec![b' '; 1000].into();
    assert_eq!(succeeded(&run(&echo, &attempt).await).len(), 1000);
}

#[tokio::test]
async fn the_execution_record_says_everything() {
    // Gives all of its memory up to the allocator's end; the first four bytes say where the record is.
    let dump = r#"
        (i32.store (i32.const 0) (local.get $in))
        (i32.store (i32.const 24) (i32.const 1024)) (i32.store (i32.const 28) (i32.const 10))
        (i32.store (i32.const 32) (i32.const 0)) (i32.store (i32.const 36) (global.get $next))
        (i32.const 16)"#;
    let mut attempt = attempt(|_| {});
    attempt.number = 2;
    attempt.requeues = 5;
    attempt.time_limit = Duration::from_millis(4321);
    attempt.idempotency_key = Some("key-1".parse().unwrap());
    attempt.traceparent = Some("00-trace".into());
    attempt.metadata = [("tenant".to_owned(), "blue".to_owned())].into();
    let ran = run(&handler(&component("", dump)), &attempt).await;
    let memory = succeeded(&ran);

    let u32_at = |at: usize| u32::from_le_bytes(memory[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
    let text_at = |at: usize| {
        let start = u32_at(at) as usize;
        std::str::from_utf8(&memory[start..start + u32_at(at + 4) as usize]).unwrap()
    };
    let record = u32_at(0) as usize;
    assert_eq!(text_at(record), attempt.execution_id.to_string());
    assert_eq!(text_at(record + 8), "under-test");
    assert_eq!(u64_at(record + 16), 3);
    assert_eq!(u32_at(record + 24), 2);
    assert_eq!(u32_at(record + 28), 3);
    assert_eq!(u64_at(record + 32), 4321);
    assert_eq!(u32_at(record + 40), 5);
    assert_eq!((memory[record + 44], text_at(record + 48)), (1, "key-1"));
    assert_eq!(memory[record + 56], 0);
    assert_eq!((memory[record + 68], text_at(record + 72)), (1, "00-trace"));
    assert_eq!(u32_at(record + 84), 1);
    let pair = u32_at(record + 80) as usize;
    assert_eq!((text_at(pair), text_at(pair + 8)), ("tenant", "blue"));
}

#[tokio::test]
async fn a_trap_a_spin_and_a_hog_are_told_apart() {
    let mut attempt = attempt(|spec| spec.memory_mb = 1);
    let ran = run(&handler(&component("", "unreachable")), &attempt).await;
    assert_eq!(retried(&ran).code, "TRAP");

    // An input that does not fit is the memory limit, met before the handler begins.
    attempt.input.body = vec![0; 2_000_000].into();
    limited(
        &run(&handler(&component("", ECHO)), &attempt).await,
        "MEMORY_LIMIT",
    );

    attempt.input = json("1");
    attempt.time_limit = Duration::from_millis(20);
    let spin = handler(&component("", "(loop $on (br $on)) unreachable"));
    let ran = run(&spin, &attempt).await;
    assert!(
        matches!(ran.outcome, Outcome::TimedOut(_)),
        "{:?}",
        ran.outcome
    );
}

#[tokio::test]
async fn text_that_is_not_utf8_is_the_guests_trap() {
    // The message is taken from where the record's bytes are: 0xff among them.
    let body = r#"(i32.store8 (i32.const 1060) (i32.const 255))
        (i32.store8 (i32.const 16) (i32.const 1))
        (i32.store (i32.const 24) (i32.const 1040)) (i32.store (i32.const 28) (i32.const 12))
        (i32.store (i32.const 32) (i32.const 1060)) (i32.store (i32.const 36) (i32.const 12))
        (i32.const 16)"#;
    let ran = run_plain(&handler(&component("", body))).await;
    assert_eq!(retried(&ran).code, "TRAP");
    assert!(retried(&ran).message.contains("utf-8"), "{:?}", ran.outcome);
}

#[tokio::test]
async fn a_long_message_is_cut() {
    let ran = run_plain(&answering(1, CODE, (8192, 20_000))).await;
    match ran.outcome {
        Outcome::Error(failure) => assert_eq!(failure.message.len(), 8192),
        other => panic!("{other:?}"),
    }
}
