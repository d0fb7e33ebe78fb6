//! The compiling child: our own binary, started again to read one file and answer with its machine code.
//!
//! **Invariant:** its limits are lowered before it reads a byte; it knows no folder, no key and no
//! environment, and it ends with its parent.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::str::FromStr;

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::compile::{Toolchains, digest_of};
use super::wire::{Verdict, shape_word};

/// The hidden first argument that makes our binary a compiling child. `main` looks for it before anything
/// else and calls [`worker_main`].
pub const WORKER_COMMAND: &str = "__compile-worker";

/// How much less important than its parent the child is to the scheduler of the kernel.
const NICENESS: i32 = 10;
/// File descriptors that the child may open.
const FILES_MAX: u64 = 32;

/// What the parent tells the child, as arguments after [`WORKER_COMMAND`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// The process whose end is also the child's.
    pub(super) parent: u32,
    /// Address space, in bytes.
    pub(super) memory_bytes_max: u64,
    /// Processor time of all threads together, in s.
    pub(super) cpu_s_max: u64,
}

impl Order {
    /// As arguments.
    pub(super) fn to_args(self) -> [String; 3] {
        [
            self.parent.to_string(),
            self.memory_bytes_max.to_string(),
            self.cpu_s_max.to_string(),
        ]
    }

    fn from_args(args: impl Iterator<Item = String>) -> Option<Self> {
        fn next<T: FromStr>(args: &mut impl Iterator<Item = String>) -> Option<T> {
            args.next()?.parse().ok()
        }
        let mut args = args;
        Some(Self {
            parent: next(&mut args)?,
            memory_bytes_max: next(&mut args)?,
            cpu_s_max: next(&mut args)?,
        })
    }
}

/// The whole life of the child: lowers its limits, reads wasm from standard input, answers on standard
/// output, says trouble on standard error.
pub fn worker_main() -> ExitCode {
    let args = std::env::args_os()
        .skip(2)
        .filter_map(|arg| arg.into_string().ok());
    let Some(order) = Order::from_args(args) else {
        let _ = writeln!(io::stderr(), "{WORKER_COMMAND} is for Pelton itself");
        return ExitCode::from(2);
    };
    match lower_limits(order).and_then(|()| answer()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the compiling child failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn lower_limits(order: Order) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the line above took effect.
    let parent = rustix::process::getppid().map(Pid::as_raw_nonzero);
    if parent.map(|pid| pid.get().unsigned_abs()) != Some(order.parent) {
        return Err(io::Error::other("the parent is gone"));
    }
    let limit = |resource, max: u64| {
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: Some(max),
                maximum: Some(max),
            },
        )
    };
    limit(Resource::As, order.memory_bytes_max)?;
    limit(Resource::Cpu, order.cpu_s_max)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, FILES_MAX)?;
    rustix::process::nice(NICENESS)?;
    Ok(())
}

/// Reads the file, and writes the length of the verdict (4 bytes, little endian), the verdict and the artifact.
fn answer() -> io::Result<()> {
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm)?;
    let compiled = Toolchains::default().compile(&wasm);
    let (verdict, artifact) = match compiled {
        Ok(compiled) => (
            Verdict::Accepted {
                digest: digest_of(&wasm).to_string(),
                shape: shape_word(compiled.shape).to_owned(),
                needs: compiled.needs,
                flavor: compiled.flavor,
                outgoing: compiled.outgoing,
            },
            compiled.artifact,
        ),
        Err(refused) => (refused.into(), bytes::Bytes::new()),
    };
    let verdict = serde_json::to_vec(&verdict)?;
    let length = u32::try_from(verdict.len()).map_err(io::Error::other)?;
    let mut out = io::stdout().lock();
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&verdict)?;
    out.write_all(&artifact)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_the_command_line() {
        let order = Order {
            parent: 7,
            memory_bytes_max: 1 << 31,
            cpu_s_max: 240,
        };
        assert_eq!(Order::from_args(order.to_args().into_iter()), Some(order));
        assert_eq!(Order::from_args(["7".to_owned()].into_iter()), None);
    }
}
