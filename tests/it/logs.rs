//! The log of a real server: one JSON object a line, the agreed fields, nothing twice, nothing of a guest's.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use crate::support::binary::Server;

/// What the guest writes to both of its streams, and nobody else ever writes.
const SAID: &str = "words-of-a-guest";

fn chatty() -> Vec<u8> {
    let length = SAID.len() + 1;
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "{SAID}\n")
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 64))
            (i32.store (i32.const 4) (i32.const {length}))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    wat::parse_str(text).unwrap()
}

#[track_caller]
fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(
        !text.contains(SAID),
        "a guest's words are in the log:\n{text}"
    );
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn said<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines
        .iter()
        .filter(|line| line["message"] == message)
        .collect()
}

#[test]
fn each_thing_is_said_once_in_json_with_its_fields() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("chatty.wasm");
    std::fs::write(&file, chatty()).unwrap();
    let flags = [
        "--log-format",
        "json",
        "--log-filter",
        "info,pelton::scheduler=debug",
        "--faults-max",
        "1",
    ];
    let mut server = Server::start(&data, &flags);
    server.deploy("chatty", &file, &[]);
    let call = |server: &Server, trace: &str| {
        let asked = ["invoke", "chatty", "-d", "1", "--trace-id", trace, "--json"];
        server.run(&asked).json()
    };
    let good = call(&server, "trace-good");
    assert_eq!(good["status"], "success", "{good}");
    let logs = server.run(&["logs", good["executionId"].as_str().unwrap()]);
    assert!(logs.code(0).stdout.contains(SAID), "the guest said nothing");
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    drop(server);

    // Its code is gone: a fault of ours.
    std::fs::remove_dir_all(data.join("code")).unwrap();
    let mut server = Server::start(&data, &flags);
    let bad = call(&server, "trace-bad");
    assert_eq!(bad["error"]["code"], "PLATFORM_FAULT", "{bad}");
    server.run(&["functions", "rm", "chatty"]).code(0);
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    drop(server);

    let lines = lines(&data.with_extension("log"));
    check(&lines, &good, &bad);
}

#[track_caller]
fn check(lines: &[Value], good: &Value, bad: &Value) {
    for line in lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
    }
    for (message, times) in [
        ("starting", 2),
        ("listening", 2),
        ("a function was created", 1),
        ("an attempt ended", 1),
        ("an attempt failed through a fault of ours", 2),
        ("a function was deleted", 1),
        ("stopping; a second signal quits at once", 2),
        ("stopped", 2),
    ] {
        assert_eq!(said(lines, message).len(), times, "{message}: {lines:#?}");
    }
    for (message, execution, trace) in [
        ("an attempt ended", good, "trace-good"),
        (
            "an attempt failed through a fault of ours",
            bad,
            "trace-bad",
        ),
    ] {
        for line in said(lines, message) {
            assert_eq!(line["execution.id"], execution["executionId"], "{line}");
            assert_eq!(line["function.name"], "chatty", "{line}");
            assert!(line["attempt"].is_u64(), "{line}");
            assert_eq!(line["trace.id"], trace, "{line}");
        }
    }
    let complaints: Vec<_> = lines
        .iter()
        .filter(|line| line["level"] == "WARN" || line["level"] == "ERROR")
        .collect();
    assert_eq!(
        complaints.len(),
        2,
        "the fault is told by others too: {complaints:#?}"
    );
    let mut seen = HashSet::new();
    for line in lines {
        assert!(seen.insert(line.to_string()), "said twice: {line}");
    }
}
