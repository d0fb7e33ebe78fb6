//! What a line of a log says, where it says it in a form that programs write: a JSON object with a level and a
//! message, or a call of `wasi:logging`.
//!
//! **Invariant:** a line is never refused: what is not understood is shown as the text it is.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::json::{List, Object};
use crate::model::{LogLine, LogStream};

/// The names under which loggers write the level.
const LEVELS: [&str; 3] = ["level", "severity", "lvl"];
/// The names under which loggers write the message.
const MESSAGES: [&str; 2] = ["message", "msg"];
/// Where Rust's `tracing` writes the message, among what the program says beside it.
const NESTED: &str = "fields";
/// What loggers that count their levels mean by the numbers.
const NUMBERED: [(u64, &str); 6] = [
    (10, "trace"),
    (20, "debug"),
    (30, "info"),
    (40, "warn"),
    (50, "error"),
    (60, "fatal"),
];

/// A line as it is shown.
struct Told<'a> {
    text: Cow<'a, str>,
    level: Option<String>,
    message: Option<String>,
    fields: Map<String, Value>,
}

impl<'a> Told<'a> {
    fn plain(text: &'a str) -> Self {
        Self {
            text: Cow::Borrowed(text),
            level: None,
            message: None,
            fields: Map::new(),
        }
    }

    fn of(line: &'a LogLine) -> Self {
        match line.stream {
            LogStream::Plane => Self::plain(&line.text),
            LogStream::Stdout | LogStream::Stderr => {
                Self::json(&line.text).unwrap_or_else(|| Self::plain(&line.text))
            }
            LogStream::Logging => Self::logging(&line.text),
        }
    }

    /// A JSON object with a level or a message; its other members are the fields.
    fn json(text: &'a str) -> Option<Self> {
        if !text.trim_start().starts_with('{') {
            return None;
        }
        let mut fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        let level = take(&mut fields, &LEVELS, level);
        let message = take(&mut fields, &MESSAGES, |value| {
            value.as_str().map(str::to_owned)
        });
        let message = message.or_else(|| take_nested(&mut fields));
        (level.is_some() || message.is_some()).then_some(Self {
            text: Cow::Borrowed(text),
            level,
            message,
            fields,
        })
    }

    fn logging(text: &'a str) -> Self {
        let mut parts = text.splitn(3, '\t');
        let (level, context) = (parts.next(), parts.next().unwrap_or_default());
        let message = parts.next().unwrap_or_default();
        let mut fields = Map::new();
        if !context.is_empty() {
            fields.insert("context".to_owned(), context.into());
        }
        Self {
            text: Cow::Borrowed(message),
            level: level.map(str::to_owned),
            message: Some(message.to_owned()),
            fields,
        }
    }
}

/// Takes out the first of these members that means something.
fn take(
    fields: &mut Map<String, Value>,
    names: &[&str],
    read: impl Fn(&Value) -> Option<String>,
) -> Option<String> {
    let (name, value) = names
        .iter()
        .find_map(|name| Some((*name, read(fields.get(*name)?)?)))?;
    fields.remove(name);
    Some(value)
}

/// Takes out the message that stands in a member of its own, and puts what stands beside it there among the others. What
/// has the name of one of them stays where it is.
fn take_nested(fields: &mut Map<String, Value>) -> Option<String> {
    let nested = fields.get_mut(NESTED)?.as_object_mut()?;
    let message = take(nested, &MESSAGES[..1], |value| {
        value.as_str().map(str::to_owned)
    })?;
    let nested = std::mem::take(nested);
    let (staying, lifted): (Map<_, _>, Map<_, _>) = nested
        .into_iter()
        .partition(|(name, _)| fields.contains_key(name));
    if staying.is_empty() {
        fields.remove(NESTED);
    } else {
        fields.insert(NESTED.to_owned(), Value::Object(staying));
    }
    fields.extend(lifted);
    Some(message)
}

fn level(value: &Value) -> Option<String> {
    match value.as_u64() {
        None => value.as_str().map(str::to_ascii_lowercase),
        Some(number) => {
            let mut numbered = NUMBERED.iter();
            let (_, word) = numbered.find(|(known, _)| *known == number)?;
            Some((*word).to_owned())
        }
    }
}

