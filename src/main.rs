//! Starts the command line, or the compiling child that Pelton starts of itself.
//!
//! **Invariant:** the child lowers its own limits before anything else happens in it.

use std::process::ExitCode;

use pelton::runtime;

/// A call's input, output and record are made by one thread and freed by another, the store's writer: an allocator with
/// room of its own for each thread makes a synchronous call about a twentieth cheaper than the C library's.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).as_deref() == Some(runtime::WORKER_COMMAND.as_ref()) {
        return runtime::worker_main();
    }
    pelton::cli::run()
}
