//! The word count that three functions answer with: a typed handler, and web services of `wasi:http` 0.2 and 0.3.
//!
//! A word is a run of Unicode letters and digits, in lower case; equally frequent words stand in alphabetical
//! order (by code point).
//!
//! **Invariant:** decided here alone, so all three count alike.

pub mod web;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

const TOP_DEFAULT: usize = 10;
const NO_TEXT: &str = "Field 'text' is required and must be non-empty";
const NO_WORDS: &str = "No words found in input";

/// What there is to say of a text.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Words in all.
    pub word_count: usize,
    /// Different words.
    pub unique_words: usize,
    /// The most frequent first; equally frequent ones in the order of code points.
    pub top_words: Vec<TopWord>,
    /// In characters, rounded to two decimals.
    pub average_word_length: f64,
}

/// A word of a text.
#[derive(Debug, Serialize)]
pub struct TopWord {
    /// The word, in lower case.
    pub word: String,
    /// How often it stands there.
    pub count: usize,
}

/// Counts the words of `{"text": "…", "topN": 10}`, or of a text alone.
///
/// ```
/// let counted = words::count(&serde_json::json!("one two Two")).unwrap();
/// assert_eq!((counted.word_count, counted.unique_words), (3, 2));
/// ```
///
/// # Errors
/// What is missing, in a sentence.
pub fn count(input: &Value) -> Result<Stats, &'static str> {
    let text = input.as_str().or_else(|| input.get("text")?.as_str());
    let text = text.filter(|text| !text.trim().is_empty()).ok_or(NO_TEXT)?;
    count_words(text, top(input)).ok_or(NO_WORDS)
}

/// How many words to name: a positive whole number, else the default.
fn top(input: &Value) -> usize {
    input
        .get("topN")
        .and_then(Value::as_u64)
        .filter(|top| *top > 0)
        .map_or(TOP_DEFAULT, |top| {
            usize::try_from(top).unwrap_or(usize::MAX)
        })
}

fn count_words(text: &str, top: usize) -> Option<Stats> {
    let text = text.to_lowercase();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut characters = 0;
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        *counts.entry(word).or_default() += 1;
        characters += word.chars().count();
    }
    let word_count: usize = counts.values().sum();
    if word_count == 0 {
        return None;
    }
    let mut ranked: Vec<(&str, usize)> =
        counts.iter().map(|(word, count)| (*word, *count)).collect();
    // The map is in alphabetical order and the sort is stable, so ties are already right.
    ranked.sort_by_key(|(_, count)| Reverse(*count));
    Some(Stats {
        word_count,
        unique_words: counts.len(),
        top_words: ranked
            .into_iter()
            .take(top)
            .map(|(word, count)| TopWord {
                word: word.to_owned(),
                count,
            })
            .collect(),
        average_word_length: (characters as f64 / word_count as f64 * 100.0).round() / 100.0,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn at_most_ten_words_are_named_unless_asked() {
        let text: String = ('a'..='z').map(|letter| format!("{letter} ")).collect();
        let named = |input: &Value| count(input).unwrap().top_words.len();
        assert_eq!(named(&json!({"text": text})), 10);
        assert_eq!(named(&json!({"text": text, "topN": -3})), 10);
        assert_eq!(named(&json!({"text": text, "topN": 12})), 12);
        assert_eq!(named(&json!({"text": text, "topN": 99})), 26);
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(count(&json!({"text": " "})).unwrap_err(), NO_TEXT);
        assert_eq!(count(&json!("?!")).unwrap_err(), NO_WORDS);
    }
}
