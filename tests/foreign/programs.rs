//! Other people's programs, started and waited for; what they say is shown if they fail.
//!
//! **Invariant:** a program that is not there is a failure that names what brings it.

use std::process::Command;

/// Runs a program to its end, which is a good one.
#[track_caller]
pub(crate) fn must(command: &mut Command) {
    if let Err(error) = run(command) {
        panic!("{error}");
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| {
        let program = command.get_program().to_string_lossy().into_owned();
        format!("cannot run {program} ({error}): {}", brought_by(&program))
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} ended with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn brought_by(program: &str) -> &'static str {
    match program {
        "node" | "npm" => "install Node 20 or later, with npm",
        "python3" => "install Python 3 with pip and venv (on Debian: apt-get install python3-venv)",
        "clang-16" => {
            "apt-get install clang-16 lld-16 wasi-libc libclang-rt-16-dev-wasm32 (.ci/run does so)"
        }
        _ => "a package that was fetched does not have it any more",
    }
}
