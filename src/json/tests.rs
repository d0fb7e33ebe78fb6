//! The scanner and `serde_json` agree on what JSON is.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

/// What `serde_json` says, which passes over the bytes of strings without reading them.
fn expected(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok() && std::str::from_utf8(text).is_ok()
}

#[track_caller]
fn check(text: &[u8]) {
    assert_eq!(
        is_json(text, DEPTH_MAX),
        expected(text),
        "{}",
        String::from_utf8_lossy(text)
    );
}

/// Texts on both sides of the line.
const TEXTS: &[&str] = &[
    "",
    " ",
    "null",
    "nul",
    "nulll",
    "true",
    "tru",
    "false",
    "True",
    "0",
    "-0",
    "00",
    "-",
    "+1",
    "1.",
    "1.0",
    ".5",
    "1e5",
    "1E+5",
    "1e-05",
    "1e",
    "1e+",
    "-1.5e3x",
    "1 2",
    "\"\"",
    "\"",
    "\"a",
    "\"a\"b",
    r#""\n\"\\\/\b\f\r\t""#,
    r#""\x""#,
    r#""\u00e9""#,
    r#""\u00g9""#,
    r#""\ud800""#,
    r#""\u12""#,
    r#""\"#,
    "\"\t\"",
    "\"\u{7f}\"",
    "\"\u{1f}\"",
    "\"größe €\"",
    "[]",
    "[ ]",
    "[1]",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1",
    "[",
    "]",
    "{}",
    "{ }",
    "{\"a\":1}",
    "{\"a\" : [ {} , null ] }",
    "{\"a\"}",
    "{\"a\":}",
    "{a:1}",
    "{\"a\":1,}",
    "{,}",
    "{\"a\":1 \"b\":2}",
    "{\"a\":1]",
    "[1}",
    "{",
    "}",
    "{\"a\":1}}",
    "[[]]]",
    "[{}]",
    " \n\r\t[ 1 , \"x\" ] \n",
    "\u{feff}1",
    "[1]\0",
    "NaN",
    "/* */1",
    "'a'",
];

#[test]
fn what_is_json_and_what_is_not() {
    for text in TEXTS {
        check(text.as_bytes());
    }
    // Strings of all lengths around the eight bytes that are looked at together.
    for length in 0..40 {
        let plain = "x".repeat(length);
        for tail in ["\"", "\\n\"", "\u{1}\"", "é\"", ""] {
            check(format!("\"{plain}{tail}").as_bytes());
            check(format!("{{\"{plain}{tail}:1}}").as_bytes());
        }
    }
    check(b"\"\xff\"");
    check(b"[\"\xc3\"]");
}

#[test]
fn every_byte_in_a_string_is_judged_by_itself() {
    for byte in 0..=255 {
        for place in 0..9 {
            let mut text = b"\"aaaaaaaaaaaa\"".to_vec();
            text[1 + place] = byte;
            check(&text);
            // A neighbour that borrows must not be taken for one that is special.
            text[2 + place] = byte.wrapping_add(1);
            check(&text);
        }
    }
}

#[test]
fn nesting_is_bounded_and_costs_nothing() {
    let nested =
        |open: &str, close: &str, depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
    let most = usize::try_from(DEPTH_MAX).unwrap();
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let levels = open.matches(['[', '{']).count();
        let fits = nested(open, close, most / levels);
        assert!(is_json(fits.as_bytes(), DEPTH_MAX));
        assert!(is_json(fits.as_bytes(), u32::MAX));
        assert!(!is_json(fits.as_bytes(), DEPTH_MAX - 1));
        let beyond = nested(open, close, most / levels + 1);
        assert!(!is_json(beyond.as_bytes(), u32::MAX));
    }
    assert!(is_json(b"1", 0) && !is_json(b"[]", 0));
    assert!(!is_json("[".repeat(1_000_000).as_bytes(), DEPTH_MAX));
}

#[test]
fn a_value_ends_where_it_ends() {
    let text = b" {\"a\": [1, 2]} , 5";
    assert_eq!(value_end(text, 0, DEPTH_MAX), Some(14));
    assert_eq!(value_end(text, 16, DEPTH_MAX), Some(18));
    assert_eq!(value_end(text, 18, DEPTH_MAX), None);
    assert_eq!(value_end(text, 99, DEPTH_MAX), None);
    assert_eq!(string_end(text, 2), Some(5));
    assert_eq!(string_end(text, 0), None);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_alike(text in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(is_json(&text, DEPTH_MAX), expected(&text));
    }

    #[test]
    fn what_looks_like_json_is_judged_alike(
        text in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", " ", "\"", "\\", "\"a\"", "\"b\\n\"", "1", "-", "0", ".5", "e3",
                "true", "null", "\\u00e9", "x", "\"key\":", "\n",
            ]),
            0..24,
        )
    ) {
        let text = text.concat();
        prop_assert_eq!(is_json(text.as_bytes(), DEPTH_MAX), expected(text.as_bytes()));
    }

    #[test]
    fn every_value_and_no_part_of_one_is_json(text in "\\PC{0,20}", number: f64, name in "[a-zé\"\\\\]{0,12}") {
        let value = serde_json::json!({ "list": [number, text, null, {}], name: [[true], "\u{1}"] });
        for printed in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            prop_assert!(is_json(printed.as_bytes(), DEPTH_MAX), "{}", printed);
            for end in 0..printed.len() {
                prop_assert!(!is_json(&printed.as_bytes()[..end], DEPTH_MAX));
            }
        }
    }
}
