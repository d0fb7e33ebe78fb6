//! Typed handlers of `wit/pelton.wit` in other languages.

use std::path::Path;

use serde_json::json;

use crate::plane::{NAME, Plane};
use crate::rust;
use crate::tools::tools;
use crate::wit::typed;

#[test]
fn javascript_on_starlingmonkey_makes_a_handler() {
    let file = tools().componentize_js("@bytecodealliance/componentize-js", "typed.js", typed());
    // The engine can call out, whether the handler does or not.
    let plane = Plane::with(&file, &["maxRetries=2", "allowHosts=[]"]);
    assert_eq!(plane.shape(), "handler");
    let expected = json!({"madeBy": "starlingmonkey", "said": "hello", "attempt": 1});
    plane.calls_at_once(6, r#"{"said": "hello"}"#, &expected);
    let told = plane.call(r#"{"said": "hello"}"#);
    assert!(plane.logs(&told).contains("attempt 1 of 2"));
    let thrown = plane.call(r#"{"outcome": "throw"}"#);
    assert_eq!(thrown["error"]["code"], "TRAP", "{thrown}");
    assert_eq!(thrown["attempts"], 2, "{thrown}");
}

#[test]
fn javascript_on_quickjs_makes_a_handler() {
    quickjs_answers(&tools().componentize_qjs("handler.js", typed()));
}

#[test]
fn javascript_on_quickjs_by_way_of_jco_makes_a_handler() {
    quickjs_answers(&tools().jco_componentize("handler.js", typed()));
}

#[track_caller]
fn quickjs_answers(file: &Path) {
    let plane = Plane::with(file, &["maxRetries=2", "retryBackoff.baseDelayMs=0"]);
    assert_eq!(plane.shape(), "handler");
    let expected = json!({"attempt": 1, "function": NAME, "said": "hello"});
    plane.calls_at_once(6, r#"{"said": "hello"}"#, &expected);
    assert_eq!(plane.failure(r#"{"outcome": "error"}"#), "JS_ERROR");
    assert_eq!(plane.failure(r#"{"outcome": "retry"}"#), "JS_RETRY");
    let thrown = plane.call(r#"{"outcome": "throw"}"#);
    assert_eq!(thrown["error"]["code"], "TRAP", "{thrown}");
    assert_eq!(thrown["attempts"], 2, "{thrown}");
}

#[test]
fn python_makes_a_handler() {
    let file = tools().componentize_py("typed", typed());
    let plane = Plane::with(&file, &["maxRetries=1"]);
    assert_eq!(plane.shape(), "handler");
    let expected = json!({"madeBy": "python", "said": "hello", "attempt": 1});
    plane.calls_at_once(6, r#"{"said": "hello"}"#, &expected);
    assert_eq!(plane.failure("{}"), "PY_ERROR");
    // A number has no members to look for.
    let raised = plane.call("5");
    assert_eq!(raised["error"]["code"], "TRAP", "{raised}");
    assert!(plane.logs(&raised).contains("TypeError"));
}

#[test]
fn rust_without_our_sdk_makes_a_handler() {
    let file = rust::library("foreign-typed");
    let plane = Plane::with(&file, &["maxRetries=1"]);
    assert_eq!(plane.shape(), "handler");
    let expected = json!({"madeBy": "wit-bindgen", "said": "hello", "attempt": 1});
    plane.calls_at_once(6, r#"{"said": "hello"}"#, &expected);
    assert_eq!(plane.failure(r#"{"outcome": "retry"}"#), "RUST_ERROR");
}
