//! A result from outside: `{"status", "output", "error"}` or `{"success", "output", "error"}`, or the last two
//! alone.
//!
//! **Invariant:** the output is a slice of the body as it arrived.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::call::parse_json;
use super::fields::shown;
use crate::api::error::{Error, quoted};
use crate::execution::Completion;
use crate::model::{Failure, JSON, Output};
use crate::scheduler;

/// Longest code of a reported error, in bytes.
const CODE_BYTES_MAX: usize = 256;

/// Longest message of a reported error, in bytes.
const MESSAGE_BYTES_MAX: usize = 65_536;

/// A reported result.
#[derive(Debug)]
pub(in crate::api) struct CompletionBody {
    /// What it came to.
    pub(in crate::api) completion: Completion,
    /// The output, if one was reported.
    pub(in crate::api) output: Option<Output>,
}

/// Runtimes send more than is asked for (their own ids, durations); that is passed over.
#[derive(Deserialize)]
#[serde(expecting = "an object with the member success or status")]
struct Members<'a> {
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    success: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// What `status` says.
enum Word {
    Success,
    Error,
    Timeout,
}

impl CompletionBody {
    /// Reads a result.
    ///
    /// # Errors
    /// 400 with all complaints.
    pub(in crate::api) fn parse(body: &Bytes) -> Result<Self, Error> {
        // A derived reader takes a list for the members in their order.
        if body.trim_ascii_start().first() == Some(&b'[') {
            let complaint = "the body has to be a JSON object, and is a list";
            return Err(Error::bad_request(complaint));
        }
        let members: Members<'_> = parse_json(body)?;
        let mut complaints = Vec::new();
        let failure = failure(members.error, &mut complaints);
        // Absent, or given as something; none where that makes no sense.
        let status = members.status.map(|raw| status(raw, &mut complaints));
        let success = members.success.map(|raw| success(raw, &mut complaints));
        let completion = match (status, success) {
            // nanofaas's Go SDK said neither for long: what failed has an error.
            (None, None) if members.error.is_some() => Some(Completion::Retry(failure)),
            (None, None) if members.output.is_some() => Some(Completion::Success),
            (None, None) => {
                complaints.push("status: either this or success is needed".to_owned());
                None
            }
            (Some(_), Some(_)) => {
                complaints.push("status: either this or success is given, not both".to_owned());
                None
            }
            (None, Some(success)) => success.map(|success| match success {
                true => Completion::Success,
                false => Completion::Retry(failure),
            }),
            (Some(status), None) => status.map(|status| match status {
                Word::Success => Completion::Success,
                Word::Error => Completion::Error(failure),
                Word::Timeout => Completion::Timeout(failure),
            }),
        };
        // None only where there is a complaint.
        let Some(completion) = completion.filter(|_| complaints.is_empty()) else {
            return Err(Error::invalid(complaints));
        };
        let output = members.output.map(|raw| {
            // It was parsed out of `body`, so it lies within it.
            scheduler::classify(Some(JSON), body.slice_ref(raw.get().as_bytes()))
        });
        Ok(Self { completion, output })
    }
}

/// A member's value. It was read once already, as far as its shape goes; what cannot be told even so (a number
/// beyond all bounds) is null to whoever asks.
fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or(Value::Null)
}

fn status(raw: &RawValue, complaints: &mut Vec<String>) -> Option<Word> {
    let value = value(raw);
    let Some(status) = value.as_str() else {
        let value = shown(&value);
        complaints.push(format!("status: must be a string, not {value}"));
        return None;
    };
    match status.to_ascii_lowercase().as_str() {
        "success" => Some(Word::Success),
        "error" => Some(Word::Error),
        "timeout" => Some(Word::Timeout),
        _ => {
            complaints.push(format!(
                "status: must be success, error or timeout, not {}",
                quoted(status)
            ));
            None
        }
    }
}

fn success(raw: &RawValue, complaints: &mut Vec<String>) -> Option<bool> {
    let value = value(raw);
    if value.as_bool().is_none() {
        let value = shown(&value);
        complaints.push(format!("success: must be true or false, not {value}"));
    }
    value.as_bool()
}

