//! Builds the functions in `guest-functions/` with the cargo that is at hand, for `demo` and for the tests.
//!
//! **Invariant:** cargo alone decides what is stale, in a target folder of its own; nothing that shapes the
//! host's build (flags, wrappers, target folders) reaches the guests'. Blocks: it belongs on a thread that may.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The target of components: every guest is built for it.
pub const COMPONENT_TARGET: &str = "wasm32-wasip2";
/// The target of core modules, which keeps exit codes: commands are built for it too.
pub const CORE_TARGET: &str = "wasm32-wasip1";

/// Lines of cargo's output that an error carries, at most.
const TAIL_LINES_MAX: usize = 40;
/// Cargo right-aligns what it is doing in this many columns.
const STATUS_COLUMNS: usize = 12;

/// What would make the guests' build depend on how the host was built or is being tested.
const HOST_VARIABLES: [&str; 15] = [
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_TERM_QUIET",
    "MAKEFLAGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// A folder of `guest-functions/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// The folder's and the package's name.
    pub name: &'static str,
    /// How it is written.
    pub kind: Kind,
}

/// How a guest is written, which says what file cargo makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A library with a typed handler: a component.
    Handler,
    /// A program with a `main`: a component, and a core module beside it.
    Command,
    /// A library that answers HTTP (`wasi:http`): a component.
    Http,
}

/// Every guest, by name. A test compares it with the folders.
pub const ALL: [Guest; 11] = [
    Guest {
        name: "echo",
        kind: Kind::Handler,
    },
    Guest {
        name: "flaky",
        kind: Kind::Command,
    },
    Guest {
        name: "json-transform",
        kind: Kind::Handler,
    },
    Guest {
        name: "link-check",
        kind: Kind::Http,
    },
    Guest {
        name: "order-intake",
        kind: Kind::Handler,
    },
    Guest {
        name: "roman-numeral",
        kind: Kind::Command,
    },
    Guest {
        name: "slow",
        kind: Kind::Handler,
    },
    Guest {
        name: "static-site",
        kind: Kind::Http,
    },
    Guest {
        name: "word-stats",
        kind: Kind::Handler,
    },
    Guest {
        name: "word-stats-http",
        kind: Kind::Http,
    },
    Guest {
        name: "word-stats-http3",
        kind: Kind::Http,
    },
];

impl Guest {
    /// The name of the file that cargo makes: a library's has no dashes.
    fn file_name(&self) -> String {
        match self.kind {
            Kind::Handler | Kind::Http => format!("{}.wasm", self.name.replace('-', "_")),
            Kind::Command => format!("{}.wasm", self.name),
        }
    }
}

/// A guest with its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Which one.
    pub guest: Guest,
    /// The component.
    pub component: PathBuf,
    /// The core module, if it is a command.
    pub core: Option<PathBuf>,
    /// A JSON file with an input to try.
    pub sample: PathBuf,
}

