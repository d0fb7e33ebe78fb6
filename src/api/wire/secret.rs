//! Secrets: a value that comes in, and everything but the value that goes out.
//!
//! **Invariant:** no complaint repeats anything of a body but the names of its fields.

use bytes::Bytes;
use serde_json::{Value, json};

use super::call::parse_json_of;
use super::time::iso;
use crate::api::error::{Error, quoted};
use crate::model::{SecretValue, limits};
use crate::secrets::Listed;

/// Reads the body `{"value": "…"}`.
///
/// # Errors
/// 400 with all complaints.
pub(in crate::api) fn secret_value(body: &Bytes) -> Result<SecretValue, Error> {
    let Value::Object(mut members) = parse_json_of("the body", body)? else {
        return Err(Error::bad_request(
            "the body has to be a JSON object: {\"value\": \"…\"}",
        ));
    };
    let value = members.remove("value");
    let mut complaints: Vec<_> = members
        .keys()
        .map(|name| format!("{}: there is no such field: there is value", quoted(name)))
        .collect();
    let value = match value {
        Some(Value::String(text)) => Some(SecretValue::new(text)),
        Some(_) | None => {
            complaints.push("value: is needed, and is a string".to_owned());
            None
        }
    };
    let range = limits::SECRET_BYTES;
    if let Some(value) = &value {
        let bytes = u64::try_from(value.expose().len()).unwrap_or(u64::MAX);
        if !range.contains(&bytes) {
            let (least, most) = (range.start(), range.end());
            complaints.push(format!(
                "value: has {bytes} bytes, and may have {least} to {most}"
            ));
        }
        if value.expose().contains('\0') {
            complaints.push("value: must not contain NUL characters".to_owned());
        }
    }
    match value {
        Some(value) if complaints.is_empty() => Ok(value),
        _ => Err(Error::invalid(complaints)),
    }
}

/// A secret as it is shown.
pub(in crate::api) fn secret_view(secret: &Listed) -> Value {
    json!({
        "name": secret.name.as_str(),
        "createdAt": iso(secret.created_at).to_string(),
        "updatedAt": iso(secret.updated_at).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_text_of_some_length_and_complaints_do_not_repeat_it() {
        let read = |body: &str| secret_value(&Bytes::copy_from_slice(body.as_bytes()));
        assert_eq!(read(r#"{"value":"hunter2"}"#).unwrap().expose(), "hunter2");
        let longest = format!(r#"{{"value":"{}"}}"#, "x".repeat(65_536));
        assert!(read(&longest).is_ok());
        let too_long = format!(r#"{{"value":"hunter2{}"}}"#, "x".repeat(65_536));
        for wrong in [
            "",
            "hunter2",
            r#""hunter2""#,
            r#"["hunter2"]"#,
            "{}",
            r#"{"value":null}"#,
            r#"{"value":""}"#,
            r#"{"value":{"hunter2":1}}"#,
            r#"{"value":"hunter2","note":"hunter2"}"#,
            r#"{"value":"hunter2\u0000"}"#,
            r#"{"value":"hunter2"#,
            &too_long,
        ] {
            let error = format!("{:?}", read(wrong).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
