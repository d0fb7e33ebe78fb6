//! The body of a call: `{"input": …, "metadata": {…}}`.
//!
//! **Invariant:** the input is what the caller wrote, byte for byte: not parsed into values, not reformatted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::api::error::{Error, quoted};
use crate::api::options::Options;
use crate::json;
use crate::scheduler::body_hash;

/// What a caller sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct CallBody {
    /// The text of the member `input`.
    pub(in crate::api) input: Bytes,
    /// The members of `metadata`, by name.
    pub(in crate::api) metadata: Arc<[(String, String)]>,
}

/// The texts of the members that mean something. Others are passed over: nanofaas's clients send some.
struct Members<'a> {
    input: Option<&'a [u8]>,
    metadata: Option<&'a [u8]>,
}

/// The same as a parser finds them.
struct Parsed<'a> {
    input: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Input,
    Metadata,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Parsed<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Parsed<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the member `input`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed<'de>, A::Error> {
        let mut members = Parsed {
            input: None,
            metadata: None,
        };
        while let Some(member) = map.next_key()? {
            match member {
                Member::Input => members.input = map.next_value()?,
                Member::Metadata => members.metadata = map.next_value()?,
                Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// The members of a body, found without a parser that could make values of them; `None` where that parser
/// has to look: at what is no JSON, to say where, and at what is out of the ordinary.
fn found_quickly(body: &[u8]) -> Option<Spans> {
    let mut spans = Spans::default();
    std::str::from_utf8(body).ok()?;
    let mut at = json::skip_space(body, 0);
    if body.get(at) != Some(&b'{') {
        return None;
    }
    loop {
        at = json::skip_space(body, at + 1);
        let name_end = json::string_end(body, at)?;
        let name = body.get(at + 1..name_end - 1)?;
        at = json::skip_space(body, name_end);
        if body.get(at) != Some(&b':') {
            return None;
        }
        let start = json::skip_space(body, at + 1);
        at = json::value_end(body, start, json::DEPTH_MAX)?;
        let is_null = body.get(start..at)? == b"null";
        let span = (!is_null).then_some(start..at);
        match name {
            b"input" => spans.input = span,
            b"metadata" => spans.metadata = span,
            // An escape may stand for one of the two.
            _ if name.contains(&b'\\') => return None,
            _ => {}
        }
        at = json::skip_space(body, at);
        match body.get(at)? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    (json::skip_space(body, at + 1) == body.len()).then_some(spans)
}

/// Where members stand in a body.
#[derive(Debug, Default)]
struct Spans {
    input: Option<Range<usize>>,
    metadata: Option<Range<usize>>,
}

impl<'a> Members<'a> {
    fn of(body: &'a Bytes) -> Result<Self, Error> {
        let text = |span: Option<Range<usize>>| span.and_then(|span| body.get(span));
        match found_quickly(body) {
            Some(spans) => Ok(Self {
                input: text(spans.input),
                metadata: text(spans.metadata),
            }),
            None => {
                let parsed: Parsed<'_> = parse_json(body)?;
                let text = |raw: Option<&'a RawValue>| raw.map(|raw| raw.get().as_bytes());
                Ok(Self {
                    input: text(parsed.input),
                    metadata: text(parsed.metadata),
                })
            }
        }
    }
}

/// Inputs up to this size are copied out of the body they came in, in bytes. A slice would keep alive the
/// connection's whole read buffer (8 KiB and more) for as long as the call waits in its queue. So are larger ones that
/// are the lesser part of their body: what waits is counted by its input, and the rest may be blanks.
const COPIED_BYTES_MAX: usize = 64 * 1024;

/// `input`, which was parsed out of `body` and so lies within it.
fn taken_out(body: &Bytes, input: &[u8]) -> Bytes {
    if input.len() <= COPIED_BYTES_MAX || input.len() < body.len() / 2 {
        Bytes::copy_from_slice(input)
    } else {
        body.slice_ref(input)
    }
}

impl CallBody {
    /// Reads a call.
    ///
    /// # Errors
    /// 400 `BAD_REQUEST` with the place where it stops being JSON; 400 `VALIDATION_ERROR` where `input` is
    /// missing or null, or `metadata` is not an object of strings within its limits.
    pub(in crate::api) fn parse(body: &Bytes, options: &Options) -> Result<Self, Error> {
        let members = Members::of(body)?;
        let mut complaints = Vec::new();
        let metadata = match members.metadata {
            Some(text) => metadata(text, options, &mut complaints),
            None => Vec::new(),
        };
        let Some(input) = members.input else {
            complaints.insert(0, "input: must be there and must not be null".to_owned());
            return Err(Error::invalid(complaints));
        };
        if !complaints.is_empty() {
            return Err(Error::invalid(complaints));
        }
        Ok(Self {
            input: taken_out(body, input),
            metadata: metadata.into(),
        })
    }

    /// What two calls with the same idempotency key have to agree in.
    pub(in crate::api) fn hash(&self) -> [u8; 32] {
        body_hash(&self.input, &self.metadata)
    }
}

/// Reads a JSON body into something that borrows from it.
///
/// # Errors
/// 400 with the place.
pub(super) fn parse_json<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Error> {
    parse_json_of("the body", body)
}

/// Reads JSON that stands in `what` (the body, a part of it), which complaints name.
///
/// # Errors
/// 400 with the place.
pub(super) fn parse_json_of<'a, T: Deserialize<'a>>(
    what: &str,
    body: &'a Bytes,
) -> Result<T, Error> {
    if body.is_empty() {
        return Err(Error::bad_request(format!(
            "{what} is empty, and has to be a JSON object"
        )));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        Error::bad_request(format!(
            "{what} is not UTF-8 from byte {} on, and JSON is",
            error.valid_up_to()
        ))
    })?;
    serde_json::from_str(text)
        .map_err(|error| Error::bad_request(format!("{what} cannot be read: {error}")))
}

fn metadata(text: &[u8], options: &Options, complaints: &mut Vec<String>) -> Vec<(String, String)> {
    let Ok(members) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(text) else {
        complaints.push("metadata: must be an object of strings".to_owned());
        return Vec::new();
    };
    if members.len() > options.metadata_entries_max {
        let (found, max) = (members.len(), options.metadata_entries_max);
        complaints.push(format!("metadata: has {found} members, and may have {max}"));
        return Vec::new();
    }
    let mut entries = Vec::with_capacity(members.len());
    let mut bytes = 0;
    for (name, value) in members {
        match serde_json::from_str::<String>(value.get()) {
            Ok(value) => {
                bytes += name.len() + value.len();
                entries.push((name, value));
            }
            Err(_) => complaints.push(format!("metadata: {} must be a string", quoted(&name))),
        }
    }
    if bytes > options.metadata_bytes_max {
        let max = options.metadata_bytes_max;
        complaints.push(format!("metadata: has {bytes} bytes, and may have {max}"));
    }
    entries
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &str) -> Result<CallBody, Error> {
        CallBody::parse(
            &Bytes::copy_from_slice(body.as_bytes()),
            &Options::default(),
        )
    }

    #[track_caller]
    fn refused(body: &[u8], expected: &str) {
        let error = CallBody::parse(&Bytes::copy_from_slice(body), &Options::default());
        let error = format!("{:?}", error.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn the_input_is_the_bytes_that_were_written() {
        let body = Bytes::from_static(b" { \"x\": [1], \"input\" : {\"b\": 1.0,\n \"a\":2e0 } } ");
        let call = CallBody::parse(&body, &Options::default()).unwrap();
        assert_eq!(call.input, "{\"b\": 1.0,\n \"a\":2e0 }");
        // A small one is its own, so that it does not keep the buffer it came in; a large one is not copied.
        assert!(!body.as_ptr_range().contains(&call.input.as_ptr()));
        let large = format!("{{\"input\": \"{}\"}}", "x".repeat(COPIED_BYTES_MAX));
        let body = Bytes::from(large);
        let call = CallBody::parse(&body, &Options::default()).unwrap();
        assert!(body.as_ptr_range().contains(&call.input.as_ptr()));
        let blanks = " ".repeat(body.len());
        let body = Bytes::from([blanks.as_bytes(), &body, blanks.as_bytes()].concat());
        let call = CallBody::parse(&body, &Options::default()).unwrap();
        assert!(!body.as_ptr_range().contains(&call.input.as_ptr()));
        assert_eq!(call.input.len(), COPIED_BYTES_MAX + 2);
        for input in ["0", "false", "\"\"", "[]", "\"\\u0000\""] {
            assert_eq!(
                parse(&format!("{{\"input\":{input}}}")).unwrap().input,
                *input
            );
        }
    }

    #[test]
    fn metadata_is_an_object_of_strings_in_order_of_name() {
        let call = parse(r#"{"metadata":{"b":"2","a":"1","b":"3"},"input":1}"#).unwrap();
        let expected = [
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "3".to_owned()),
        ];
        assert_eq!(*call.metadata, expected);
        assert!(
            parse(r#"{"input":1,"metadata":null}"#)
                .unwrap()
                .metadata
                .is_empty()
        );
        refused(
            br#"{"input":1,"metadata":{"a":1}}"#,
            r#"metadata: \"a\" must be a string"#,
        );
        refused(
            br#"{"input":1,"metadata":["a"]}"#,
            "metadata: must be an object",
        );
    }

    #[test]
    fn metadata_is_bounded() {
        let entries: Vec<_> = (0..65).map(|i| format!("\"{i}\":\"\"")).collect();
        let body = format!(r#"{{"input":1,"metadata":{{{}}}}}"#, entries.join(","));
        refused(body.as_bytes(), "has 65 members, and may have 64");
        let long = "x".repeat(16 * 1024);
        let body = format!(r#"{{"input":1,"metadata":{{"a":"{long}"}}}}"#);
        refused(body.as_bytes(), "has 16385 bytes, and may have 16384");
    }

    #[test]
    fn a_call_without_input_is_told_so() {
        refused(b"{}", "VALIDATION_ERROR");
        refused(br#"{"input":null}"#, "input: must be there");
        refused(br#"{"input":null,"metadata":{"a":1}}"#, "must be a string");
    }

    #[test]
    fn what_is_not_json_is_told_where() {
        refused(b"", "the body is empty");
        refused(b"{\"input\": tru}", "line 1 column 14");
        refused(
            b"{\"input\": 1} x",
            "trailing characters at line 1 column 14",
        );
        refused(b"[1,null]", "expected an object with the member `input`");
        refused(b"{\"input\":\"\xff\"}", "not UTF-8 from byte 10 on");
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let call = parse(&format!("{{\"input\":{deep}}}")).unwrap();
        assert_eq!(call.input.len(), deep.len());
    }

    #[test]
    fn the_hash_tells_bodies_apart() {
        let hash = |body: &str| parse(body).unwrap().hash();
        let first = hash(r#"{"input":{"a":1},"metadata":{"x":"1","y":"2"}}"#);
        assert_eq!(
            first,
            hash(r#"{"metadata":{"y":"2","x":"1"}, "input": {"a":1}}"#)
        );
        assert_ne!(
            first,
            hash(r#"{"input":{"a": 1},"metadata":{"x":"1","y":"2"}}"#)
        );
        assert_ne!(
            first,
            hash(r#"{"input":{"a":1},"metadata":{"x":"1y","":"2"}}"#)
        );
        assert_ne!(first, hash(r#"{"input":{"a":1}}"#));
    }

    proptest! {
        #[test]
        fn any_body_is_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = CallBody::parse(&Bytes::from(body), &Options::default()) {
                prop_assert_eq!(error.into_response().status(), 400);
            }
        }

        #[test]
        fn what_is_found_quickly_is_what_a_parser_finds(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", ",", ":", " ", "\"input\"", "\"metadata\"", "\"in\\u0070ut\"", "\"x\"", "null", "1",
                    "[1, {\"input\": 2}]", "\"input\":", "\"metadata\":", "{\"a\":\"b\"}", "\\", "x",
                ]),
                0..16,
            )
        ) {
            for body in [parts.concat(), format!("{{{}}}", parts.join(","))] {
                let body = Bytes::from(body);
                if let Some(spans) = found_quickly(&body) {
                    let parsed: Parsed<'_> = parse_json(&body).unwrap();
                    let text = |span: Option<Range<usize>>| span.map(|span| &body[span]);
                    let raw = |raw: Option<&RawValue>| raw.map(|raw| raw.get().as_bytes().to_vec());
                    prop_assert_eq!(text(spans.input).map(<[u8]>::to_vec), raw(parsed.input));
                    prop_assert_eq!(text(spans.metadata).map(<[u8]>::to_vec), raw(parsed.metadata));
                }
            }
        }

        #[test]
        fn any_json_gets_through_untouched(text in "[ -~]{0,40}", number: f64) {
            for value in [serde_json::json!(text), serde_json::json!([number, {"k": text}])] {
                let input = value.to_string();
                let call = parse(&format!("{{\"input\":{input}}}")).unwrap();
                prop_assert_eq!(call.input, input);
            }
        }
    }
}
