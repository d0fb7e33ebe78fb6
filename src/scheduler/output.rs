//! How a function's bytes are shown: JSON, text or base64.
//!
//! **Invariant:** an output marked JSON parses as JSON; nothing is re-encoded, only classified.

use bytes::Bytes;

use crate::json;
use crate::model::{ContentType, Encoding, Output};

/// Classifies an output by its stated type; without one (commands): JSON if it parses, else UTF-8 text,
/// else base64. Bytes that are not what their type says are shown as what they are.
pub fn classify(content_type: Option<ContentType>, body: Bytes) -> Output {
    let encoding = match &content_type {
        Some(stated) if stated.is_json() && is_json(&body) => Encoding::Json,
        Some(stated) if stated.is_json() || stated.is_text() => text_or_base64(&body),
        Some(_) => Encoding::Base64,
        None if is_json(&body) => Encoding::Json,
        None => text_or_base64(&body),
    };
    Output {
        content_type,
        encoding,
        body,
    }
}

/// Deepest nesting that is passed on as JSON: readers with a bound (serde_json's is 128) must be able to
/// read the answer that an output stands in.
const JSON_DEPTH_MAX: u32 = 100;

fn is_json(body: &[u8]) -> bool {
    json::is_json(body, JSON_DEPTH_MAX)
}

fn text_or_base64(body: &[u8]) -> Encoding {
    if std::str::from_utf8(body).is_ok() {
        Encoding::Text
    } else {
        Encoding::Base64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content_type: Option<&'static str>, body: &'static [u8], expected: Encoding) {
        let stated = content_type.map(|text| ContentType(text.into()));
        let output = classify(stated, Bytes::from_static(body));
        assert_eq!(output.encoding, expected);
    }

    #[test]
    fn the_stated_type_decides_unless_it_lies() {
        check(Some("application/json"), br#"{"a": 1}"#, Encoding::Json);
        check(Some("application/json"), b"{broken", Encoding::Text);
        check(Some("application/json"), b"\xff", Encoding::Base64);
        check(Some("application/json"), b"\"\xff\"", Encoding::Base64);
        check(Some("text/csv"), b"1,2", Encoding::Text);
        check(Some("text/plain"), b"\xff", Encoding::Base64);
        check(Some("image/png"), b"text in disguise", Encoding::Base64);
    }

    #[test]
    fn without_a_type_the_bytes_decide() {
        check(None, b" [1, 2]\n", Encoding::Json);
        check(None, b"42", Encoding::Json);
        check(None, b"hello", Encoding::Text);
        check(None, b"", Encoding::Text);
        check(None, b"\xfe\xff", Encoding::Base64);
        // Looks like a JSON string, whose bytes are no text.
        check(None, b"\"\xff\"", Encoding::Base64);
        check(
            Some("application/json"),
            b"{\"a\": \"\xff\"}",
            Encoding::Base64,
        );
    }

    #[test]
    fn nesting_without_end_is_no_json() {
        let nested = |depth: u32| {
            let depth = usize::try_from(depth).unwrap();
            "[".repeat(depth) + &"]".repeat(depth)
        };
        let encoding = |text: String| classify(None, Bytes::from(text)).encoding;
        assert_eq!(encoding(nested(100_000)), Encoding::Text);
        assert_eq!(encoding(nested(JSON_DEPTH_MAX + 1)), Encoding::Text);
        assert_eq!(encoding(nested(JSON_DEPTH_MAX)), Encoding::Json);
        // Brackets inside strings do not nest.
        assert_eq!(
            encoding(format!(r#"["{}\"[["]"#, "[".repeat(200))),
            Encoding::Json
        );
    }
}
