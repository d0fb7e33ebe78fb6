//! What a guest leaves in its slot is never found by a later one: every way of wiping, both engines, every kind of
//! file, and every way to end. Most guests here look for the marks of those before them, and leave their own.

use std::fmt::Write as _;
use std::pin::pin;

use futures_util::poll;
use wasmtime::PoolingAllocationConfig;

use super::handlers::component;
use super::*;
use crate::runtime::engine::{Flavor, Wipe, serving_with};
use crate::runtime::epoch::{Epochs, TICK};
use crate::runtime::host::Linkers;

/// Guests that run one after the other in the same few slots, for each engine, way of wiping and kind of file.
const RUNS: usize = 300;
/// Memory that is looked through: from here (below are inputs and constants) to there.
const FROM: u32 = 65_536;
const TO: u32 = 655_360;
/// From here on a mark stands in every second page only: more regions than one scan of pages reports.
const STRIPES_FROM: u32 = 327_680;

/// Traps with `unreachable` if there is a mark of somebody else in the memory, and leaves marks of its own.
/// Needs a local `$at` and ten pages.
fn nose() -> String {
    format!(
        "(local.set $at (i32.const {FROM}))
        (loop $look
            (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $look (i32.lt_u (local.get $at) (i32.const {TO}))))
        (memory.fill (i32.const {FROM}) (i32.const 0xA5) (i32.const {}))
        (local.set $at (i32.const {STRIPES_FROM}))
        (loop $stripe
            (i64.store (local.get $at) (i64.const 0xA5A5A5A5A5A5A5A5))
            (local.set $at (i32.add (local.get $at) (i32.const 8192)))
            (br_if $stripe (i32.lt_u (local.get $at) (i32.const {TO}))))",
        STRIPES_FROM - FROM
    )
}

/// The same for a table, and a stack that is used deeply: what it adds up to is wrong if a frame is not its own.
/// `$rummage` is to be called before anything else.
fn module_items() -> String {
    format!(
        "(table $t 1000 funcref) (elem declare func $sum)
        (func $sum (param $n i64) (result i64)
            (local $a i64) (local $b i64)
            (if (i64.eqz (local.get $n)) (then (return (i64.const 0))))
            (local.set $a (i64.add (local.get $a) (local.get $n)))
            (local.set $b (call $sum (i64.sub (local.get $n) (i64.const 1))))
            (i64.add (local.get $a) (local.get $b)))
        (func $rummage (local $at i32)
            (loop $look
                (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then unreachable))
                (table.set $t (local.get $at) (ref.func $sum))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $look (i32.lt_u (local.get $at) (i32.const 1000))))
            (if (i64.ne (call $sum (i64.const 3000)) (i64.const 4501500)) (then unreachable))
            {})",
        nose()
    )
}

/// How a guest ends, by the input's first digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Returns,
    Traps,
    Cut,
}

impl End {
    const ALL: [Self; 3] = [Self::Returns, Self::Traps, Self::Cut];

    fn input(self) -> &'static str {
        match self {
            Self::Returns => "1",
            Self::Traps => "2",
            Self::Cut => "3",
        }
    }
}

/// Ends as a digit says, which this expression loads.
fn end_by(digit: &str) -> String {
    format!(
        "(if (i32.eq {digit} (i32.const 50)) (then (drop (i32.div_u (i32.const 1) (i32.const 0)))))
        (if (i32.eq {digit} (i32.const 51)) (then (loop $on (br $on))))"
    )
}

struct Kind {
    name: &'static str,
    ends: &'static [End],
    wat: String,
    shape: Shape,
}

impl Kind {
    /// Whether there is code of this kind for an engine.
    fn runs_on(&self, flavor: Flavor) -> bool {
        match self.shape {
            Shape::Http03 | Shape::Command03 => flavor == Flavor::Async,
            Shape::Handler | Shape::Http02 | Shape::Command02 | Shape::CoreCommand => true,
        }
    }
}

