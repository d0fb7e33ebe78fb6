//! For unit tests on the author's machine: runs a handler as the host would.
//!
//! **Invariant:** needs no wasm and no host; what does not come out as expected is a panic that says so.
//!
//! A file of cases is a JSON array of objects:
//!
//! | field | default | meaning |
//! |---|---|---|
//! | `input` | | what the caller sends |
//! | `attempt`, `requeues` | 1, 0 | what the execution has behind it |
//! | `outcome` | `success` | `success`, `error`, `retry` or `requeue` |
//! | `output` | | the answer of a success; numbers compare by value |
//! | `code` | | the code of an `error` or a `retry` |
//! | `delayMs` | none | the delay of a `requeue` |

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Execution, Failure, Handler, Outcome, Payload};

/// Runs a handler once.
///
/// ```
/// use pelton_guest::{Execution, Outcome, Payload, testing};
///
/// fn double(number: u32) -> Result<u32, Outcome> {
///     number.checked_mul(2).ok_or_else(|| Outcome::error("TOO_BIG", "cannot be doubled"))
/// }
///
/// let outcome = testing::call(double, &Execution::default(), Payload::new("application/json", "21"));
/// assert_eq!(outcome, Outcome::success_json(&42));
/// ```
pub fn call<H: Handler<Shape>, Shape>(
    handler: H,
    execution: &Execution,
    input: Payload,
) -> Outcome {
    handler.run(execution, input)
}

/// Runs a handler once on a JSON value.
pub fn call_json<H: Handler<Shape>, Shape>(
    handler: H,
    execution: &Execution,
    input: &Value,
) -> Outcome {
    let input = Payload::new("application/json", input.to_string());
    call(handler, execution, input)
}

/// The answer of a success.
///
/// # Panics
/// If it was none, or is not the JSON that was expected.
#[track_caller]
pub fn success<T: DeserializeOwned>(outcome: &Outcome) -> T {
    let Outcome::Success(payload) = outcome else {
        panic!("expected a success, got {outcome:?}");
    };
    match payload.json() {
        Ok(answer) => answer,
        Err(failure) => panic!("the answer is not as expected: {}", failure.message),
    }
}

/// Runs every case of a file (see the module) and compares.
///
/// # Panics
/// At the first case that comes out differently, or if the file has none or cannot be read.
#[track_caller]
pub fn check_cases<H: Handler<Shape>, Shape>(handler: H, cases: &str) {
    let cases: Vec<Case> = match serde_json::from_str(cases) {
        Ok(cases) => cases,
        Err(error) => panic!("the cases cannot be read: {error}"),
    };
    assert!(!cases.is_empty(), "there are no cases");
    for case in cases {
        let execution = Execution {
            attempt: case.attempt,
            requeues: case.requeues,
            ..Execution::default()
        };
        let came = handler.run(
            &execution,
            Payload::new("application/json", case.input.to_string()),
        );
        assert!(case.fits(&came), "{case:?} came out as {came:?}");
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    input: Value,
    #[serde(default = "first")]
    attempt: u32,
    #[serde(default)]
    requeues: u32,
    #[serde(default)]
    outcome: Expected,
    output: Option<Value>,
    code: Option<String>,
    delay_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    #[default]
    Success,
    Error,
    Retry,
    Requeue,
}

fn first() -> u32 {
    1
}

impl Case {
    fn fits(&self, came: &Outcome) -> bool {
        match (&self.outcome, came) {
            (Expected::Success, Outcome::Success(payload)) => {
                match (&self.output, payload.json()) {
                    (Some(expected), Ok(answer)) => same(expected, &answer),
                    (Some(_) | None, Ok(_) | Err(_)) => false,
                }
            }
            (Expected::Error, Outcome::Error(failure))
            | (Expected::Retry, Outcome::Retry(failure)) => self.has_code(failure),
            (Expected::Requeue, Outcome::Requeue(delay)) => {
                *delay == self.delay_ms.map(Duration::from_millis)
            }
            (Expected::Success | Expected::Error | Expected::Retry | Expected::Requeue, _) => false,
        }
    }

    fn has_code(&self, failure: &Failure) -> bool {
        self.code.as_ref() == Some(&failure.code)
    }
}

/// Whether two values are equal, where 3 and 3.0 are.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(_execution: &Execution, input: Value) -> Outcome {
        match input.as_str() {
            Some("retry") => Outcome::retry("BUSY", "later"),
            Some("requeue") => Outcome::requeue_after(Duration::from_secs(1)),
            Some(_) | None => Outcome::success_json(&input),
        }
    }

    #[test]
    fn cases_that_fit_pass() {
        check_cases(
            answer,
            r#"[{"input": {"a": [3.0]}, "output": {"a": [3]}},
                {"input": "retry", "outcome": "retry", "code": "BUSY"},
                {"input": "requeue", "outcome": "requeue", "delayMs": 1000}]"#,
        );
    }

    #[test]
    fn any_difference_is_found() {
        for case in [
            r#"{"input": {"a": 3}, "output": {"a": 4}}"#,
            r#"{"input": {"a": 3}, "output": {"b": 3}}"#,
            r#"{"input": [1, 2], "output": [1]}"#,
            r#"{"input": 1}"#,
            r#"{"input": 1, "outcome": "error", "code": "BUSY"}"#,
            r#"{"input": "retry", "outcome": "retry", "code": "OTHER"}"#,
            r#"{"input": "retry", "outcome": "error", "code": "BUSY"}"#,
            r#"{"input": "requeue", "outcome": "requeue"}"#,
        ] {
            let case: Case = serde_json::from_str(case).unwrap();
            let came = call_json(answer, &Execution::default(), &case.input);
            assert!(!case.fits(&came), "{case:?} must not fit {came:?}");
        }
    }

    #[test]
    fn input_that_does_not_fit_never_reaches_the_function() {
        fn strict(_number: u8) -> Result<u8, Failure> {
            panic!("reached");
        }
        let outcome = call_json(strict, &Execution::default(), &Value::from(256));
        let Outcome::Error(failure) = outcome else {
            panic!("expected an error, got {outcome:?}");
        };
        assert_eq!(failure.code, crate::INVALID_INPUT);
        assert!(failure.message.contains("256"), "{}", failure.message);
    }

    #[test]
    fn bytes_pass_untouched_and_a_bare_failure_is_final() {
        fn bytes(input: Payload) -> Payload {
            input
        }
        fn fails(_input: Payload) -> Result<Payload, Failure> {
            Err(Failure::new("NO", "never"))
        }
        let sent = Payload::new("image/png", [0, 255]);
        assert_eq!(
            call(bytes, &Execution::default(), sent.clone()),
            Outcome::Success(sent.clone())
        );
        assert_eq!(
            call(fails, &Execution::default(), sent),
            Outcome::error("NO", "never")
        );
    }
}
