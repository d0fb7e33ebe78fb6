//! The guest functions, built on first use, and their cases.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use pelton::guests::{self, Built};
use serde_json::Value;

/// A guest that does not build fails the tests that need one, and no others.
static GUESTS: LazyLock<Result<Vec<Built>, String>> =
    LazyLock::new(|| guests::build(&folder(), &mut |_| {}).map_err(|error| error.to_string()));

/// The folder of the guest functions.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-functions")
}

/// The guest with its files.
#[track_caller]
pub(crate) fn built(name: &str) -> &'static Built {
    match &*GUESTS {
        Ok(guests) => guests
            .iter()
            .find(|built| built.guest.name == name)
            .unwrap_or_else(|| panic!("there is no guest {name}")),
        Err(error) => panic!("{error}"),
    }
}

/// The guest's component.
#[track_caller]
pub(crate) fn wasm(name: &str) -> Bytes {
    read(&built(name).component).into()
}

/// The core module of a guest that is a command.
#[track_caller]
pub(crate) fn core_wasm(name: &str) -> Bytes {
    let path = built(name).core.as_deref();
    read(path.unwrap_or_else(|| panic!("{name} is no command"))).into()
}

/// What comes out of what: `input`, `output`, and the rarer fields that `pelton_guest::testing` lists.
#[track_caller]
pub(crate) fn cases(name: &str) -> Vec<Value> {
    json(&folder().join(name).join("cases.json"))
}

/// An input to try.
#[track_caller]
pub(crate) fn sample(name: &str) -> Value {
    json(&folder().join(name).join("sample.json"))
}

#[track_caller]
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&read(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
