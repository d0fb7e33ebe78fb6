//! The body of a rollback: `{"version": n}`.
//!
//! **Invariant:** a version is a number from 1 on.

use bytes::Bytes;

use super::fields::Fields;
use super::spec::object;
use crate::api::error::{Error, quoted};
use crate::model::VersionNumber;

/// Reads which version to go back to.
///
/// # Errors
/// 400 with all complaints.
pub(in crate::api) fn rollback_version(body: &Bytes) -> Result<VersionNumber, Error> {
    let object = object(body)?;
    let is_said = object
        .get("version")
        .is_some_and(|version| !version.is_null());
    let mut complaints = Vec::new();
    let mut fields = Fields::new(object, &mut complaints);
    let version = fields.number("version", &(1..=u64::MAX));
    if !is_said {
        fields.complain(
            "version",
            "is needed: the number of the version to go back to",
        );
    }
    for name in fields.left() {
        fields.complain(&quoted(&name), "there is no such field: there is version");
    }
    match version {
        Some(version) if complaints.is_empty() => Ok(VersionNumber(version)),
        _ => Err(Error::invalid(complaints)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_names_a_version() {
        let version = |body: &str| rollback_version(&Bytes::copy_from_slice(body.as_bytes()));
        assert_eq!(version(r#"{"version":3}"#).unwrap(), VersionNumber(3));
        for bad in [
            "{}",
            r#"{"version":null}"#,
            r#"{"version":0}"#,
            r#"{"version":1,"x":2}"#,
        ] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
