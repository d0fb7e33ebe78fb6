//! What commands read from the command line, files and standard input: payloads and `name=value` pairs.
//!
//! **Invariant:** an input reaches the server byte for byte as it was given; it is checked, never rewritten.

use std::io::Read as _;
use std::path::Path;

use serde_json::value::RawValue;

use super::exit::Failure;

/// A JSON payload: `JSON`, `@FILE`, or `@-` for standard input.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Payload {
    /// The input: JSON, @FILE, or @- for standard input
    #[arg(short = 'd', long = "data", value_name = "JSON|@FILE|@-")]
    data: String,
}

impl Payload {
    /// Reads the payload and checks that it is JSON.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is not, or cannot be read.
    pub(crate) fn read(&self) -> Result<Box<RawValue>, Failure> {
        json(&self.data)
    }
}

/// Reads `JSON`, `@FILE`, or `@-` for standard input, and checks that it is JSON.
///
/// # Errors
/// [`Failure::Usage`] if it is not, or cannot be read.
pub(crate) fn json(data: &str) -> Result<Box<RawValue>, Failure> {
    let text = match data.strip_prefix('@') {
        None => data.to_owned(),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .read_to_string(&mut text)
                .map_err(|error| unreadable("standard input", &error))?;
            text
        }
        Some(path) => std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?,
    };
    RawValue::from_string(text).map_err(|error| {
        Failure::Usage(format!(
            "the input is not JSON ({error}); a text is written with its quotes: -d '\"like this\"'"
        ))
    })
}

/// Reads a file that somebody named.
///
/// # Errors
/// [`Failure::Usage`] if it cannot be read.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unreadable(&path.display().to_string(), &error))
}

/// What is said of a file that somebody named and that cannot be read.
pub(crate) fn unreadable(what: &str, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("cannot read {what}: {error}"))
}

/// Splits `name=value`.
///
/// # Errors
/// A sentence for whoever typed it.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as name=value".to_owned()),
    }
}

/// Sets a field of a spec: `timeoutMs=500`, `retryBackoff.baseDelayMs=0`, `env.NAME=any text`. A value is
/// JSON if it can be read as such, else text; values of `env` and `config` are always text.
pub(crate) fn set_field(
    spec: &mut serde_json::Map<String, serde_json::Value>,
    name: &str,
    value: &str,
) {
    let json = || serde_json::from_str(value).unwrap_or_else(|_| value.into());
    let Some((outer, inner)) = name.split_once('.') else {
        spec.insert(name.to_owned(), json());
        return;
    };
    let value = match outer {
        "env" | "config" => value.into(),
        _ => json(),
    };
    let object = spec
        .entry(outer)
        .or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
    if !object.is_object() {
        *object = serde_json::Value::Object(serde_json::Map::new());
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert(inner.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_as_what_they_look_like() {
        let mut spec = serde_json::Map::new();
        for (name, value) in [
            ("timeoutMs", "500"),
            ("record", "full"),
            ("retryBackoff.baseDelayMs", "0"),
            ("env.PORT", "8080"),
            ("env.A.B", "x=y"),
            ("args", r#"["-v"]"#),
        ] {
            set_field(&mut spec, name, value);
        }
        assert_eq!(
            serde_json::Value::Object(spec),
            serde_json::json!({
                "timeoutMs": 500,
                "record": "full",
                "retryBackoff": {"baseDelayMs": 0},
                "env": {"PORT": "8080", "A.B": "x=y"},
                "args": ["-v"],
            })
        );
    }

    #[test]
    fn a_payload_stays_as_it_was_written() {
        let payload = Payload {
            data: r#"{"n": 1.10 }"#.to_owned(),
        };
        assert_eq!(payload.read().unwrap().get(), r#"{"n": 1.10 }"#);
        let text = Payload {
            data: "hello".to_owned(),
        };
        assert!(matches!(text.read(), Err(Failure::Usage(why)) if why.contains("quotes")));
    }

    #[test]
    fn pairs_have_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("=b").is_err());
        assert!(pair("a").is_err());
    }
}
