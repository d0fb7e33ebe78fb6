//! Programs: interpreters that packages carry, and what compilers of other languages make.

use serde_json::{Value, json};

use crate::plane::Plane;
use crate::tools::tools;

#[test]
fn cpython_runs_as_it_is() {
    let program = "import json, sys\n\
                   asked = json.load(sys.stdin)\n\
                   if asked.get('fail'): sys.exit(asked['fail'])\n\
                   print(json.dumps({'sum': sum(asked['numbers']), 'version': sys.version_info[0]}))";
    let args = format!("args={}", json!(["-c", program]));
    let plane = Plane::with(
        &tools().carried("python.wasm"),
        &[&args, "maxRetries=1", "memoryMb=512"],
    );
    assert_eq!(plane.shape(), "core-command");
    let expected = json!({"sum": 6, "version": 3});
    assert_eq!(plane.output(r#"{"numbers": [1, 2, 3]}"#), expected);
    plane.calls_at_once(6, r#"{"numbers": [6]}"#, &expected);
    assert_eq!(plane.failure(r#"{"fail": 65}"#), "EXIT_65");
    let execution = plane.call(r#"{}"#);
    assert_eq!(execution["error"]["code"], "EXIT_1", "{execution}");
    assert!(plane.logs(&execution).contains("KeyError: 'numbers'"));
}

#[test]
fn quickjs_runs_as_it_is() {
    let args = format!(
        "args={}",
        json!(["-e", "print(JSON.stringify([1, 2, 3].map(n => n * n)))"])
    );
    let plane = Plane::with(&tools().carried("quickjs.wasm"), &[&args]);
    assert_eq!(plane.shape(), "core-command");
    plane.calls_at_once(6, "1", &json!([1, 4, 9]));
}

#[test]
fn go_makes_a_program() {
    let plane = Plane::with(&tools().go("command.go"), &["maxRetries=1"]);
    assert_eq!(plane.shape(), "core-command");
    let expected = json!({"square": 49, "attempt": "1"});
    plane.calls_at_once(6, r#"{"number": 7}"#, &expected);
    assert_eq!(plane.failure(r#"{"exit": 77}"#), "EXIT_77");
    assert_eq!(plane.failure("[]"), "EXIT_65");
}

#[test]
fn c_makes_a_program() {
    let file = tools().c("command.c");
    let plane = Plane::with(&file, &[]);
    assert_eq!(plane.shape(), "core-command");
    let input = json!("x".repeat(100_000)).to_string();
    assert_eq!(
        plane.output(&input),
        json!({"bytes": 100_000, "mapped": "foreign"})
    );
    let plane = Plane::with(&file, &["args=[\"64\"]"]);
    assert_eq!(plane.failure("1"), "EXIT_64");
}

#[test]
fn assemblyscript_makes_a_program() {
    let plane = Plane::with(&tools().assemblyscript("command.ts"), &[]);
    assert_eq!(plane.shape(), "core-command");
    let execution = plane.call(r#""the wheel turns""#);
    assert_eq!(
        execution["output"],
        Value::from("THE WHEEL TURNS"),
        "{execution}"
    );
    assert!(plane.logs(&execution).contains("read 15"));
}
