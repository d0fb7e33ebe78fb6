//! Web functions of `wasi:http`, from early and late versions of 0.2 and from several toolchains.

use serde_json::Value;

use crate::plane::Plane;
use crate::tools::tools;

/// Called and asked: through the API, and at its own address.
#[track_caller]
fn answers(plane: &Plane, made_by: &str) {
    assert_eq!(plane.shape(), "http-0.2");
    let input = r#"{"the": ["wheel", 1.5]}"#;
    let said: Value = serde_json::from_str(input).unwrap();
    let output = plane.output(input);
    assert_eq!(output["madeBy"], made_by, "{output}");
    assert_eq!(output["said"], said, "{output}");
}

#[test]
fn javascript_makes_a_web_function() {
    let tools = tools();
    // The engine's own bindings are of exactly this version.
    let file = tools.componentize_js("http.js", &tools.http_wit("0.2.10"), "app");
    let plane = Plane::with(&file, &["maxRetries=1"]);
    answers(&plane, "javascript");
}

#[test]
fn python_makes_a_web_function() {
    let tools = tools();
    let file = tools.componentize_py("web", &tools.http_wit("0.2.0"), "app");
    answers(&Plane::with(&file, &[]), "python");
}

#[test]
fn the_crate_waki_makes_a_web_function() {
    answers(&Plane::with(&tools().rust("foreign-waki"), &[]), "waki");
}

#[test]
fn the_crate_wstd_makes_a_web_function() {
    answers(&Plane::with(&tools().rust("foreign-wstd"), &[]), "wstd");
}
