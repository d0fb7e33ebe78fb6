//! `pelton executions` with the real binary: list, cancel, redrive, export. And what all commands say to a server
//! that is no Pelton.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::binary::{Ran, Server, pelton};
use crate::support::programs::exits;

/// A server in which nothing moves by itself, with a function that fails for good.
fn server(folder: &TempDir) -> Server {
    let server = Server::start(&folder.path().join("data"), &["--manual"]);
    let file = folder.path().join("fails.wasm");
    std::fs::write(&file, exits(65, "no")).unwrap();
    server.deploy("fails", &file, &[]);
    server
}

fn status(server: &Server, id: &str) -> Value {
    let shown = server.run(&["executions", "get", id, "--json"]).code(0);
    shown.json()["status"].clone()
}

fn failed(server: &Server, count: usize) -> Vec<String> {
    let ids: Vec<_> = (0..count)
        .map(|n| server.enqueue("fails", &n.to_string()))
        .collect();
    let limit = count.to_string();
    server.run(&["drain", "fails", "--limit", &limit]).code(0);
    ids
}

#[test]
fn an_execution_is_cancelled_and_one_that_failed_redriven() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder);
    let queued = server.enqueue("fails", "1");
    let cancelled = server.run(&["executions", "cancel", &queued]).code(0);
    assert!(
        cancelled.stdout.contains("status     cancelled"),
        "{}",
        cancelled.stdout
    );
    assert_eq!(status(&server, &queued), "cancelled");
    let again = server.run(&["executions", "cancel", &queued, "--json"]);
    assert_eq!(again.code(0).json()["status"], "cancelled");
    let refused = server.run(&["executions", "redrive", &queued]).code(3);
    assert!(
        refused.stderr.contains("NOT_REDRIVABLE"),
        "{}",
        refused.stderr
    );

    let failed = failed(&server, 1).remove(0);
    assert_eq!(status(&server, &failed), "error");
    let unknown = server.run(&["executions", "redrive", &failed, "--version", "7"]);
    assert!(unknown.code(3).stderr.contains("VERSION_NOT_FOUND"));
    let redriven = server.run(&["executions", "redrive", &failed, "--json"]);
    let redriven = redriven.code(0).json();
    assert_eq!(redriven["status"], "queued");
    assert_eq!(redriven["attempts"], 0);

    let nobody = "0192aaaa-0000-7000-8000-000000000000";
    for order in ["cancel", "redrive", "get"] {
        let unknown = server.run(&["executions", order, nobody]).code(3);
        assert!(
            unknown.stderr.contains("executions ls"),
            "{}",
            unknown.stderr
        );
    }
}

#[test]
fn many_are_counted_and_then_redriven() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder);
    let ids = failed(&server, 3);
    let all = [
        "executions",
        "redrive",
        "--function",
        "fails",
        "--status",
        "error",
    ];
    let with = |further: &[&str]| server.run(&[&all[..], further].concat());
    let counted = with(&["--dry-run"]).code(0);
    assert!(
        counted
            .stdout
            .starts_with("3 executions of fails would be redriven\n"),
        "{}",
        counted.stdout
    );
    assert!(counted.stdout.contains(&ids[0]), "{}", counted.stdout);
    assert_eq!(status(&server, &ids[0]), "error");
    let none = with(&["--until", "2020-01-01T00:00:00Z", "--json"]).code(0);
    assert_eq!(none.json()["redriven"], 0);

    let done = with(&[]).code(0);
    assert!(
        done.stdout.starts_with("3 executions of fails redriven\n"),
        "{}",
        done.stdout
    );
    for id in &ids {
        assert_eq!(status(&server, id), "queued");
    }
    for usage in [
        &["executions", "redrive"][..],
        &["executions", "redrive", "--function", "fails"],
        &[
            "executions",
            "redrive",
            &ids[0],
            "--function",
            "fails",
            "--status",
            "error",
        ],
        &["executions", "redrive", &ids[0], "--dry-run"],
    ] {
        server.run(usage).code(2);
    }
    let misspelt = [
        "executions",
        "redrive",
        "--function",
        "fails",
        "--status",
        "failed",
    ];
    let misspelt = server.run(&misspelt).code(3);
    assert!(
        misspelt.stderr.contains("error, timeout"),
        "{}",
        misspelt.stderr
    );
}

