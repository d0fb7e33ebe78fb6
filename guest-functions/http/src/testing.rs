//! For unit tests on the author's machine: asks a function as the host would, and judges as Pelton does.
//!
//! **Invariant:** needs no wasm and no host; a case that comes out differently is a panic that names it.
//!
//! A file of cases is the one of typed handlers: `input`, and `output` or `outcome` with `code`.

use serde_json::Value;

use crate::{Request, Response};

/// The request that `:invoke` and `:enqueue` make of an input: a POST of its JSON.
pub fn posted(input: &Value) -> Request {
    Request {
        method: "POST".to_owned(),
        target: "/".to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: input.to_string().into_bytes(),
    }
}

/// A request without a body.
pub fn asked(method: &str, target: &str, headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter();
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: Vec::new(),
    }
}

/// The body as JSON.
///
/// # Panics
/// If it is none.
#[track_caller]
pub fn json(response: &Response) -> Value {
    match serde_json::from_slice(&response.body) {
        Ok(json) => json,
        Err(error) => panic!("the answer is not JSON: {error}: {response:?}"),
    }
}

/// POSTs every input of a file and compares.
///
/// # Panics
/// At the first case that comes out differently, or if there are none.
#[track_caller]
pub fn check_cases(answer: impl Fn(&Request) -> Response, cases: &str) {
    let cases: Vec<Value> = match serde_json::from_str(cases) {
        Ok(cases) => cases,
        Err(error) => panic!("the cases cannot be read: {error}"),
    };
    assert!(!cases.is_empty(), "there are no cases");
    for case in cases {
        let response = answer(&posted(&case["input"]));
        let body = json(&response);
        match case["outcome"].as_str() {
            None | Some("success") => {
                assert_eq!(response.status / 100, 2, "{case} came out as {body}");
                assert_eq!(body, case["output"], "{case}");
            }
            Some(outcome) => {
                assert_eq!(outcome_of(response.status), outcome, "{case}: {body}");
                assert_eq!(body["error"], case["code"], "{case}");
            }
        }
    }
}

/// What a status that is no success means.
fn outcome_of(status: u16) -> &'static str {
    match status {
        429 => "requeue",
        408 | 425 | 500..=599 => "retry",
        _ => "error",
    }
}