/// Why there are no guests.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder with guests where one could be.
    #[error(
        "no guest functions found in {}: run this from a clone of Pelton's repository, or name the folder",
        list(looked_in)
    )]
    NotFound {
        /// The folders that were tried.
        looked_in: Vec<PathBuf>,
    },
    /// No cargo.
    #[error(
        "cargo is not installed, and the guest functions are built with it: install Rust with rustup, and start again"
    )]
    NoCargo,
    /// The compiler cannot make wasm, and could not be taught.
    #[error(
        "the Rust target {target} is not installed and could not be added ({reason}): run `rustup target add {target}`, or install the same target with whatever installed Rust"
    )]
    NoTarget {
        /// The target.
        target: &'static str,
        /// What went wrong, in the words of the tool.
        reason: String,
    },
    /// Cargo refused.
    #[error("the guest functions did not build, cargo ended with {status}:\n{tail}")]
    Failed {
        /// How cargo ended.
        status: ExitStatus,
        /// The last lines that it wrote.
        tail: String,
    },
    /// Cargo was content, but a file is not where it belongs.
    #[error("cargo did not build {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A program could not be run.
    #[error("cannot run {program}: {source}")]
    Io {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// The folder of the guest functions: `explicit` if given, else the one of the clone that this program was
/// built in, else `guest-functions` in the current folder.
///
/// # Errors
/// [`Error::NotFound`]
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, Error> {
    let candidates = match explicit {
        Some(folder) => vec![folder.to_owned()],
        None => vec![
            Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-functions"),
            PathBuf::from("guest-functions"),
        ],
    };
    match candidates
        .iter()
        .find(|folder| folder.join("Cargo.toml").is_file())
    {
        Some(folder) => Ok(folder.clone()),
        None => Err(Error::NotFound {
            looked_in: candidates,
        }),
    }
}

/// Builds every guest in `folder` and says where the files are. What is up to date costs a few hundredths of
/// a second. Several callers may build at once: cargo's own lock lets one after the other in.
///
/// Missing Rust targets are added first. `progress` gets one short line for people per step.
///
/// # Errors
/// [`Error`], which says what to do where something can be done.
pub fn build(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Vec<Built>, Error> {
    let folder = folder.canonicalize().map_err(|_| Error::NotFound {
        looked_in: vec![folder.to_owned()],
    })?;
    let tools = Tools::find(&folder)?;
    for target in [COMPONENT_TARGET, CORE_TARGET] {
        tools.ensure_target(&folder, target, progress)?;
    }
    let everything: Vec<&str> = ALL.iter().map(|guest| guest.name).collect();
    tools.build(&folder, COMPONENT_TARGET, &everything, progress)?;
    let commands: Vec<&str> = ALL
        .iter()
        .filter(|guest| guest.kind == Kind::Command)
        .map(|guest| guest.name)
        .collect();
    tools.build(&folder, CORE_TARGET, &commands, progress)?;
    ALL.iter().map(|guest| collect(&folder, *guest)).collect()
}

/// A cargo that works in `folder` undisturbed by how this program is being built or tested.
///
/// # Errors
/// [`Error::NoCargo`], or [`Error::Io`] if there is one that cannot be run.
pub fn cargo(folder: &Path) -> Result<Command, Error> {
    let tools = Tools::find(folder)?;
    Ok(command(&tools.cargo, folder))
}

fn collect(folder: &Path, guest: Guest) -> Result<Built, Error> {
    let file = |target: &str| {
        let path = folder
            .join("target")
            .join(target)
            .join("release")
            .join(guest.file_name());
        if path.is_file() {
            Ok(path)
        } else {
            Err(Error::Missing { path })
        }
    };
    Ok(Built {
        guest,
        component: file(COMPONENT_TARGET)?,
        core: match guest.kind {
            Kind::Handler | Kind::Http => None,
            Kind::Command => Some(file(CORE_TARGET)?),
        },
        sample: folder.join(guest.name).join("sample.json"),
    })
}

/// Cargo and rustc of one toolchain.
struct Tools {
    cargo: PathBuf,
    rustc: PathBuf,
}

impl Tools {
    /// Those on the search path, which follow `rust-toolchain.toml`; else those that built this program.
    fn find(folder: &Path) -> Result<Self, Error> {
        let on_path = Self {
            cargo: "cargo".into(),
            rustc: "rustc".into(),
        };
        match command(&on_path.cargo, folder).arg("--version").output() {
            Ok(_) => return Ok(on_path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(cannot_run("cargo", source)),
        }
        match option_env!("CARGO").map(Path::new) {
            Some(cargo) if cargo.is_file() => Ok(Self {
                cargo: cargo.to_owned(),
                rustc: cargo.with_file_name("rustc"),
            }),
            Some(_) | None => Err(Error::NoCargo),
        }
    }

    /// Adds a target's standard library if the compiler lacks it.
    fn ensure_target(
        &self,
        folder: &Path,
        target: &'static str,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        if self.has_target(folder, target)? {
            return Ok(());
        }
        progress(&format!("Adding the Rust target {target}"));
        let no_target = |reason: String| Error::NoTarget { target, reason };
        let added = match command("rustup", folder)
            .args(["target", "add", target])
            .output()
        {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(no_target("there is no rustup".to_owned()));
            }
            Err(source) => return Err(cannot_run("rustup", source)),
        };
        if added.status.success() {
            Ok(())
        } else {
            let words = String::from_utf8_lossy(&added.stderr);
            Err(no_target(words.trim().to_owned()))
        }
    }

    fn has_target(&self, folder: &Path, target: &str) -> Result<bool, Error> {
        let output = command(&self.rustc, folder)
            .args(["--print", "target-libdir", "--target", target])
            .output()
            .map_err(|source| cannot_run("rustc", source))?;
        let libraries = String::from_utf8_lossy(&output.stdout);
        Ok(output.status.success() && Path::new(libraries.trim()).is_dir())
    }

    fn build(
        &self,
        folder: &Path,
        target: &str,
        packages: &[&str],
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let mut cargo = command(&self.cargo, folder);
        cargo
            .args(["build", "--release", "--locked", "--color", "never"])
            .args(["--target", target, "--target-dir"])
            .arg(folder.join("target"))
            .env("RUSTC", &self.rustc)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for package in packages {
            cargo.args(["--package", package]);
        }
        let mut child = cargo
            .spawn()
            .map_err(|source| cannot_run("cargo", source))?;
        let tail = follow(&mut child, progress).map_err(|source| cannot_run("cargo", source))?;
        let status = child.wait().map_err(|source| cannot_run("cargo", source))?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Failed { status, tail })
        }
    }
}

