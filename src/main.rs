//! Parse, dispatch, print the error chain, exit code; nothing else.

use std::process::ExitCode;

use pelton::runtime;

fn main() -> ExitCode {
    // Before anything else: a compiling child lowers its limits first.
    if std::env::args_os().nth(1).as_deref() == Some(runtime::WORKER_COMMAND.as_ref()) {
        return runtime::worker_main();
    }
    ExitCode::SUCCESS
}
