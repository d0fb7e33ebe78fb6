//! The smallest web function: a component of `wasi:http` 0.2 that answers `hello` at its path of that name.
//!
//! **Invariant:** both sides of a comparison get the very same file.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Builds it, and says where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let folder = ::pelton::guests::find(None)?.join("tests-http");
    let target = folder.join("target");
    let status = ::pelton::guests::cargo(&folder)?
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--package", "http02"])
        .args(["--target", ::pelton::guests::COMPONENT_TARGET])
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !status.success() {
        bail!("the web function did not build: {status}");
    }
    Ok(target
        .join(::pelton::guests::COMPONENT_TARGET)
        .join("release/http02.wasm"))
}