/// Reads what cargo writes until it ends: each step goes to `progress`, the last lines are returned.
fn follow(child: &mut Child, progress: &mut dyn FnMut(&str)) -> io::Result<String> {
    let mut tail = VecDeque::with_capacity(TAIL_LINES_MAX);
    let Some(stderr) = child.stderr.take() else {
        return Ok(String::new());
    };
    // By bytes: a path in a message may be no UTF-8.
    for line in BufReader::new(stderr).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        if let Some(status) = status(&line) {
            progress(status);
        }
        if tail.len() == TAIL_LINES_MAX {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    Ok(Vec::from(tail).join("\n"))
}

/// What cargo says it is doing, such as `Compiling serde v1.0.0`; none for other lines.
fn status(line: &str) -> Option<&str> {
    let (verb, rest) = line.split_at_checked(STATUS_COLUMNS)?;
    let verb = verb.trim_start();
    let capital = verb.starts_with(|first: char| first.is_ascii_uppercase());
    let word = verb.bytes().all(|byte| byte.is_ascii_alphabetic());
    (capital && word && rest.starts_with(' ')).then(|| line.trim_start())
}

fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    for variable in HOST_VARIABLES {
        command.env_remove(variable);
    }
    command
}

fn cannot_run(program: &str, source: io::Error) -> Error {
    Error::Io {
        program: program.to_owned(),
        source,
    }
}

fn list(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    folders.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_found_or_the_error_says_where_it_was_sought() {
        let found = find(None).expect("this very clone has the guests");
        assert!(found.ends_with("guest-functions"), "{}", found.display());

        let empty = tempfile::tempdir().unwrap();
        let error = find(Some(empty.path())).unwrap_err().to_string();
        assert!(
            error.contains(&empty.path().display().to_string()),
            "{error}"
        );
    }

    #[test]
    fn what_cargo_says_about_a_broken_folder_is_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Cargo.toml"), "[workspace\n").unwrap();
        let error = build(folder.path(), &mut |_| {}).unwrap_err();
        let Error::Failed { status, tail } = error else {
            panic!("expected cargo to fail, got {error}");
        };
        assert!(!status.success());
        assert!(tail.contains("Cargo.toml"), "{tail}");
    }

    #[test]
    fn a_target_that_cannot_be_added_is_named_after_it_was_announced() {
        let folder = find(None).unwrap();
        let mut said = Vec::new();
        let error = Tools::find(&folder)
            .unwrap()
            .ensure_target(&folder, "wasm32-nowhere", &mut |line| {
                said.push(line.to_owned());
            })
            .unwrap_err();
        assert_eq!(said, ["Adding the Rust target wasm32-nowhere"]);
        assert!(matches!(error, Error::NoTarget { .. }), "{error}");
        let advice = error.to_string();
        assert!(
            advice.contains("rustup target add wasm32-nowhere"),
            "{advice}"
        );
    }

    #[test]
    fn steps_are_told_from_other_lines() {
        for (line, step) in [
            ("   Compiling serde v1.0.0", Some("Compiling serde v1.0.0")),
            (
                "    Blocking waiting for file lock on build directory",
                Some("Blocking waiting for file lock on build directory"),
            ),
            ("warning: unused variable: `x`", None),
            ("error[E0425]: cannot find value", None),
            ("  --> echo/src/lib.rs:9:10", None),
            ("   |      let x = 1;", None),
            ("", None),
            ("Größe größe größe", None),
        ] {
            assert_eq!(status(line), step, "for {line:?}");
        }
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let mut child = Command::new("sh")
            .args(["-c", "seq 1 100 >&2"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let tail = follow(&mut child, &mut |_| {}).unwrap();
        child.wait().unwrap();
        assert_eq!(tail.lines().count(), TAIL_LINES_MAX);
        assert!(tail.ends_with("100"), "{tail}");
    }
}
