//! Writes a number from 1 to 3999 as a Roman numeral.
//!
//! A plain program, no SDK: JSON on standard input, `{"number": 1994}`, JSON on standard output,
//! `{"roman": "MCMXCIV"}`. Fractions are cut off. The contract is older than Pelton: what cannot be written
//! is an ordinary answer, `{"error": "…"}`, and the exit code is 0.
//!
//! A program that does want to say that it failed does so by its exit code, and then should be built for
//! `wasm32-wasip1`: on `wasm32-wasip2` Rust's standard library turns every failure into exit code 1.

use std::io::{self, Read, Write};

use serde_json::{Number, Value, json};

const LARGEST: i64 = 3999;

const NUMERALS: [(i64, &str); 13] = [
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
];

fn main() -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let answer = match convert(&input) {
        Ok(roman) => json!({ "roman": roman }),
        Err(error) => json!({ "error": error }),
    };
    writeln!(io::stdout(), "{answer}")
}

fn convert(input: &[u8]) -> Result<String, String> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(input) else {
        return Err("input must be a JSON object".to_owned());
    };
    match fields.get("number") {
        None | Some(Value::Null) => Err("missing required field: number".to_owned()),
        Some(Value::Number(number)) => match whole(number) {
            Some(whole @ 1..=LARGEST) => Ok(roman(whole)),
            Some(whole) => Err(out_of_range(&whole.to_string())),
            None => Err(out_of_range(&number.to_string())),
        },
        Some(_) => Err("field 'number' must be an integer".to_owned()),
    }
}

fn out_of_range(got: &str) -> String {
    format!("number must be between 1 and {LARGEST}, got: {got}")
}

/// The number without its fraction; none if it is too far away to matter.
fn whole(number: &Number) -> Option<i64> {
    if let Some(whole) = number.as_i64() {
        return Some(whole);
    }
    format!("{:.0}", number.as_f64()?.trunc()).parse().ok()
}

fn roman(mut number: i64) -> String {
    let mut numeral = String::new();
    for (value, sign) in NUMERALS {
        while number >= value {
            numeral.push_str(sign);
            number -= value;
        }
    }
    numeral
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases_come_out() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../cases.json")).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let answer = match convert(case["input"].to_string().as_bytes()) {
                Ok(roman) => json!({ "roman": roman }),
                Err(error) => json!({ "error": error }),
            };
            assert_eq!(answer, case["output"], "for {}", case["input"]);
        }
    }

    #[test]
    fn a_fraction_is_cut_off_and_the_absurd_is_out_of_range() {
        assert_eq!(convert(br#"{"number": 4.9}"#).unwrap(), "IV");
        assert_eq!(
            convert(br#"{"number": 0.9}"#).unwrap_err(),
            "number must be between 1 and 3999, got: 0"
        );
        assert_eq!(
            convert(br#"{"number": 1e300}"#).unwrap_err(),
            "number must be between 1 and 3999, got: 1e+300"
        );
    }

    #[test]
    fn what_is_no_object_is_named_so() {
        for input in ["", "forty-two", "42", "[]", "null"] {
            assert_eq!(
                convert(input.as_bytes()).unwrap_err(),
                "input must be a JSON object",
                "for {input:?}"
            );
        }
    }
}
