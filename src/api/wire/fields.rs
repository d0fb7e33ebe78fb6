//! Takes an object's members out one by one and collects every complaint on the way.
//!
//! **Invariant:** a complaint names its field, what is wrong and what would be right; null is the same as
//! absent; reading never stops at the first mistake.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// The longest value that a complaint repeats, in characters.
const SHOWN_CHARS_MAX: usize = 40;

/// An object that is being read, and what was found wrong with it.
pub(super) struct Fields<'a> {
    /// Goes before the names of its fields in complaints: `retryBackoff.`, or nothing.
    prefix: &'static str,
    object: Map<String, Value>,
    complaints: &'a mut Vec<String>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(object: Map<String, Value>, complaints: &'a mut Vec<String>) -> Self {
        Self {
            prefix: "",
            object,
            complaints,
        }
    }

    /// The fields of the object that is a member of this one; none where it is absent.
    pub(super) fn nested(
        &mut self,
        name: &'static str,
        prefix: &'static str,
    ) -> Option<Fields<'_>> {
        let value = self.take(name)?;
        let what_else = shown(&value);
        let Value::Object(object) = value else {
            self.complain(name, format_args!("must be an object, not {what_else}"));
            return None;
        };
        Some(Fields {
            prefix,
            object,
            complaints: &mut *self.complaints,
        })
    }

    pub(super) fn complain(&mut self, name: &str, complaint: impl Display) {
        let prefix = self.prefix;
        self.complaints.push(format!("{prefix}{name}: {complaint}"));
    }

    /// How many complaints there are.
    pub(super) fn complained(&self) -> usize {
        self.complaints.len()
    }

    /// The names of what was not taken.
    pub(super) fn left(&self) -> Vec<String> {
        self.object.keys().cloned().collect()
    }

    /// Whether a member is there that was not taken yet, and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    /// A member's value; none where it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.object.remove(name).filter(|value| !value.is_null())
    }

    /// A whole number within a range.
    pub(super) fn number(&mut self, name: &str, range: &RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(name)?;
        let number = value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            let range = match *most {
                u64::MAX => format!("from {least}"),
                most => format!("from {least} to {most}"),
            };
            let complaint = format!("must be a whole number {range}, not {}", shown(&value));
            self.complain(name, complaint);
        }
        number
    }

    /// A whole number within a range that fits 32 bits.
    pub(super) fn small_number(&mut self, name: &str, range: &RangeInclusive<u64>) -> Option<u32> {
        // Every range that is asked for here ends below 2^32.
        self.number(name, range)
            .map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.take(name)?;
        if let Value::Bool(flag) = value {
            return Some(flag);
        }
        self.complain(
            name,
            format_args!("must be true or false, not {}", shown(&value)),
        );
        None
    }

    /// A string that is not blank, of at most `bytes_max` bytes.
    pub(super) fn text(&mut self, name: &str, bytes_max: usize) -> Option<String> {
        let value = self.take(name)?;
        let complaint = match value.as_str() {
            None => format!("must be a string, not {}", shown(&value)),
            Some(text) if text.trim().is_empty() => "must not be blank".to_owned(),
            Some(text) if text.len() > bytes_max => {
                format!("has {} bytes, and may have {bytes_max}", text.len())
            }
            Some(text) => return Some(text.to_owned()),
        };
        self.complain(name, complaint);
        None
    }

    /// One of a list of words.
    pub(super) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.take(name)?;
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let complaint = format!("must be one of {}, not {}", words.join(", "), shown(&value));
            self.complain(name, complaint);
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, name: &str, bounds: Bounds) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let items = value.as_array();
        let texts = items.and_then(|items| items.iter().map(into_text).collect::<Option<Vec<_>>>());
        let Some(texts) = texts else {
            self.complain(name, "must be a list of strings");
            return None;
        };
        let bytes = texts.iter().map(String::len).sum();
        self.within(name, bounds, texts.len(), bytes)
            .then_some(texts)
    }

    /// An object of strings.
    pub(super) fn text_map(
        &mut self,
        name: &str,
        bounds: Bounds,
    ) -> Option<BTreeMap<String, String>> {
        let value = self.take(name)?;
        let Value::Object(members) = value else {
            self.complain(name, "must be an object of strings");
            return None;
        };
        let mut texts = BTreeMap::new();
        let mut bytes = 0;
        for (key, value) in members {
            let Some(text) = into_text(&value) else {
                let (key, value) = (crate::api::error::quoted(&key), shown(&value));
                self.complain(name, format_args!("{key} must be a string, not {value}"));
                continue;
            };
            bytes += key.len() + text.len();
            texts.insert(key, text);
        }
        self.within(name, bounds, texts.len(), bytes)
            .then_some(texts)
    }

    fn within(&mut self, name: &str, bounds: Bounds, entries: usize, bytes: usize) -> bool {
        let Bounds {
            entries_max,
            bytes_max,
        } = bounds;
        if entries > entries_max {
            let complaint = format!("has {entries} entries, and may have {entries_max}");
            self.complain(name, complaint);
        }
        if bytes > bytes_max {
            self.complain(
                name,
                format_args!("has {bytes} bytes, and may have {bytes_max}"),
            );
        }
        entries <= entries_max && bytes <= bytes_max
    }
}

/// How much a list or an object of strings may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries_max: usize,
    pub(super) bytes_max: usize,
}

fn into_text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A value as a complaint repeats it: cut where it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    };
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
