//! The guests of `guest-functions/tests-wasi` that ask what is around them, built on first use: one of every shape.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use pelton::guests::{COMPONENT_TARGET, CORE_TARGET};

use super::guests;

/// A guest that does not build fails the tests that need one, and no others.
static BUILT: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    // Adds the targets if they are missing.
    guests::built("echo");
    let folder = guests::folder().join("tests-wasi");
    build(&folder, &["--target", COMPONENT_TARGET])?;
    build(
        &folder,
        &["--target", CORE_TARGET, "--package", "probe-command"],
    )?;
    Ok(folder.join("target"))
});

fn build(folder: &Path, what: &[&str]) -> Result<(), String> {
    let output = pelton::guests::cargo(folder)
        .map_err(|error| error.to_string())?
        .args(["build", "--release", "--locked", "--quiet", "--target-dir"])
        .arg(folder.join("target"))
        .args(what)
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[track_caller]
fn wasm(target: &str, name: &str) -> Bytes {
    let folder = BUILT.as_ref().unwrap_or_else(|error| panic!("{error}"));
    let path = folder
        .join(target)
        .join("release")
        .join(format!("{name}.wasm"));
    let wasm = std::fs::read(&path);
    wasm.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .into()
}

/// A guest that asks, by the interface that it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Core,
    Command02,
    Command03,
    Handler,
    Http02,
    Http03,
}

impl Probe {
    /// The file.
    #[track_caller]
    pub(crate) fn wasm(self) -> Bytes {
        match self {
            Self::Core => wasm(CORE_TARGET, "probe-command"),
            Self::Command02 => wasm(COMPONENT_TARGET, "probe-command"),
            Self::Command03 => wasm(COMPONENT_TARGET, "probe_command03"),
            Self::Handler => wasm(COMPONENT_TARGET, "probe_handler"),
            Self::Http02 => wasm(COMPONENT_TARGET, "probe_http02"),
            Self::Http03 => wasm(COMPONENT_TARGET, "probe_http03"),
        }
    }
}

/// What a host of `wasi:http` 0.2 must allow and refuse.
#[track_caller]
pub(crate) fn rules_http02() -> Bytes {
    wasm(COMPONENT_TARGET, "rules_http02")
}

/// What a host of `wasi:http` 0.3 must allow and refuse.
#[track_caller]
pub(crate) fn rules_http03() -> Bytes {
    wasm(COMPONENT_TARGET, "rules_http03")
}
