//! The guests of `guest-functions/tests-http`, built on first use: HTTP functions that do what their path says.

use std::path::PathBuf;
use std::sync::LazyLock;

use bytes::Bytes;

use super::guests;

/// A guest that does not build fails the tests that need one, and no others.
static BUILT: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    // Adds the target if it is missing.
    guests::built("echo");
    let folder = guests::folder().join("tests-http");
    let output = pelton::guests::cargo(&folder)
        .map_err(|error| error.to_string())?
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--target", pelton::guests::COMPONENT_TARGET, "--target-dir"])
        .arg(folder.join("target"))
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(folder
            .join("target")
            .join(pelton::guests::COMPONENT_TARGET)
            .join("release")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
});

#[track_caller]
fn wasm(name: &str) -> Bytes {
    let folder = BUILT.as_ref().unwrap_or_else(|error| panic!("{error}"));
    let path = folder.join(format!("{name}.wasm"));
    let wasm = std::fs::read(&path);
    wasm.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .into()
}

/// `wasi:http/incoming-handler@0.2`
#[track_caller]
pub(crate) fn http02() -> Bytes {
    wasm("http02")
}

/// `wasi:http/handler@0.3`
#[track_caller]
pub(crate) fn http03() -> Bytes {
    wasm("http03")
}

/// `wasi:cli/run@0.2` that calls out
#[track_caller]
pub(crate) fn probe_calls() -> Bytes {
    wasm("probe-calls")
}

/// `wasi:cli/run@0.3`
#[track_caller]
pub(crate) fn command03() -> Bytes {
    wasm("command03")
}