fn failure(error: Option<&RawValue>, complaints: &mut Vec<String>) -> Failure {
    let error = match error.map(value) {
        None => Map::new(),
        Some(Value::Object(error)) => error,
        Some(other) => {
            let other = shown(&other);
            complaints.push(format!(
                r#"error: must be an object {{"code": "…", "message": "…"}}, not {other}"#
            ));
            Map::new()
        }
    };
    let mut text = |name, default: &str, bytes_max| match error.get(name) {
        None | Some(Value::Null) => default.to_owned(),
        Some(Value::String(text)) if text.len() <= bytes_max => text.clone(),
        Some(Value::String(text)) => {
            let bytes = text.len();
            complaints.push(format!(
                "error.{name}: has {bytes} bytes, and may have {bytes_max}"
            ));
            String::new()
        }
        Some(other) => {
            let other = shown(other);
            complaints.push(format!("error.{name}: must be a string, not {other}"));
            String::new()
        }
    };
    Failure {
        code: text("code", "ERROR", CODE_BYTES_MAX).into(),
        message: text("message", "unknown", MESSAGE_BYTES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Encoding;

    fn parse(body: &str) -> Result<CompletionBody, Error> {
        CompletionBody::parse(&Bytes::copy_from_slice(body.as_bytes()))
    }

    #[track_caller]
    fn completion(body: &str) -> Completion {
        parse(body).unwrap().completion
    }

    fn failed(code: &'static str, message: &str) -> Failure {
        Failure::new(code, message)
    }

    #[test]
    fn both_shapes_are_read() {
        let error = r#""error":{"code":"C","message":"m"}"#;
        assert_eq!(completion(r#"{"status":"SUCCESS"}"#), Completion::Success);
        assert_eq!(
            completion(r#"{"success":true,"error":null}"#),
            Completion::Success
        );
        assert_eq!(
            completion(&format!(r#"{{"status":"error",{error}}}"#)),
            Completion::Error(failed("C", "m"))
        );
        assert_eq!(
            completion(&format!(r#"{{"success":false,{error}}}"#)),
            Completion::Retry(failed("C", "m"))
        );
        assert_eq!(
            completion(r#"{"status":"Timeout","executionId":"x"}"#),
            Completion::Timeout(failed("ERROR", "unknown"))
        );
    }

    #[test]
    fn what_says_neither_is_told_by_its_error() {
        assert_eq!(completion(r#"{"output":{"a":1}}"#), Completion::Success);
        assert_eq!(
            completion(r#"{"error":{"code":"C","message":"m"}}"#),
            Completion::Retry(failed("C", "m"))
        );
        assert!(parse(r#"{"output":null,"error":null}"#).is_err());
    }

    #[test]
    fn an_output_is_kept_as_it_was_written() {
        let output = parse(r#"{"status":"error","output":{"a": 1.0}}"#)
            .unwrap()
            .output
            .unwrap();
        assert_eq!(
            (output.encoding, &*output.body),
            (Encoding::Json, &b"{\"a\": 1.0}"[..])
        );
        assert!(
            parse(r#"{"success":true,"output":null}"#)
                .unwrap()
                .output
                .is_none()
        );
    }

    #[test]
    fn other_words_are_refused() {
        for bad in [
            "{}",
            r#"{"status":"running"}"#,
            r#"{"status":"queued"}"#,
            r#"{"status":""}"#,
            r#"{"status":7}"#,
            r#"{"success":"yes"}"#,
            r#"{"success":true,"status":"success"}"#,
            r#"{"success":null}"#,
            r#"{"success":false,"error":"boom"}"#,
            "",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let text = format!(
            "{:?}",
            parse(r#"{"success":false,"error":"boom"}"#).unwrap_err()
        );
        assert!(text.contains("error: must be an object"), "{text}");
        let text = format!(
            "{:?}",
            parse(r#"{"success":false,"error":{"code":7}}"#).unwrap_err()
        );
        assert!(
            text.contains("error.code: must be a string, not 7"),
            "{text}"
        );
        let body = r#"{"success":"yes","error":{"code":5,"message":[]}}"#;
        let text = format!("{:?}", parse(body).unwrap_err());
        for complaint in [
            r#"success: must be true or false, not"#,
            "error.code: must be a string, not 5",
            "error.message: must be a string, not a list",
        ] {
            assert!(text.contains(complaint), "{text}");
        }
        let text = format!("{:?}", parse(r#"{"status":7,"error":"x"}"#).unwrap_err());
        assert!(text.contains("status: must be a string, not 7"), "{text}");
        assert!(text.contains("error: must be an object"), "{text}");
        for other in ["[]", r#"["success",null,null,null]"#, "7"] {
            let text = format!("{:?}", parse(other).unwrap_err());
            assert!(text.contains("object"), "{text}");
            assert!(!text.contains("Members"), "{text}");
        }
        let long = format!(
            r#"{{"success":false,"error":{{"code":"{}"}}}}"#,
            "x".repeat(257)
        );
        assert!(format!("{:?}", parse(&long)).contains("error.code: has 257 bytes"));
    }
}