/// One of every shape.
fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind {
        name: "core module",
        ends: &End::ALL,
        wat: core_module(),
        shape: Shape::CoreCommand,
    }];
    let mut body = format!(
        "(local $at i32) (drop (memory.grow (i32.const 9))) {}",
        nose()
    );
    let digit = "(i32.load8_u (i32.load (i32.add (local.get $in) (i32.const 96))))";
    let _ = write!(body, "{} {}", end_by(digit), super::handlers::ECHO);
    kinds.push(Kind {
        name: "handler",
        ends: &End::ALL,
        wat: component("", &body),
        shape: Shape::Handler,
    });
    let main = format!(
        "(core module $main (memory 10) {}
            (func (export \"run\") (result i32) (call $rummage) (i32.const 0))
            (func (export \"handle\") (param i32 i32) (call $rummage))
            (func (export \"handle03\") (param i32) (result i32)
                (call $rummage) (i32.store8 (i32.const 64) (i32.const 1)) (i32.const 64))
            (export \"memory\" (memory 0)))
        (core instance $i (instantiate $main))",
        module_items()
    );
    kinds.push(Kind {
        name: "command",
        ends: &[End::Returns],
        wat: format!(
            r#"(component {main}
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $out (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $out)))"#
        ),
        shape: Shape::Command02,
    });
    kinds.push(Kind {
        name: "web function",
        ends: &[End::Returns],
        wat: format!(
            r#"(component
                (import "wasi:http/types@0.2.0" (instance $types
                    (export "incoming-request" (type (sub resource)))
                    (export "response-outparam" (type (sub resource)))))
                (alias export $types "incoming-request" (type $request))
                (alias export $types "response-outparam" (type $outparam))
                {main}
                (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
                    (canon lift (core func $i "handle")))
                (instance $out (export "handle" (func $handle)))
                (export "wasi:http/incoming-handler@0.2.0" (instance $out)))"#
        ),
        shape: Shape::Http02,
    });
    kinds.extend(kinds_03(&main));
    kinds
}

/// Those of the newer WASI.
fn kinds_03(main: &str) -> [Kind; 2] {
    let command = format!(
        r#"(component {main}
            (func $run async (result (result)) (canon lift (core func $i "run")))
            (instance $out (export "run" (func $run)))
            (export "wasi:cli/run@0.3.0" (instance $out)))"#
    );
    [
        Kind {
            name: "command 0.3",
            ends: &[End::Returns],
            wat: command,
            shape: Shape::Command03,
        },
        Kind {
            name: "web function 0.3",
            ends: &[End::Returns],
            wat: web_function_03(main),
            shape: Shape::Http03,
        },
    ]
}

/// Answers every request with the first of the codes for errors, once `handle03` has let it.
fn web_function_03(main: &str) -> String {
    let cases = [
        ("DNS-timeout", ""),
        ("DNS-error", "$dns"),
        ("destination-not-found", ""),
        ("destination-unavailable", ""),
        ("destination-IP-prohibited", ""),
        ("destination-IP-unroutable", ""),
        ("connection-refused", ""),
        ("connection-terminated", ""),
        ("connection-timeout", ""),
        ("connection-read-timeout", ""),
        ("connection-write-timeout", ""),
        ("connection-limit-reached", ""),
        ("TLS-protocol-error", ""),
        ("TLS-certificate-error", ""),
        ("TLS-alert-received", "$tls"),
        ("HTTP-request-denied", ""),
        ("HTTP-request-length-required", ""),
        ("HTTP-request-body-size", "(option u64)"),
        ("HTTP-request-method-invalid", ""),
        ("HTTP-request-URI-invalid", ""),
        ("HTTP-request-URI-too-long", ""),
        ("HTTP-request-header-section-size", "(option u32)"),
        ("HTTP-request-header-size", "(option $field)"),
        ("HTTP-request-trailer-section-size", "(option u32)"),
        ("HTTP-request-trailer-size", "$field"),
        ("HTTP-response-incomplete", ""),
        ("HTTP-response-header-section-size", "(option u32)"),
        ("HTTP-response-header-size", "$field"),
        ("HTTP-response-body-size", "(option u64)"),
        ("HTTP-response-trailer-section-size", "(option u32)"),
        ("HTTP-response-trailer-size", "$field"),
        ("HTTP-response-transfer-coding", "(option string)"),
        ("HTTP-response-content-coding", "(option string)"),
        ("HTTP-response-timeout", ""),
        ("HTTP-upgrade-failed", ""),
        ("HTTP-protocol-error", ""),
        ("loop-detected", ""),
        ("configuration-error", ""),
        ("internal-error", "(option string)"),
    ];
    let cases = cases.map(|(name, payload)| format!("(case \"{name}\" {payload})"));
    let cases = cases.concat();
    format!(
        r#"(component
            (import "wasi:http/types@0.3.0" (instance $types
                (export "request" (type (sub resource)))
                (export "response" (type (sub resource)))
                (type $dns-record (record (field "rcode" (option string)) (field "info-code" (option u16))))
                (export "DNS-error-payload" (type $dns (eq $dns-record)))
                (type $tls-record (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
                (export "TLS-alert-received-payload" (type $tls (eq $tls-record)))
                (type $field-record (record (field "field-name" (option string)) (field "field-size" (option u32))))
                (export "field-size-payload" (type $field (eq $field-record)))
                (type $codes (variant {cases}))
                (export "error-code" (type (eq $codes)))))
            (alias export $types "request" (type $request))
            (alias export $types "response" (type $response))
            (alias export $types "error-code" (type $code))
            {main}
            (func $handle async (param "request" (own $request)) (result (result (own $response) (error $code)))
                (canon lift (core func $i "handle03") (memory (core memory $i "memory"))))
            (instance $out (export "handle" (func $handle)))
            (export "wasi:http/handler@0.3.0" (instance $out)))"#
    )
}

fn core_module() -> String {
    let start = format!(
        "(call $rummage)
        (i32.store (i32.const 0) (i32.const 64))
        (i32.store (i32.const 4) (i32.const 1))
        (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        {}",
        end_by("(i32.load8_u (i32.const 64))")
    );
    program_text("10", &module_items(), &start)
}

/// Runs once; a run that is to be cut is well under way when it is.
async fn run_to(runner: &Runner, code: &Runnable, attempt: &Attempt, end: End) -> Ran {
    let stop = CancellationToken::new();
    let mut running = pin!(runner.run(code, attempt, &stop));
    if end == End::Cut {
        assert!(poll!(&mut running).is_pending());
        stop.cancel();
    }
    running.await
}

#[track_caller]
fn check(ran: &Ran, end: End, shape: Shape, of: &str) {
    let ended = match (&ran.outcome, end) {
        (Outcome::Success { .. }, End::Returns) | (Outcome::Interrupted, End::Cut) => true,
        // Nothing was answered, which is a mistake of another kind than a trap.
        (Outcome::Retry(failure), End::Returns) => {
            matches!(shape, Shape::Http02 | Shape::Http03) && failure.code != "TRAP"
        }
        (Outcome::Retry(failure), End::Traps) => failure.message.contains("divide by zero"),
        _ => false,
    };
    assert!(ended, "{of}, {end:?}: {:?}", ran.outcome);
}

/// Whoever looks twice finds what it left itself: the noses below would tell.
#[tokio::test]
async fn a_guest_that_looks_finds_marks() {
    let twice = program("10", &module_items(), "(call $rummage) (call $rummage)");
    let ran = run_plain(&twice).await;
    assert!(retried(&ran).message.contains("unreachable"));
}

#[test]
fn every_shape_is_looked_into() {
    let kinds = kinds();
    for shape in [
        Shape::Handler,
        Shape::Http02,
        Shape::Http03,
        Shape::Command02,
        Shape::Command03,
        Shape::CoreCommand,
    ] {
        // Without a wildcard, so that a new shape is not forgotten.
        match shape {
            Shape::Handler
            | Shape::Http02
            | Shape::Http03
            | Shape::Command02
            | Shape::Command03
            | Shape::CoreCommand => {}
        }
        assert!(kinds.iter().any(|kind| kind.shape == shape), "{shape:?}");
    }
}

#[tokio::test]
async fn no_guest_of_any_kind_finds_what_another_left() {
    let scan = PoolingAllocationConfig::is_pagemap_scan_available();
    let slow = Wipe::AllPages { reason: "test" };
    let wipes = scan.then_some(Wipe::TouchedPages).into_iter().chain([slow]);
    for wipe in wipes {
        for flavor in Flavor::ALL {
            let (engine, _) = serving_with(flavor, 2, wipe.clone()).unwrap();
            let linkers = Linkers::new(&engine, flavor).unwrap();
            let epochs = Epochs::start(&engine, TICK).unwrap();
            let runner = Runner::new(&Arc::new(epochs), client());
            for kind in kinds().iter().filter(|kind| kind.runs_on(flavor)) {
                let wasm = wat::parse_str(&kind.wat).unwrap();
                let code = match kind.shape {
                    Shape::CoreCommand => {
                        let module = Module::new(&engine, wasm).unwrap();
                        Runnable::module(&linkers, &module).unwrap()
                    }
                    shape => {
                        let component = Component::new(&engine, wasm).unwrap();
                        Runnable::component(&linkers, &component, shape).unwrap()
                    }
                };
                let of = format!("{}, {} engine, {wipe}", kind.name, flavor.word());
                for end in kind.ends.iter().cycle().take(RUNS) {
                    let mut attempt = attempt(|_| {});
                    attempt.input = json(end.input());
                    let ran = run_to(&runner, &code, &attempt, *end).await;
                    check(&ran, *end, kind.shape, &of);
                }
            }
        }
    }
}
