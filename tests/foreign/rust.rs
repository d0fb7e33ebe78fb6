//! The crates of the folder `rust`, built once for all tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use pelton::guests::{COMPONENT_TARGET, CORE_TARGET};

use crate::programs::run;
use crate::tools::source;

static BUILT: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign/rust");
    build(&["--target", COMPONENT_TARGET], &folder)?;
    let program = ["--target", CORE_TARGET, "--package", "foreign-program"];
    build(&program, &folder)?;
    Ok(folder)
});

fn build(what: &[&str], folder: &std::path::Path) -> Result<(), String> {
    let cargo = pelton::guests::cargo(&source("rust"));
    let mut cargo: Command = cargo.map_err(|error| error.to_string())?;
    cargo.args(["build", "--release", "--locked", "--quiet"]);
    run(cargo.args(what).arg("--target-dir").arg(folder))
}

/// What a crate became for this target.
#[track_caller]
fn built(target: &str, file: &str) -> PathBuf {
    let folder = BUILT.as_ref().unwrap_or_else(|error| panic!("{error}"));
    folder.join(target).join("release").join(file)
}

/// A library, as a component.
#[track_caller]
pub(crate) fn library(package: &str) -> PathBuf {
    built(
        COMPONENT_TARGET,
        &format!("{}.wasm", package.replace('-', "_")),
    )
}

/// The program, as a component of WASI 0.2.
#[track_caller]
pub(crate) fn program_component() -> PathBuf {
    built(COMPONENT_TARGET, "foreign-program.wasm")
}

/// The program, as a core module of preview 1.
#[track_caller]
pub(crate) fn program_module() -> PathBuf {
    built(CORE_TARGET, "foreign-program.wasm")
}
