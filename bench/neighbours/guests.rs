//! Neighbours that take all that they get, as text: core commands without a line of anybody's library.
//!
//! **Invariant:** what a guest asks for it gets, or it traps: none is by mistake a quiet neighbour.

/// Size of the memory that [`TOUCHES`] goes over, in MiB.
pub(crate) const TOUCHED_MIB: u32 = 256;

/// Computes for ever.
pub(crate) const SPINS: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "_start") (loop $on (br $on))))"#;

/// Takes memory up to [`TOUCHED_MIB`], writes to each of its pages four times, and ends.
pub(crate) const TOUCHES: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "_start") (local $at i32) (local $round i32)
        (if (i32.ne (memory.grow (i32.const 4095)) (i32.const 1)) (then unreachable))
        (loop $rounds
            (local.set $at (i32.const 0))
            (loop $pages
                (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (i32.const 1)))
                (local.set $at (i32.add (local.get $at) (i32.const 4096)))
                (br_if $pages (i32.lt_u (local.get $at) (i32.const 0x10000000))))
            (local.set $round (i32.add (local.get $round) (i32.const 1)))
            (br_if $rounds (i32.lt_u (local.get $round) (i32.const 4))))
        (if (i32.ne (i32.load (i32.const 0x0ffff000)) (i32.const 4)) (then unreachable))))"#;

/// Writes lines of 64 bytes to its log, more than the log takes as long as nobody says otherwise, and ends.
pub(crate) const CHATS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 1024) "neighbours talk, and talk, and talk, and talk, and talk, and so\n")
    (func (export "_start") (local $lines i32)
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 64))
        (loop $on
            (if (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
            (local.set $lines (i32.add (local.get $lines) (i32.const 1)))
            (br_if $on (i32.lt_u (local.get $lines) (i32.const 1200))))))"#;

/// The same without an end.
pub(crate) const BABBLES: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 1024) "neighbours talk, and talk, and talk, and talk, and talk, and so\n")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 64))
        (loop $on
            (if (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
            (br $on))))"#;

/// Computes for about a millisecond, and ends.
pub(crate) const COMPUTES: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "_start") (local $turns i32)
        (loop $on
            (local.set $turns (i32.add (local.get $turns) (i32.const 1)))
            (br_if $on (i32.lt_u (local.get $turns) (i32.const 2000000))))))"#;
