//! The body of a rollback and of a redrive: `{"version": n}`; and of a cancel, which says nothing.
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

/// Reads the body of an order that has nothing to say: empty, or an object without members.
///
/// # Errors
/// 400 with all complaints.
pub(in crate::api) fn no_fields(body: &Bytes) -> Result<(), Error> {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let mut complaints = Vec::new();
    let mut fields = Fields::new(object(body)?, &mut complaints);
    for name in fields.left() {
        fields.complain(&quoted(&name), "there is no such field: there is none here");
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(complaints))
    }
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
    fn a_cancel_says_nothing() {
        let read = |body: &str| no_fields(&Bytes::copy_from_slice(body.as_bytes()));
        for fine in ["", " \n", "{}"] {
            assert!(read(fine).is_ok(), "{fine}");
        }
        for bad in ["[]", "null", "1", "{", r#"{"version":null}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let all = format!("{:?}", read(r#"{"x":1,"why":"so"}"#).unwrap_err());
        assert!(all.contains("there is no such field"), "{all}");
        assert!(all.contains("x") && all.contains("why"), "{all}");
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
