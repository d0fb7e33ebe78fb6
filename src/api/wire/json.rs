//! Writes JSON objects member by member, so that a payload is put into its answer as it is.
//!
//! **Invariant:** what is written is JSON if what is passed as raw is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};

use crate::model::{Encoding, Failure, Output, Timestamp};

/// An object under construction.
pub(super) struct Object<'a> {
    buffer: &'a mut BytesMut,
    members: usize,
}

impl<'a> Object<'a> {
    /// Opens an object at the end of `buffer`.
    pub(super) fn open(buffer: &'a mut BytesMut) -> Self {
        buffer.put_u8(b'{');
        Self { buffer, members: 0 }
    }

    /// Closes it.
    pub(super) fn close(self) {
        self.buffer.put_u8(b'}');
    }

    /// Begins a member whose value the caller writes. `name` needs no escaping.
    pub(super) fn member(&mut self, name: &'static str) -> &mut BytesMut {
        if self.members > 0 {
            self.buffer.put_u8(b',');
        }
        self.members += 1;
        self.buffer.put_u8(b'"');
        self.buffer.put_slice(name.as_bytes());
        self.buffer.put_slice(b"\":");
        self.buffer
    }

    /// A string.
    pub(super) fn text(&mut self, name: &'static str, text: &str) {
        put_text(self.member(name), text);
    }

    /// A string of characters that need no escaping: an id, a word of ours.
    pub(super) fn plain(&mut self, name: &'static str, text: &str) {
        let buffer = self.member(name);
        buffer.put_u8(b'"');
        buffer.put_slice(text.as_bytes());
        buffer.put_u8(b'"');
    }

    /// A string, or null.
    pub(super) fn text_or_null(&mut self, name: &'static str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.null(name),
        }
    }

    /// A time in ISO 8601, or null.
    pub(super) fn time_or_null(&mut self, name: &'static str, time: Option<Timestamp>) {
        match time {
            Some(time) => self.plain(name, &super::time::iso(time)),
            None => self.null(name),
        }
    }

    /// A number.
    pub(super) fn number(&mut self, name: &'static str, number: u64) {
        put_number(self.member(name), number);
    }

    /// A number, or null.
    pub(super) fn number_or_null(&mut self, name: &'static str, number: Option<u64>) {
        match number {
            Some(number) => self.number(name, number),
            None => self.null(name),
        }
    }

    /// True or false, as it is.
    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.member(name).put_slice(word);
    }

    /// Null.
    pub(super) fn null(&mut self, name: &'static str) {
        self.member(name).put_slice(b"null");
    }

    /// `{"code", "message"}`, or null.
    pub(super) fn failure_or_null(&mut self, name: &'static str, failure: Option<&Failure>) {
        let Some(failure) = failure else {
            return self.null(name);
        };
        let mut object = Object::open(self.member(name));
        object.text("code", &failure.code);
        object.text("message", &failure.message);
        object.close();
    }

    /// An output as its encoding says, then `outputContentType` and `outputEncoding`.
    pub(super) fn output(&mut self, output: Option<&Output>) {
        let Some(output) = output else {
            self.null("output");
            self.null("outputContentType");
            return self.null("outputEncoding");
        };
        let buffer = self.member("output");
        let encoding = match output.encoding {
            Encoding::Json => {
                buffer.put_slice(&output.body);
                "json"
            }
            // An output marked as text is UTF-8; were it not, base64 would still be true of it.
            Encoding::Text => match std::str::from_utf8(&output.body) {
                Ok(text) => {
                    put_text(buffer, text);
                    "text"
                }
                Err(_) => put_base64(buffer, &output.body),
            },
            Encoding::Base64 => put_base64(buffer, &output.body),
        };
        let content_type = output.content_type.as_ref().map(|stated| &*stated.0);
        self.text_or_null("outputContentType", content_type);
        self.plain("outputEncoding", encoding);
    }
}

/// A list under construction: `item` is called once before each item is written.
pub(super) struct List<'a> {
    buffer: &'a mut BytesMut,
    items: usize,
}

impl<'a> List<'a> {
    /// Opens a list at the end of `buffer`.
    pub(super) fn open(buffer: &'a mut BytesMut) -> Self {
        buffer.put_u8(b'[');
        Self { buffer, items: 0 }
    }

    /// Begins an item that the caller writes.
    pub(super) fn item(&mut self) -> &mut BytesMut {
        if self.items > 0 {
            self.buffer.put_u8(b',');
        }
        self.items += 1;
        self.buffer
    }

    /// A string.
    pub(super) fn text(&mut self, text: &str) {
        put_text(self.item(), text);
    }

    /// Closes it.
    pub(super) fn close(self) {
        self.buffer.put_u8(b']');
    }
}

fn put_text(buffer: &mut BytesMut, text: &str) {
    // Writing text to memory cannot fail.
    let _ = serde_json::to_writer(buffer.writer(), text);
}

fn put_number(buffer: &mut BytesMut, number: u64) {
    let _ = serde_json::to_writer(buffer.writer(), &number);
}

fn put_base64(buffer: &mut BytesMut, bytes: &[u8]) -> &'static str {
    buffer.put_u8(b'"');
    buffer.put_slice(STANDARD.encode(bytes).as_bytes());
    buffer.put_u8(b'"');
    "base64"
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{ContentType, JSON};

    fn written(encoding: Encoding, content_type: Option<ContentType>, body: &[u8]) -> String {
        let output = Output {
            content_type,
            encoding,
            body: Bytes::copy_from_slice(body),
        };
        let mut buffer = BytesMut::new();
        let mut object = Object::open(&mut buffer);
        object.output(Some(&output));
        object.close();
        String::from_utf8(buffer.to_vec()).unwrap()
    }

    #[test]
    fn an_output_stands_as_its_encoding_says() {
        assert_eq!(
            written(Encoding::Json, Some(JSON), b"{\"a\": 1.0}"),
            r#"{"output":{"a": 1.0},"outputContentType":"application/json","outputEncoding":"json"}"#
        );
        assert_eq!(
            written(Encoding::Text, None, "a\"\n\u{1}é".as_bytes()),
            r#"{"output":"a\"\n\u0001é","outputContentType":null,"outputEncoding":"text"}"#
        );
        assert_eq!(
            written(Encoding::Base64, None, &[0xff, 0]),
            r#"{"output":"/wA=","outputContentType":null,"outputEncoding":"base64"}"#
        );
    }

    #[test]
    fn text_that_is_none_is_shown_as_what_it_is() {
        assert!(written(Encoding::Text, None, &[0xff]).contains("\"outputEncoding\":\"base64\""));
    }
}
