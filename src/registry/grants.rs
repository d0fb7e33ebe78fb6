//! What a version's code asks for, held against what its spec grants.
//!
//! **Invariant:** whatever is not granted is refused before the version exists, and the refusal names the field that
//! would grant it.

use super::Error;
use crate::model::{Code, VersionSpec};

/// Checks a version that is about to become the active one.
///
/// # Errors
/// [`Error::Invalid`] where the spec grants what its code can make no use of.
pub(super) fn check(code: &Code, spec: &VersionSpec) -> Result<(), Error> {
    match code {
        Code::Wasm { .. } => Ok(()),
        Code::Echo | Code::Endpoint { .. } => no_wasm(spec),
    }
}

/// A service behind a URL is not ours to give anything to.
fn no_wasm(spec: &VersionSpec) -> Result<(), Error> {
    let mut complaints = Vec::new();
    if !spec.secrets.is_empty() {
        complaints.push("secrets: only wasm is given secrets: leave them out".to_owned());
    }
    if spec.allow_hosts.is_some() {
        complaints.push("allowHosts: only wasm is held to it: leave it out".to_owned());
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
    }
}
