//! Counts the words of a text: how many, how many different ones, the most frequent, their average length.
//!
//! The input is `{"text": "…", "topN": 10}` or the text alone. A word is a run of Unicode letters and
//! digits, in lower case; equally frequent words stand in alphabetical order (by code point). The contract
//! is older than Pelton: what it cannot count is an ordinary answer, `{"error": "…"}`, and not an error of
//! the execution. `order-intake` shows the other way.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pelton_guest::{Outcome, handler};
use serde::Serialize;
use serde_json::Value;

const TOP_DEFAULT: usize = 10;
const NO_TEXT: &str = "Field 'text' is required and must be non-empty";
const NO_WORDS: &str = "No words found in input";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    word_count: usize,
    unique_words: usize,
    top_words: Vec<TopWord>,
    /// In characters, rounded to two decimals.
    average_word_length: f64,
}

#[derive(Serialize)]
struct TopWord {
    word: String,
    count: usize,
}

#[derive(Serialize)]
struct Complaint {
    error: &'static str,
}

#[handler]
fn handle(input: Value) -> Outcome {
    match stats(&input) {
        Ok(stats) => Outcome::success_json(&stats),
        Err(error) => Outcome::success_json(&Complaint { error }),
    }
}

fn stats(input: &Value) -> Result<Stats, &'static str> {
    let text = input.as_str().or_else(|| input.get("text")?.as_str());
    let text = text.filter(|text| !text.trim().is_empty()).ok_or(NO_TEXT)?;
    count(text, top(input)).ok_or(NO_WORDS)
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

fn count(text: &str, top: usize) -> Option<Stats> {
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
    use pelton_guest::{Execution, testing};

    use super::*;

    #[test]
    fn the_cases_come_out() {
        testing::check_cases(handle, include_str!("../cases.json"));
    }

    #[test]
    fn at_most_ten_words_are_named_unless_asked() {
        let text: String = ('a'..='z').map(|letter| format!("{letter} ")).collect();
        let named = |input: &Value| {
            let outcome = testing::call_json(handle, &Execution::default(), input);
            let answer: Value = testing::success(&outcome);
            answer["topWords"].as_array().map(Vec::len)
        };
        assert_eq!(named(&serde_json::json!({"text": text})), Some(10));
        assert_eq!(
            named(&serde_json::json!({"text": text, "topN": -3})),
            Some(10)
        );
        assert_eq!(
            named(&serde_json::json!({"text": text, "topN": 12})),
            Some(12)
        );
        assert_eq!(
            named(&serde_json::json!({"text": text, "topN": 99})),
            Some(26)
        );
    }
}
