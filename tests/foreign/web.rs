//! Web functions of `wasi:http`, from early and late versions of 0.2, from 0.3, and from several toolchains.

use std::path::Path;

use serde_json::{Value, json};

use crate::plane::{Plane, Sending};
use crate::rust;
use crate::tools::tools;
use crate::wit::Wasi;

/// Deployed with the defaults and called, also many times at once.
#[track_caller]
fn answers(file: &Path, shape: &str, made_by: &str) -> Plane {
    let plane = Plane::with(file, &["maxRetries=1"]);
    assert_eq!(plane.shape(), shape);
    let input = r#"{"the": ["wheel", 1.5]}"#;
    let said: Value = serde_json::from_str(input).unwrap();
    let expected = json!({"madeBy": made_by, "said": said});
    plane.calls_at_once(6, input, &expected);
    serves(&plane, input, &expected);
    plane
}

/// Below `/fn/` it is a web server, however the body comes.
#[track_caller]
fn serves(plane: &Plane, input: &str, expected: &Value) {
    for sending in [Sending::Whole, Sending::InChunks] {
        for path in ["", "/", "/below?a=b"] {
            let (status, head, body) = plane.posted(path, input, sending);
            assert_eq!(status, 200, "{sending:?} {path}: {head}\n{body}");
            assert!(head.contains("\r\nx-execution-id: "), "{head}");
            assert!(
                head.contains("\r\ncontent-type: application/json"),
                "{head}"
            );
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(&body, expected, "{sending:?} {path}");
        }
    }
}

/// What is raised in the function reaches its log and nobody else's answer.
#[track_caller]
fn throws(plane: &Plane, code: &str, logged: &str) {
    // Whoever asks is not told why.
    let (status, _, body) = plane.posted("/throw", "1", Sending::Whole);
    assert_eq!(status, if code == "TRAP" { 502 } else { 500 }, "{body}");
    assert!(!body.contains(logged), "{body}");
    plane.set("invokePath=/throw");
    let execution = plane.call("1");
    assert_eq!(execution["error"]["code"], code, "{execution}");
    let logs = plane.logs(&execution);
    assert!(logs.contains(logged), "{logs}");
}

#[test]
fn javascript_makes_a_web_function() {
    // The engine's own bindings are of exactly this version.
    let wasi = Wasi::of("0.2.10");
    let engine = "@bytecodealliance/componentize-js";
    let file = tools().componentize_js(engine, "http.js", wasi.web());
    let plane = answers(&file, "http-0.2", "javascript");
    plane.set("invokePath=/refuse");
    assert_eq!(plane.failure("1"), "JS_REFUSED");
    throws(&plane, "HTTP_500", "as asked");
}

#[test]
fn javascript_of_an_earlier_engine_makes_a_web_function() {
    let wasi = Wasi::of("0.2.3");
    let file = tools().componentize_js("componentize-js-0-19-3", "http.js", wasi.web());
    answers(&file, "http-0.2", "javascript");
}

#[test]
fn python_makes_a_web_function() {
    let wasi = Wasi::of("0.2.0");
    let file = tools().componentize_py("web", wasi.web());
    let plane = answers(&file, "http-0.2", "python");
    throws(&plane, "TRAP", "ValueError: as asked");
}

#[test]
fn python_makes_a_web_function_of_0_3() {
    let wasi = Wasi::of("0.3.0");
    let file = tools().componentize_py("service", wasi.web());
    let plane = answers(&file, "http-0.3", "python");
    throws(&plane, "TRAP", "ValueError: as asked");
}

#[test]
fn the_crate_waki_makes_a_web_function() {
    answers(&rust::library("foreign-waki"), "http-0.2", "waki");
}

#[test]
fn the_crate_wstd_makes_a_web_function() {
    answers(&rust::library("foreign-wstd"), "http-0.2", "wstd");
}

#[test]
fn spin_s_sdk_makes_a_web_function() {
    answers(&rust::library("foreign-spin5"), "http-0.2", "spin-sdk 5");
}

#[test]
fn spin_s_sdk_makes_a_web_function_of_0_3() {
    answers(&rust::library("foreign-spin7"), "http-0.3", "spin-sdk 7");
}