#[test]
fn executions_are_listed_by_time_and_exported_as_lines() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder);
    let ids = failed(&server, 3);
    let listed = |filters: &[&str]| {
        let list = [&["executions", "ls", "--json"], filters].concat();
        let list = server.run(&list).code(0).json();
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(listed(&["--function", "fails", "--status", "error"]), 3);
    assert_eq!(listed(&["--since", "2020-01-01T00:00:00Z"]), 3);
    assert_eq!(listed(&["--until", "2020-01-01T00:00:00Z"]), 0);

    let export = |further: &[&str]| server.run(&[&["executions", "export"], further].concat());
    let lines = export(&["--status", "error"]).code(0).stdout;
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let exported: Vec<_> = lines
        .iter()
        .rev()
        .map(|line| &line["executionId"])
        .collect();
    assert_eq!(exported, ids.iter().collect::<Vec<_>>());
    assert!(lines[0].get("output").is_some());

    let file = folder.path().join("all.ndjson");
    let to_file = ["--to", file.to_str().unwrap(), "--no-outputs"];
    let written = export(&to_file).code(0);
    assert!(
        written.stderr.contains("3 executions in"),
        "{}",
        written.stderr
    );
    assert_eq!(written.stdout, "");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(!text.contains("\"output\""));
    // What is there is not written over.
    export(&to_file).code(2);
    let rest = export(&["--before", &ids[1]]).code(0).stdout;
    assert_eq!(rest.lines().count(), 1);
    assert!(rest.contains(&ids[0]));
    export(&["--status", "broken"]).code(3);
}

/// A server that answers one request after another with these bytes, whatever it is asked.
fn stranger(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn a_server_that_is_no_pelton_is_told_apart_by_every_command_and_in_json_too() {
    let html = stranger(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 15\r\nconnection: close\r\n\r\n<p>It works</p>",
    );
    let json = stranger(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"ok\":true}",
    );
    // An export that ends before its end.
    let cut = stranger(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"a\":1}\n\r\n",
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.wasm");
    std::fs::write(&file, exits(65, "no")).unwrap();
    let file = file.to_str().unwrap();
    let bulk = [
        "executions",
        "redrive",
        "--function",
        "f",
        "--status",
        "error",
    ];
    let commands: [&[&str]; 17] = [
        &["functions", "ls"],
        &["functions", "get", "f"],
        &["functions", "rm", "f"],
        &["functions", "versions", "f"],
        &["functions", "rollback", "f", "--version", "1"],
        &["deploy", "f", file],
        &["deploy", "f", file, "--set", "timeoutMs=1"],
        &["deploy", "f", "--set", "timeoutMs=1"],
        &["invoke", "f", "-d", "1"],
        &["enqueue", "f", "-d", "1"],
        &["drain", "f"],
        &["logs", "id"],
        &["executions", "ls"],
        &["executions", "get", "id"],
        &["executions", "cancel", "id"],
        &bulk,
        &["executions", "export"],
    ];
    for command in commands {
        for url in [&html, &json] {
            for format in [&[][..], &["--json"]] {
                let mut ran = pelton();
                ran.args(command).args(format).args(["--server", url]);
                let ran = Ran::of(ran.output().unwrap());
                assert_eq!(ran.code, 4, "{command:?} {format:?}: {}", ran.stderr);
                assert!(ran.stderr.contains("Pelton"), "{command:?}: {}", ran.stderr);
                assert_eq!(ran.stdout, "", "{command:?}");
            }
        }
    }
    doctor_is_not_taken_in(&folder.path().join("data"), &html);
    let mut ran = pelton();
    ran.args(["executions", "export", "--server", &cut]);
    let ran = Ran::of(ran.output().unwrap()).code(4);
    assert_eq!(ran.stdout, "{\"a\":1}\n");
    assert!(
        ran.stderr.contains("broke off after 1 executions"),
        "{}",
        ran.stderr
    );
}

#[track_caller]
fn doctor_is_not_taken_in(data: &Path, url: &str) {
    let mut ran = pelton();
    ran.args(["doctor", "--server", url, "--data-dir"])
        .arg(data);
    let ran = Ran::of(ran.output().unwrap()).code(1);
    assert!(ran.stdout.contains("is it a Pelton?"), "{}", ran.stdout);
}
