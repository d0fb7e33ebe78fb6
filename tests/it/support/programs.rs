//! Programs as inline WAT: core commands that do one thing, mostly a bad one.

use bytes::Bytes;

/// What the programs share. Low memory is scratch: 0..64 for iovecs and results.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (func $write (param $fd i32) (param $at i32) (param $len i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $len))
        (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func $copy (param $fd i32)
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 32768))
        (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $write (local.get $fd) (i32.const 1024) (i32.load (i32.const 8))))
    (func $dice (result i32)
        (drop (call $random_get (i32.const 12) (i32.const 1)))
        (i32.load8_u (i32.const 12)))
    (func $sleep (param $ms i64)
        (i32.store (i32.const 16) (i32.const 0))
        (i32.store (i32.const 24) (i32.const 0))
        (i32.store (i32.const 32) (i32.const 1))
        (i64.store (i32.const 40) (i64.mul (local.get $ms) (i64.const 1000000)))
        (drop (call $poll_oneoff (i32.const 16) (i32.const 128) (i32.const 1) (i32.const 8))))
"#;

/// Writes its input, as long as it is short, to standard output.
pub(crate) const COPIES: &str = "(call $copy (i32.const 1))";
/// The same, a little later.
pub(crate) const NAPS: &str = "(call $sleep (i64.const 20)) (call $copy (i32.const 1))";
/// The same if the dice say so; else it asks for a retry or a requeue.
pub(crate) const WAVERS: &str = "
    (if (i32.lt_u (call $dice) (i32.const 64)) (then (call $exit (i32.const 75))))
    (if (i32.lt_u (call $dice) (i32.const 64)) (then (call $exit (i32.const 1))))
    (call $copy (i32.const 1))";
/// Says its input on standard error and ends with 65: bad data.
pub(crate) const REFUSES: &str = "(call $copy (i32.const 2)) (call $exit (i32.const 65))";
/// The same, but as a failure that may pass.
pub(crate) const FAILS: &str = "(call $copy (i32.const 2)) (call $exit (i32.const 1))";
/// Computes for ever.
pub(crate) const SPINS: &str = "(loop $on (br $on))";
/// Waits in the host for ten minutes.
pub(crate) const SLEEPS: &str = "(call $sleep (i64.const 600000))";
/// Takes memory until it gets no more, then gives up as an allocator does.
pub(crate) const HOARDS: &str =
    "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
/// Writes to standard output for ever.
pub(crate) const FLOODS: &str =
    "(loop $on (call $write (i32.const 1) (i32.const 1024) (i32.const 32768)) (br $on))";
/// Calls itself for ever.
pub(crate) const RECURSES: &str = "(call $deeper)";

/// A program whose `_start` does this.
#[track_caller]
pub(crate) fn program(start: &str) -> Bytes {
    program_with("", start)
}

/// A program with further items.
#[track_caller]
pub(crate) fn program_with(items: &str, start: &str) -> Bytes {
    let wat = format!(
        r#"(module {PRELUDE} (memory (export "memory") 1) {items}
            (func $deeper (call $deeper) (call $deeper))
            (func (export "_start") {start}))"#
    );
    wat::parse_str(wat).unwrap().into()
}

/// A program that says something on standard error and ends with this code.
#[track_caller]
pub(crate) fn exits(code: u32, words: &str) -> Bytes {
    program_with(
        &format!("(data (i32.const 1024) {words:?})"),
        &format!(
            "(call $write (i32.const 2) (i32.const 1024) (i32.const {})) (call $exit (i32.const {code}))",
            words.len()
        ),
    )
}
