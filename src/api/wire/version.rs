//! The body of a rollback and of a redrive: `{"version": n}`.
//!
//! **Invariant:** a version is a number from 1 on.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::fields::Fields;
use super::spec::object;
use crate::api::error::{Error, quoted};
use crate::model::VersionNumber;

/// Reads which version to go back to.
///
/// # Errors
/// 400 with all complaints.
pub(in crate::api) fn rollback_version(body: &Bytes) -> Result<VersionNumber, Error> {
    let needed = "is needed: the number of the version to go back to";
    let version = version(object(body)?)?;
    version.ok_or_else(|| Error::invalid_field("version", needed))
}

/// Reads which version to run again with; none means the active one. The body may be empty.
///
/// # Errors
/// 400 with all complaints.
pub(in crate::api) fn redrive_version(body: &Bytes) -> Result<Option<VersionNumber>, Error> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    version(object(body)?)
}

fn version(object: Map<String, Value>) -> Result<Option<VersionNumber>, Error> {
    let mut complaints = Vec::new();
    let mut fields = Fields::new(object, &mut complaints);
    let version = version_field(&mut fields);
    for name in fields.left() {
        fields.complain(&quoted(&name), "there is no such field: there is version");
    }
    if complaints.is_empty() {
        Ok(version)
    } else {
        Err(Error::invalid(complaints))
    }
}

/// The member `version` of an object that is being read.
pub(super) fn version_field(fields: &mut Fields<'_>) -> Option<VersionNumber> {
    let number = fields.number("version", &(1..=u64::MAX));
    number.map(VersionNumber)
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

    #[test]
    fn a_redrive_may_name_one() {
        let version = |body: &str| redrive_version(&Bytes::copy_from_slice(body.as_bytes()));
        assert_eq!(version(r#"{"version":3}"#).unwrap(), Some(VersionNumber(3)));
        for none in ["", " ", "{}", r#"{"version":null}"#] {
            assert_eq!(version(none).unwrap(), None, "{none}");
        }
        let error = format!("{:?}", version(r#"{"version":0}"#).unwrap_err());
        assert!(error.contains("a whole number from 1, not 0"), "{error}");
        assert!(version(r#"{"x":2}"#).is_err());
        assert!(version("[]").is_err());
    }
}
