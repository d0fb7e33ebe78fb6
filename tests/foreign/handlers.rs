//! Typed handlers of `wit/pelton.wit` in other languages.

use serde_json::json;

use crate::plane::{NAME, Plane};
use crate::tools::{pelton_wit, tools};

#[test]
fn javascript_on_quickjs_makes_a_handler() {
    let file = tools().componentize_qjs("handler.js", &pelton_wit(), "function");
    let plane = Plane::with(&file, &["maxRetries=2", "retryBackoff.baseDelayMs=0"]);
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
    let file = tools().componentize_py("typed", &pelton_wit(), "function");
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
