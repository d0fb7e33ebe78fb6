//! Configuration and logging, by every name that they go by.

use super::*;
use crate::model::{Exposure, OpenSecret, SecretValue};

/// A program that imports `interface` with these items and lowers `function` of it as `$call`; `run` is its body, `data`
/// stands from byte 64 on.
fn importing(
    interface: &str,
    items: &str,
    function: &str,
    params: &str,
    data: &str,
    run: &str,
) -> String {
    format!(
        r#"(component
        (import "{interface}" (instance $import {items}))
        (core module $memory
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 4096))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (global.get $next)
                (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8))))))
        (core instance $m (instantiate $memory))
        (core func $call (canon lower (func $import "{function}")
            (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
        (core module $main
            (import "host" "call" (func $call (param {params})))
            (import "m" "memory" (memory 1))
            (data (i32.const 64) "{data}")
            (func $is (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))
            (func (export "run") (result i32) {run} (i32.const 0)))
        (core instance $i (instantiate $main (with "m" (instance $m)) (with "host" (instance
            (export "call" (func $call))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $out (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $out)))"#
    )
}

const CONFIG: [&str; 3] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/runtime@0.2.0-draft",
];

const CONFIG_ITEMS: &str = r#"
    (type $e (variant (case "upstream" string) (case "io" string)))
    (export "error" (type $error (eq $e)))
    (export "get" (func (param "key" string) (result (result (option string) (error $error)))))
    (export "get-all" (func (result (result (list (tuple string string)) (error $error)))))"#;

/// Traps unless the value of `key` is these four characters, as the number that they are in memory; none is 0.
fn expecting(interface: &str, key: &str, value: i32) -> String {
    let length = key.len();
    let found = match value {
        0 => "(call $is (i32.load8_u (i32.const 20)) (i32.const 0))".to_owned(),
        value => format!(
            "(call $is (i32.load8_u (i32.const 20)) (i32.const 1))
             (call $is (i32.load (i32.const 28)) (i32.const 4))
             (call $is (i32.load (i32.load (i32.const 24))) (i32.const {value}))"
        ),
    };
    let run = format!(
        "(call $call (i32.const 64) (i32.const {length}) (i32.const 16))
         (call $is (i32.load8_u (i32.const 16)) (i32.const 0)) {found}"
    );
    importing(interface, CONFIG_ITEMS, "get", "i32 i32 i32", key, &run)
}

fn four(text: &[u8; 4]) -> i32 {
    i32::from_le_bytes(*text)
}

fn configured() -> Attempt {
    let mut attempt = attempt(|spec| spec.config = map([("colour", "blue"), ("size", "huge")]));
    let secret = |key: &str, exposure| OpenSecret {
        key: key.into(),
        exposure,
        value: SecretValue::new("s3cr".to_owned()),
    };
    let hosts = vec!["api.example.org".parse().unwrap()];
    attempt.secrets = Arc::new([
        secret("token", Exposure::Config),
        secret("variable", Exposure::Env),
        secret("hidden", Exposure::Placeholder { hosts }),
    ]);
    attempt
}

#[tokio::test]
async fn configuration_is_the_specs_and_the_secrets_that_are_given_that_way() {
    let attempt = configured();
    for interface in CONFIG {
        for (key, value) in [
            ("colour", four(b"blue")),
            ("size", four(b"huge")),
            ("token", four(b"s3cr")),
            ("variable", 0),
            ("nothing", 0),
        ] {
            let code = command(&expecting(interface, key, value));
            succeeded(&run(&code, &attempt).await);
        }
        // What is not so traps: the test can fail.
        let code = command(&expecting(interface, "colour", four(b"pink")));
        retried(&run(&code, &attempt).await);
        let all = "(call $call (i32.const 16))
            (call $is (i32.load8_u (i32.const 16)) (i32.const 0))
            (call $is (i32.load (i32.const 24)) (i32.const 4))";
        let code = command(&importing(
            interface,
            CONFIG_ITEMS,
            "get-all",
            "i32",
            "",
            all,
        ));
        succeeded(&run(&code, &attempt).await);
    }
}

#[tokio::test]
async fn a_placeholder_is_what_the_guest_reads_and_not_the_secret() {
    let read = "(call $call (i32.const 64) (i32.const 6) (i32.const 16))
        (call $is (i32.load8_u (i32.const 20)) (i32.const 1))
        (call $is (i32.load (i32.const 28)) (i32.const 46))";
    let code = importing(
        CONFIG[0],
        CONFIG_ITEMS,
        "get",
        "i32 i32 i32",
        "hidden",
        read,
    );
    succeeded(&run(&command(&code), &configured()).await);
}

const LOGGING_ITEMS: &str = r#"
    (type $l (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $l)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))"#;

/// Logs `low` and a tab and `again` in the context `po` TAB `ol`, so many times.
fn logging(interface: &str, level: u8, times: u32) -> Runnable {
    let run = format!(
        "(local $left i32) (local.set $left (i32.const {times}))
         (loop $more
            (call $call (i32.const {level}) (i32.const 64) (i32.const 5) (i32.const 69) (i32.const 9))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $more (local.get $left)))"
    );
    let data = r"po\09ollow\09again";
    let params = "i32 i32 i32 i32 i32";
    command(&importing(
        interface,
        LOGGING_ITEMS,
        "log",
        params,
        data,
        &run,
    ))
}

#[tokio::test]
async fn what_is_logged_is_a_line_with_level_context_and_message() {
    for interface in ["wasi:logging/logging@0.1.0-draft", "wasi:logging/logging"] {
        for (level, word) in [(0, "trace"), (3, "warn"), (5, "critical")] {
            let ran = run_plain(&logging(interface, level, 1)).await;
            succeeded(&ran);
            let expected = format!("{word}\tpo ol\tlow\tagain");
            assert_eq!(lines(&ran, LogStream::Logging), [expected]);
            assert!(!ran.logs.truncated);
        }
    }
}

#[tokio::test]
async fn what_is_logged_counts_against_the_limit_and_is_cut_there() {
    let code = logging("wasi:logging/logging", 3, 1000);
    // A line has 20 bytes.
    let ran = run(&code, &attempt(|spec| spec.log_bytes_max = 52)).await;
    succeeded(&ran);
    let logged = lines(&ran, LogStream::Logging);
    assert_eq!(logged.len(), 3);
    assert_eq!(logged[2], "warn\tpo ol\tl");
    assert!(ran.logs.truncated);
}
