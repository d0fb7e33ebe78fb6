//! The log of a real server: one JSON object a line, the agreed fields, nothing twice, nothing of a guest's.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
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

/// Starts a server in which work is moved by hand, with further flags.
fn by_hand(data: &Path, flags: &[&str]) -> Server {
    Server::start(data, &[&["--manual"], flags].concat())
}

/// A request over a socket with a header as it stands; the first line of the answer.
fn raw(server: &Server, path: &str, header: &[u8]) -> String {
    let host = server.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let body = br#"{"input": 1}"#;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-trace-id: ",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), header, b"\r\n\r\n", body].concat())
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_request_that_failed_through_us_is_said_once_with_what_no_client_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let json = ["--log-format", "json"];
    let mut server = by_hand(&data, &json);
    server
        .run(&["deploy", "echo", "--set", "image=builtin:echo"])
        .code(0);
    let id = server.enqueue("echo", "1");
    server.run(&["drain", "echo"]).code(0);
    server.terminate();
    server.ended();
    drop(server);
    // A row that makes no sense any more.
    let database = rusqlite::Connection::open(data.join("pelton.db")).unwrap();
    let changed = database.execute("UPDATE executions SET status = 77", []);
    assert_eq!(changed.unwrap(), 1);
    database.close().unwrap();

    let server = by_hand(&data, &json);
    let get = server.run(&["executions", "get", &id]).code(4);
    assert!(get.stderr.contains("INTERNAL_ERROR"), "{}", get.stderr);
    assert!(!get.stderr.contains("77"), "told a client: {}", get.stderr);
    // What is the client's own fault has no line.
    server.run(&["executions", "get", "nobody"]).code(3);
    drop(server);
    let lines = lines(&data.with_extension("log"));
    let failed = said(&lines, "a request failed through a fault of ours");
    let [line] = failed[..] else {
        panic!("{failed:#?}");
    };
    assert!(
        line["error.inside"].as_str().unwrap().contains("77"),
        "{line}"
    );
    assert_eq!(line["error.code"], "INTERNAL_ERROR");
    assert_eq!(line["http.method"], "GET");
    assert_eq!(line["http.path"], format!("/v1/executions/{id}"));
    let loud: Vec<_> = lines
        .iter()
        .filter(|line| line["level"] != "INFO")
        .collect();
    assert_eq!(loud.len(), 1, "{loud:#?}");
}

#[test]
fn a_panic_is_one_line_with_its_place_and_one_with_its_execution() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["json", "pretty"] {
        let data = folder.path().join(format);
        let flags = [
            "--log-format",
            format,
            "--test-panic-on",
            "boom",
            "--faults-max",
            "0",
        ];
        let mut server = by_hand(&data, &flags);
        server
            .run(&["deploy", "echo", "--set", "image=builtin:echo"])
            .code(0);
        let id = server.enqueue("echo", "\"boom\"");
        server.run(&["drain", "echo"]).code(0);
        let ended = server.wait_for(&id, |execution| execution["finishedAt"].is_string());
        assert_eq!(ended["error"]["code"], "PLATFORM_FAULT", "{ended}");
        server.terminate();
        assert_eq!(server.ended().code(), Some(0));
        let log = data.with_extension("log");
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(!text.contains('\u{1b}'), "{text}");
        // Every line is an event, which begins with its time.
        for line in text.lines() {
            let begin = line.trim_start_matches("{\"timestamp\":\"");
            assert!(begin.starts_with("20"), "{line}");
        }
        let count = |what: &str| text.matches(what).count();
        assert_eq!(count("a thread panicked"), 1, "{text}");
        assert_eq!(
            count("an attempt failed through a fault of ours"),
            1,
            "{text}"
        );
        assert_eq!(count("ERROR"), 1, "{text}");
        assert_eq!(count(&id), 1, "{text}");
        assert_eq!(count("src/app/hooks.rs:"), 1, "{text}");
    }
}

#[test]
fn no_trace_id_breaks_a_line_or_paints_it() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["json", "pretty"] {
        let data = folder.path().join(format);
        let filter = ["--log-filter", "info,pelton::scheduler=debug"];
        let flags = [&["--log-format", format][..], &filter].concat();
        let mut server = Server::start(&data, &flags);
        server
            .run(&["deploy", "echo", "--set", "image=builtin:echo"])
            .code(0);
        let path = "/v1/functions/echo:invoke";
        for (trace, expected) in [
            (&b"trace-good"[..], "200"),
            (b"\x1b[31mcrimson", "400"),
            (b"a\x00b", "400"),
            (b"two\r\n lines", "400"),
            (b"tab\tcradle", "200"),
            (b"with blanks in it", "200"),
            ("\u{202e}reversed".as_bytes(), "200"),
            (b"\x9b31m", "200"),
        ] {
            let answer = raw(&server, path, trace);
            assert!(answer.contains(expected), "{trace:?}: {answer}");
        }
        server.terminate();
        assert_eq!(server.ended().code(), Some(0));
        let text = std::fs::read_to_string(data.with_extension("log")).unwrap();
        let ends = text
            .lines()
            .filter(|line| line.contains("an attempt ended"));
        assert_eq!(ends.count(), 5, "{text}");
        assert_eq!(text.matches("trace-good").count(), 1, "{text}");
        for bad in [
            "crimson", "blanks", "reversed", "cradle", "31m", "\u{1b}", "\u{202e}", "\u{9b}",
        ] {
            // Their calls are there, without a label.
            assert!(!text.contains(bad), "{bad:?}: {text}");
        }
    }
}
