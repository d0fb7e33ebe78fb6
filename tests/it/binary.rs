//! The real binary: its first line, its exit codes, its help, and how it stops and starts again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use crate::support::binary::{Ran, Server, pelton};
use crate::support::guests;

/// Sleeps two seconds, then ends well.
const NAP: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 2000000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#;

/// A folder for a server's data, beside which there is room for its log and for files to upload.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn nap(&self) -> PathBuf {
        self.file("nap.wasm", &wat::parse_str(NAP).unwrap())
    }
}

fn component(guest: &str) -> &'static Path {
    &guests::built(guest).component
}

#[test]
fn a_function_is_deployed_called_and_queued_from_the_command_line() {
    let folder = Folder::new();
    let server = Server::start(&folder.data(), &[]);
    server.deploy("echo", component("echo"), &["timeoutMs=5000"]);
    let called = server
        .run(&["invoke", "echo", "-d", r#"{"b": 1.50, "a": []}"#])
        .code(0);
    assert_eq!(called.stdout, "{\n  \"b\": 1.50,\n  \"a\": []\n}\n");
    assert_eq!(called.stderr, "");

    let id = server.enqueue("echo", "\"later\"");
    let ended = server.wait_for(&id, |execution| execution["status"] == "success");
    assert_eq!(ended["output"], "later");
    let function = server
        .run(&["functions", "get", "echo", "--json"])
        .code(0)
        .json();
    assert_eq!(function["timeoutMs"], 5000);
    let list = server
        .run(&["executions", "ls", "--function", "echo"])
        .code(0);
    assert!(list.stdout.contains(&id), "{}", list.stdout);
}

#[test]
fn exit_codes_say_whose_fault_it_is() {
    let folder = Folder::new();
    let server = Server::start(&folder.data(), &[]);
    server.deploy("order-intake", component("order-intake"), &["maxRetries=1"]);

    let failed = server
        .run(&[
            "invoke",
            "order-intake",
            "-d",
            r#"{"orderId": "A", "items": []}"#,
        ])
        .code(1);
    assert!(failed.stderr.contains("INVALID_ORDER"), "{}", failed.stderr);
    assert_eq!(failed.stdout, "");

    server
        .run(&["invoke", "order-intake", "-d", "no json"])
        .code(2);
    server.run(&["frobnicate"]).code(2);

    let unknown = server.run(&["invoke", "nobody", "-d", "1"]).code(3);
    assert!(
        unknown.stderr.contains("pelton functions ls"),
        "{}",
        unknown.stderr
    );
    let text = folder.file("text.wasm", b"this is not wasm");
    server
        .run(&["deploy", "text", text.to_str().unwrap()])
        .code(3);

    let gone = server.url().to_owned();
    drop(server);
    let unreachable = pelton()
        .args(["functions", "ls", "--server", &gone])
        .output()
        .unwrap();
    let unreachable = Ran::of(unreachable).code(4);
    assert!(
        unreachable.stderr.contains("pelton serve"),
        "{}",
        unreachable.stderr
    );
}

#[test]
fn what_set_does_not_name_stays_as_it_is() {
    let folder = Folder::new();
    let server = Server::start(&folder.data(), &[]);
    let shown = || server.run(&["functions", "get", "echo"]).code(0).json();
    server.deploy(
        "echo",
        component("echo"),
        &["timeoutMs=5000", "env.A=1", "cpuMs=70"],
    );
    server.deploy("echo", component("echo"), &["maxRetries=7", "env.B=2"]);
    let function = shown();
    assert_eq!(function["timeoutMs"], 5000, "{function}");
    assert_eq!(function["maxRetries"], 7, "{function}");
    assert_eq!(function["cpuMs"], 70, "{function}");
    assert_eq!(function["env"], serde_json::json!({"A": "1", "B": "2"}));

    let changed = server.run(&["deploy", "echo", "--set", "timeoutMs=100"]);
    assert!(changed.code(0).stdout.starts_with("updated echo version"));
    let function = shown();
    assert_eq!(function["timeoutMs"], 100, "{function}");
    assert_eq!(function["maxRetries"], 7, "{function}");

    server.deploy("echo", component("echo"), &[]);
    assert_eq!(shown()["maxRetries"], 7);
    let whole = folder.file("spec.json", br#"{"timeoutMs": 200}"#);
    let (wasm, whole) = (component("echo").to_str().unwrap(), whole.to_str().unwrap());
    server
        .run(&["deploy", "echo", wasm, "--spec", whole])
        .code(0);
    let function = shown();
    assert_eq!(function["timeoutMs"], 200, "{function}");
    assert_ne!(function["maxRetries"], 7, "{function}");

    // From a service behind a URL to code of its own, and an unknown name without a file.
    let builtin = ["deploy", "other", "--set", "image=builtin:echo"];
    assert!(
        server
            .run(&builtin)
            .code(0)
            .stdout
            .starts_with("created other")
    );
    server.deploy("other", component("echo"), &["timeoutMs=300"]);
    let nothing = server.run(&["deploy", "none", "--set", "timeoutMs=1"]);
    assert!(nothing.code(3).stderr.contains("image"));
}

#[test]
fn the_help_of_serve_names_every_flag() {
    let help = Ran::of(pelton().args(["serve", "--help"]).output().unwrap()).code(0);
    insta::assert_snapshot!("serve_help", help.stdout);
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_touched() {
    let folder = Folder::new();
    let data = folder.data();
    let serve = |flags: &[&str]| {
        let mut command = pelton();
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(&data)
            .args(flags);
        Ran::of(command.output().unwrap())
    };
    let open = serve(&["--listen", "0.0.0.0:0", "--guests-max", "0"]).code(2);
    assert!(open.stderr.contains("--insecure"), "{}", open.stderr);
    assert!(open.stderr.contains("reverse proxy"), "{}", open.stderr);
    assert!(open.stderr.contains("--guests-max 0"), "{}", open.stderr);
    assert!(
        !data.exists(),
        "the folder was made before the flags were checked"
    );
}

#[test]
fn a_second_process_on_the_folder_is_refused() {
    let folder = Folder::new();
    let _first = Server::start(&folder.data(), &[]);
    let second = pelton()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--management-listen",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(folder.data())
        .output()
        .unwrap();
    let second = Ran::of(second).code(1);
    assert!(
        second.stderr.contains("in use by another Pelton"),
        "{}",
        second.stderr
    );
    assert_eq!(second.stdout, "");
}

#[test]
fn a_stop_waits_for_running_calls() {
    let folder = Folder::new();
    let mut server = Server::start(&folder.data(), &[]);
    server.deploy("nap", &folder.nap(), &[]);
    let caller = server
        .client(&["invoke", "nap", "-d", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.running("nap");
    server.terminate();
    let called = Ran::of(caller.wait_with_output().unwrap()).code(0);
    assert_eq!(called.stderr, "");
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn what_a_stop_interrupts_runs_again_after_the_restart_and_costs_nothing() {
    let folder = Folder::new();
    let mut server = Server::start(&folder.data(), &["--shutdown-grace-ms", "0"]);
    server.deploy("nap", &folder.nap(), &["concurrency=1"]);
    let (first, second) = (server.enqueue("nap", "1"), server.enqueue("nap", "2"));
    server.wait_for(&first, |execution| execution["status"] == "running");
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    drop(server);

    let server = Server::start(&folder.data(), &[]);
    for id in [first, second] {
        let ended = server.wait_for(&id, |execution| execution["finishedAt"].is_string());
        assert_eq!(ended["status"], "success", "{ended}");
        assert_eq!(ended["attempts"], 1, "{ended}");
        assert_eq!(ended["faults"], 0, "{ended}");
    }
}

#[test]
fn a_second_signal_quits_at_once() {
    let folder = Folder::new();
    let mut server = Server::start(&folder.data(), &["--shutdown-grace-ms", "3600000"]);
    let forever = r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#;
    let forever = folder.file("forever.wasm", &wat::parse_str(forever).unwrap());
    server.deploy("forever", &forever, &["timeoutMs=300000"]);
    let id = server.enqueue("forever", "1");
    server.wait_for(&id, |execution| execution["status"] == "running");
    server.terminate();
    server.wait_until_closed();
    server.terminate();
    assert_eq!(server.ended().code(), Some(1));
}

#[test]
fn a_server_whose_store_fails_ends_with_74() {
    let folder = Folder::new();
    let mut server = Server::start_with_small_files(&folder.data(), 2048);
    server.deploy("echo", component("echo"), &[]);
    let input = folder.file(
        "input.json",
        format!("\"{}\"", "x".repeat(500_000)).as_bytes(),
    );
    let input = format!("@{}", input.display());
    let failed = (0..20)
        .map(|_| server.run(&["enqueue", "echo", "-d", &input]))
        .find(|ran| ran.code != 0)
        .expect("ten megabytes fit into files of two");
    // Either it was told so, or the server had gone already.
    failed.code(4);
    assert_eq!(server.ended().code(), Some(74));
}

#[test]
fn a_closed_pipe_is_no_reason_to_panic() {
    let folder = Folder::new();
    let server = Server::start(&folder.data(), &[]);
    server.deploy("echo", component("echo"), &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = server
        .client(&["functions", "ls"])
        .stdout(writer)
        .output()
        .unwrap();
    let ran = Ran::of(ran).code(0);
    assert_eq!(ran.stderr, "");
}

#[test]
fn the_demo_tells_its_story_to_the_end() {
    // Built before, so that two cargos do not wait for one another inside the demo.
    component("word-stats");
    let told = Ran::of(pelton().args(["demo", "--exit"]).output().unwrap()).code(0);
    for line in [
        "4. Retry",
        "attempt 2: retry WAREHOUSE_BUSY",
        "6. Drain",
        "7. Web",
        "as it should",
    ] {
        assert!(
            told.stdout.contains(line),
            "{line:?} is missing in\n{}",
            told.stdout
        );
    }
}
