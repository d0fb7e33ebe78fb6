//! What goes into a function and what comes out of it.
//!
//! **Invariant:** bytes are shared, never copied, on their way through the plane.

use std::borrow::Cow;

use bytes::Bytes;

/// A media type as a caller or a guest stated it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType(pub Cow<'static, str>);

/// `application/json`, which is what a payload is unless somebody says otherwise.
pub const JSON: ContentType = ContentType(Cow::Borrowed("application/json"));

impl ContentType {
    /// The media type without its parameters, in lower case: `text/plain` of `Text/Plain; charset=utf-8`.
    pub fn essence(&self) -> String {
        let text = self.0.split(';').next().unwrap_or_default();
        text.trim().to_ascii_lowercase()
    }

    /// Whether this says JSON: `application/json`, or a type with the suffix `+json`.
    pub fn is_json(&self) -> bool {
        if self.0 == "application/json" {
            return true;
        }
        let essence = self.essence();
        essence == "application/json" || essence.ends_with("+json")
    }

    /// Whether this says text: `text/*`.
    pub fn is_text(&self) -> bool {
        self.essence().starts_with("text/")
    }
}

/// A function's input, exactly as the caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The media type of `body`.
    pub content_type: ContentType,
    /// The bytes. For a JSON call this is the text of the `input` member, untouched.
    pub body: Bytes,
}

/// How an output is shown inside a JSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The bytes are JSON and stand in the document as they are.
    Json,
    /// The bytes are UTF-8 and stand as a JSON string.
    Text,
    /// Anything else stands as a base64 string.
    Base64,
}

/// A function's output: its bytes, what the guest called them, and how they are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The media type, where the guest stated one (commands do not).
    pub content_type: Option<ContentType>,
    /// How the bytes are shown in JSON; always true of `body` (an output marked JSON parses).
    pub encoding: Encoding,
    /// The bytes.
    pub body: Bytes,
}

/// Why an execution or an attempt did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Short and stable, for programs: `OUT_OF_STOCK`, `TRAP`, `MEMORY_LIMIT`.
    pub code: Cow<'static, str>,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure with a code that is known when the program is written.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: Cow::Borrowed(code),
            message: message.into(),
        }
    }
}

/// Where a line of an attempt's log came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// The guest's standard output (handlers and HTTP functions; a command's is its output).
    Stdout,
    /// The guest's standard error.
    Stderr,
    /// The guest's calls of `wasi:logging`; the text is level, context and message, with tabs between.
    Logging,
    /// Pelton itself: why it refused something that the guest asked for.
    Plane,
}

/// One line of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The stream it was written to.
    pub stream: LogStream,
    /// The text without its line end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// What one attempt wrote, up to the limit of its spec.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logs {
    /// The lines, in the order they were written.
    pub lines: Vec<LogLine>,
    /// Whether something was cut off because `logBytesMax` was reached.
    pub truncated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_without_case_and_parameters() {
        let is_json = |text: &'static str| ContentType(text.into()).is_json();
        assert!(is_json("Application/JSON; charset=utf-8"));
        assert!(is_json("application/problem+json"));
        assert!(!is_json("text/json-ish"));
        assert!(ContentType("TEXT/csv; header=present".into()).is_text());
    }
}
