//! Starts the command line, or the compiling child that Pelton starts of itself.
//!
//! **Invariant:** the child lowers its own limits before anything else happens in it.

use std::process::ExitCode;

use pelton::runtime;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).as_deref() == Some(runtime::WORKER_COMMAND.as_ref()) {
        return runtime::worker_main();
    }
    pelton::cli::run()
}