/// Writes the lines of an attempt.
pub(super) fn put_lines(mut list: List<'_>, lines: &[LogLine]) {
    for line in lines {
        let told = Told::of(line);
        let mut shown = Object::open(list.item());
        let stream = match line.stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
            LogStream::Logging => "logging",
            LogStream::Plane => "pelton",
        };
        shown.plain("stream", stream);
        shown.text("text", &told.text);
        if told.level.is_some() || told.message.is_some() {
            shown.text_or_null("level", told.level.as_deref());
            shown.text_or_null("message", told.message.as_deref());
            let fields = Value::Object(told.fields).to_string();
            shown.member("fields").extend_from_slice(fields.as_bytes());
        }
        shown.close();
    }
    list.close();
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn shown(stream: LogStream, text: &str) -> Value {
        let mut buffer = BytesMut::new();
        let line = LogLine {
            stream,
            text: text.to_owned(),
        };
        put_lines(List::open(&mut buffer), &[line]);
        serde_json::from_slice::<Value>(&buffer).unwrap()[0].clone()
    }

    #[test]
    fn objects_with_a_level_or_a_message_are_understood() {
        let stderr = |text| shown(LogStream::Stderr, text);
        let text = r#"{"time":"now","level":"WARN","msg":"low","left":2,"of":{"a":[1]}}"#;
        assert_eq!(
            stderr(text),
            serde_json::json!({
                "stream": "stderr", "text": text, "level": "warn", "message": "low",
                "fields": {"time": "now", "left": 2, "of": {"a": [1]}},
            })
        );
        let numbered = stderr(r#" {"level":50,"message":"gone"}"#);
        assert_eq!(
            (&numbered["level"], &numbered["message"]),
            (&"error".into(), &"gone".into())
        );
        assert_eq!(stderr(r#"{"severity":"Info"}"#)["level"], "info");
        let strange = stderr(r#"{"level":{"a":1},"message":"m"}"#);
        assert!(strange["level"].is_null());
        assert_eq!(strange["fields"], serde_json::json!({"level": {"a": 1}}));
    }

    #[test]
    fn the_message_of_rusts_own_format_is_found() {
        let stderr = |text| shown(LogStream::Stderr, text);
        let text = r#"{"level":"INFO","fields":{"message":"tracing","n":1},"target":"x"}"#;
        assert_eq!(
            stderr(text),
            serde_json::json!({
                "stream": "stderr", "text": text, "level": "info", "message": "tracing",
                "fields": {"n": 1, "target": "x"},
            })
        );
        // Nothing is lost to another of the same name.
        let twice = stderr(
            r#"{"level":"INFO","fields":{"message":"m","target":"y","fields":2,"n":1},"target":"x"}"#,
        );
        assert_eq!(
            twice["fields"],
            serde_json::json!({"n": 1, "target": "x", "fields": {"target": "y", "fields": 2}})
        );
        // Of others it is a member as any other.
        for text in [
            r#"{"level":"INFO","message":"m","fields":{"message":"n"}}"#,
            r#"{"level":"INFO","fields":{"n":1}}"#,
            r#"{"level":"INFO","fields":{"message":1}}"#,
            r#"{"level":"INFO","fields":"message"}"#,
        ] {
            let given: Value = serde_json::from_str(text).unwrap();
            let line = stderr(text);
            assert_eq!(line["fields"]["fields"], given["fields"], "{text}");
            assert_eq!(
                line.get("message"),
                Some(given.get("message").unwrap_or(&Value::Null))
            );
        }
    }

    #[test]
    fn everything_else_is_the_text_it_is() {
        let deep = format!("{{\"level\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        for text in [
            "plain",
            "",
            "{",
            "{\"a\":1}",
            "[\"level\"]",
            "{\"level\":true}",
            &deep,
        ] {
            let line = shown(LogStream::Stderr, text);
            assert_eq!(line, serde_json::json!({"stream": "stderr", "text": text}));
        }
        let forged = r#"{"level":"warn","message":"m"}"#;
        let line = shown(LogStream::Plane, forged);
        assert_eq!(
            line,
            serde_json::json!({"stream": "pelton", "text": forged})
        );
    }

    #[test]
    fn calls_of_wasi_logging_have_level_context_and_message() {
        assert_eq!(
            shown(LogStream::Logging, "debug\tpool\ta\tb\nc"),
            serde_json::json!({
                "stream": "logging", "text": "a\tb\nc", "level": "debug", "message": "a\tb\nc",
                "fields": {"context": "pool"},
            })
        );
        let cut = shown(LogStream::Logging, "deb");
        assert_eq!((&cut["level"], &cut["text"]), (&"deb".into(), &"".into()));
    }
}
