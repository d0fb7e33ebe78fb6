//! Tests of running: hostile and honest guests as inline WAT, on the serving engine.
//!
//! **Invariant:** one engine and one runner for all; no test looks at the clock.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test says which outcome it wants; all others are wrong alike"
)]

mod commands;
mod components;
mod extras;
mod handlers;
mod host_limits;
mod leaks;
mod limits;
mod slots;
mod surroundings;
mod time;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use wasmtime::Module;
use wasmtime::component::Component;

use super::Runner;
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{
    Code, Digest, ExecutionId, Failure, Fence, Input, JSON, LogStream, Shape, Timestamp, Version,
    VersionNumber, VersionSpec,
};
use crate::net;
use crate::runtime::engine::Slots;
use crate::runtime::engines::Engines;
use crate::runtime::runnable::Runnable;

/// A limit that no test comes near unless it means to.
const LONG: Duration = Duration::from_secs(300);

struct World {
    engines: Engines,
    runner: Runner,
}

static WORLD: LazyLock<World> = LazyLock::new(|| World::of(16));

impl World {
    /// A world of its own, with a pool for so many guests.
    fn of(guests_max: u32) -> Self {
        let engines = Engines::open(guests_max, Slots::Pool).unwrap();
        Self {
            runner: Runner::new(engines.epochs(), client()),
            engines,
        }
    }

    fn core(&self, wat: &str) -> Runnable {
        let plain = self.engines.plain();
        let module = Module::new(&plain.engine, wat::parse_str(wat).unwrap()).unwrap();
        Runnable::module(&plain.linkers, &module).unwrap()
    }

    fn component(&self, wat: &str, shape: Shape) -> Runnable {
        let plain = self.engines.plain();
        let component = Component::new(&plain.engine, wat::parse_str(wat).unwrap()).unwrap();
        Runnable::component(&plain.linkers, &component, shape).unwrap()
    }
}

/// The imports and helpers that core programs of the tests share. Low memory is scratch: 0..64 for iovecs
/// and results.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (func $write (param $fd i32) (param $at i32) (param $len i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $len))
        (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
    ;; Sleeps for this many milliseconds.
    (func $sleep (param $ms i64)
        (i32.store (i32.const 16) (i32.const 0))          ;; userdata, then tag 0: a clock
        (i32.store (i32.const 24) (i32.const 0))
        (i32.store (i32.const 32) (i32.const 1))          ;; the monotonic one
        (i64.store (i32.const 40) (i64.mul (local.get $ms) (i64.const 1000000)))
        (drop (call $poll_oneoff (i32.const 16) (i32.const 128) (i32.const 1) (i32.const 8))))
"#;

/// A core program: its memory, its data and functions, and what `_start` does.
fn program(memory: &str, items: &str, start: &str) -> Runnable {
    core(&program_text(memory, items, start))
}

fn program_text(memory: &str, items: &str, start: &str) -> String {
    format!(
        r#"(module {PRELUDE} (memory (export "memory") {memory}) {items}
            (func (export "_start") {start}))"#
    )
}

fn core(wat: &str) -> Runnable {
    WORLD.core(wat)
}

fn command(wat: &str) -> Runnable {
    WORLD.component(wat, Shape::Command02)
}

fn handler(wat: &str) -> Runnable {
    WORLD.component(wat, Shape::Handler)
}

/// A first attempt with a spec of defaults but for `change`.
fn attempt(change: impl FnOnce(&mut VersionSpec)) -> Attempt {
    let mut spec = VersionSpec::default();
    change(&mut spec);
    Attempt {
        execution_id: ExecutionId::new(Timestamp(1_000)),
        function: "under-test".parse().unwrap(),
        version: Arc::new(Version {
            number: VersionNumber(3),
            code: Code::Wasm {
                digest: Digest::from_bytes([0; 32]),
                shape: Shape::CoreCommand,
                size: 0,
            },
            spec,
            created_at: Timestamp(0),
        }),
        number: 1,
        max_attempts: 3,
        requeues: 0,
        faults: 0,
        fence: Fence::new(1, 1),
        time_limit: LONG,
        idempotency_key: None,
        trace_id: None,
        traceparent: None,
        metadata: [].into(),
        input: json("null"),
        secrets: Arc::default(),
    }
}

/// A client that may call this machine's loopback.
fn client() -> net::Client {
    net::Client::new(net::Options {
        loopback: net::Loopback::Allowed,
        ..net::Options::default()
    })
}

fn json(text: &str) -> Input {
    Input {
        content_type: JSON,
        body: Bytes::copy_from_slice(text.as_bytes()),
    }
}

async fn run(code: &Runnable, attempt: &Attempt) -> Ran {
    let never = CancellationToken::new();
    WORLD.runner.run(code, attempt, &never).await
}

/// Runs with the default spec.
async fn run_plain(code: &Runnable) -> Ran {
    run(code, &attempt(|_| {})).await
}

#[track_caller]
fn succeeded(ran: &Ran) -> &[u8] {
    match &ran.outcome {
        Outcome::Success { body, .. } => body,
        other => panic!("not a success: {other:?}, logs: {:?}", ran.logs),
    }
}

#[track_caller]
fn limited<'a>(ran: &'a Ran, code: &str) -> &'a str {
    match &ran.outcome {
        Outcome::Limit(failure) if failure.code == code => &failure.message,
        other => panic!("not {code}: {other:?}"),
    }
}

#[track_caller]
fn retried(ran: &Ran) -> &Failure {
    match &ran.outcome {
        Outcome::Retry(failure) => failure,
        other => panic!("not a retry: {other:?}"),
    }
}

fn lines(ran: &Ran, stream: LogStream) -> Vec<&str> {
    let of_stream = ran.logs.lines.iter().filter(|line| line.stream == stream);
    of_stream.map(|line| line.text.as_str()).collect()
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    owned.into_iter().collect()
}
