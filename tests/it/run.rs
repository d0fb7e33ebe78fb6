//! `pelton run`: a file, once, with the real binary and without a server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::binary::{Ran, pelton};
use crate::support::guests;
use crate::support::programs::{COPIES, FLOODS, HOARDS, SPINS, WAVERS, exits, program};
use crate::support::web_guests::{command03, http02, http03};

/// Writes its arguments, each behind a NUL, and then its environment.
const TELLS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func $write (param $len i32)
        (i32.store (i32.const 0) (i32.const 8192))
        (i32.store (i32.const 4) (local.get $len))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "_start")
        (drop (call $args_sizes (i32.const 16) (i32.const 20)))
        (drop (call $args (i32.const 1024) (i32.const 8192)))
        (call $write (i32.load (i32.const 20)))
        (drop (call $env_sizes (i32.const 16) (i32.const 20)))
        (drop (call $env (i32.const 1024) (i32.const 8192)))
        (call $write (i32.load (i32.const 20)))))"#;

/// A folder to run in, with a cache beside it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("here")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file to run.
    fn file(&self, name: &str, wasm: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, wasm).unwrap();
        path
    }

    /// `pelton run`, with the cache of this bench and in an empty folder.
    fn command(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut command = pelton();
        command
            .current_dir(self.path("here"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .arg("run")
            .arg(file)
            .args(arguments);
        command
    }

    #[track_caller]
    fn fed(&self, file: &Path, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(file, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A function that is refused reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn run(&self, file: &Path, arguments: &[&str]) -> Ran {
        Ran::of(self.command(file, arguments).output().unwrap())
    }

    /// The one document of `--json`.
    #[track_caller]
    fn document(&self, file: &Path, arguments: &[&str], code: i32) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let ran = self.run(file, &all).code(code);
        assert_eq!(ran.stderr, "", "{}", ran.stdout);
        ran.json()
    }

    /// Files of machine code in the cache.
    fn machine_code(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("cache/pelton/run")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|found| found == "cwasm"))
            .collect()
    }
}

#[test]
fn bytes_go_in_and_come_out_as_they_are() {
    let bench = Bench::new();
    let copies = bench.file("copies.wasm", program(COPIES));
    for input in [&b"plain\n"[..], b"\"quoted\"", b"\x00\xff\xfe", b""] {
        let output = bench.fed(&copies, &[], input);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stdout, input);
        assert_eq!(output.stderr, b"");
    }
    // As JSON, a text is given as its text: what an invoke of a server does.
    let text = bench.run(&copies, &["-d", r#""quoted""#]).code(0);
    assert_eq!(text.stdout, "quoted");

    let echo = bench.file("echo.wasm", guests::wasm("echo"));
    let answer = bench.fed(&echo, &["--json"], b"{ \"b\": 1.50 }");
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["outputContentType"], "application/json");
    let page = bench.fed(&echo, &["--content-type", "text/html"], b"<p>");
    assert_eq!(page.stdout, b"<p>");
}

/// A file, its settings, and the status, the outcome and the code that they come to.
type Way = (
    &'static str,
    Bytes,
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static str,
);

#[test]
fn every_way_to_end_is_told_as_a_server_would_tell_it() {
    const ONCE: [&str; 2] = ["--set", "maxRetries=1"];
    let bench = Bench::new();
    let table: [Way; 9] = [
        ("bad", exits(65, "words"), &[], "error", "error", "EXIT_65"),
        ("weak", exits(3, "words"), &[], "queued", "retry", "EXIT_3"),
        ("last", exits(3, "words"), &ONCE, "error", "retry", "EXIT_3"),
        (
            "trap",
            program("unreachable"),
            &ONCE,
            "error",
            "retry",
            "TRAP",
        ),
        ("later", exits(75, "words"), &[], "queued", "requeue", ""),
        (
            "spins",
            program(SPINS),
            &["--set", "timeoutMs=50", "--set", "maxRetries=1"],
            "timeout",
            "timeout",
            "TIMEOUT",
        ),
        (
            "cpu",
            program(SPINS),
            &["--set", "cpuMs=20"],
            "error",
            "limit",
            "CPU_LIMIT",
        ),
        (
            "hoards",
            program(HOARDS),
            &["--set", "memoryMb=8"],
            "error",
            "limit",
            "MEMORY_LIMIT",
        ),
        (
            "floods",
            program(FLOODS),
            &["--set", "outputBytesMax=70000"],
            "error",
            "limit",
            "OUTPUT_TOO_LARGE",
        ),
    ];
    for (name, wasm, settings, status, outcome, code) in table {
        let file = bench.file(&format!("{name}.wasm"), wasm);
        let answer = bench.document(&file, settings, 1);
        assert_eq!(answer["function"], name);
        assert_eq!(answer["status"], status, "{answer}");
        assert_eq!(answer["attempt"]["outcome"], outcome, "{answer}");
        let failure = answer["attempt"]["error"]["code"].as_str();
        assert_eq!(failure.unwrap_or_default(), code, "{answer}");
    }
}

#[test]
fn what_a_function_writes_goes_to_standard_error_and_then_why_it_failed() {
    let bench = Bench::new();
    let weak = bench.file("weak.wasm", exits(3, "the disk\nis full"));
    let ran = bench.run(&weak, &[]).code(1);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "the disk\nis full\nit failed: EXIT_3: the disk | is full\na server would try again, 2 more at most\n"
    );
    let later = bench.file("later.wasm", exits(75, "closed"));
    let ran = bench
        .run(&later, &["--set", "retryBackoff.baseDelayMs=0"])
        .code(1);
    assert!(
        ran.stderr
            .starts_with("closed\nit asks to be run again in "),
        "{}",
        ran.stderr
    );

    let answer = bench.document(&weak, &[], 1);
    assert_eq!(
        answer["attempt"]["lines"],
        json!([{"stream": "stderr", "text": "the disk"}, {"stream": "stderr", "text": "is full"}])
    );
}

#[test]
fn a_file_that_a_deploy_refuses_is_refused_in_the_same_words() {
    let bench = Bench::new();
    let text = bench.file("text.wasm", "no wasm");
    let ran = bench.run(&text, &[]).code(3);
    assert!(ran.stderr.contains("NOT_WASM (422)"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(r"does not begin with the bytes"),
        "{}",
        ran.stderr
    );
    let needy = r#"(module (import "env" "launch" (func (param i32)))
        (memory (export "memory") 1) (func (export "_start")))"#;
    let needy = bench.file("needy.wasm", wat::parse_str(needy).unwrap());
    let ran = bench.run(&needy, &[]).code(3);
    assert!(
        ran.stderr.contains("MISSING_IMPORTS (422)"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("env.launch"), "{}", ran.stderr);

    let copies = bench.file("copies.wasm", program(COPIES));
    let wrong = ["--set", "timeoutMs=0", "--set", "memoryMB=3"];
    let ran = bench.run(&copies, &wrong).code(3);
    assert!(ran.stderr.contains("timeoutMs"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("did you mean memoryMb"),
        "{}",
        ran.stderr
    );

    bench.run(&bench.path("nowhere.wasm"), &[]).code(2);
    bench.run(&copies, &["-d", "no json"]).code(2);
    let large = vec![b' '; 8 * 1024 * 1024 + 1];
    let output = bench.fed(&copies, &[], &large);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn arguments_and_environment_are_the_specs_and_the_command_lines() {
    let bench = Bench::new();
    let tells = bench.file("tells.wasm", wat::parse_str(TELLS).unwrap());
    let spec = bench.file(
        "spec.json",
        r#"{"args": ["--from-spec"], "env": {"A": "1"}}"#,
    );
    let ran = bench
        .run(
            &tells,
            &[
                "--spec",
                spec.to_str().unwrap(),
                "--set",
                "env.B=2",
                "--trace-id",
                "t-1",
                "one",
                "--two",
                "--",
            ],
        )
        .code(0);
    let mut told: Vec<&str> = ran.stdout.split_terminator('\0').collect();
    told.retain(|item| !item.starts_with("EXECUTION_ID="));
    assert_eq!(
        told,
        [
            "tells",
            "--from-spec",
            "one",
            "--two",
            "--",
            "A=1",
            "B=2",
            "ATTEMPT=1",
            "FUNCTION_NAME=tells",
            "TRACE_ID=t-1"
        ]
    );
}

#[test]
fn a_second_run_uses_the_machine_code_of_the_first_and_leaves_nothing_else() {
    let bench = Bench::new();
    let copies = bench.file("copies.wasm", program(COPIES));
    bench.run(&copies, &[]).code(0);
    let first = bench.machine_code();
    let [code] = first.as_slice() else {
        panic!("{first:?}");
    };
    let made = fs::metadata(code).unwrap().ino();
    assert_eq!(
        fs::metadata(bench.path("cache/pelton/run")).unwrap().mode() & 0o777,
        0o700
    );
    bench.run(&copies, &[]).code(0);
    assert_eq!(bench.machine_code(), first);
    assert_eq!(
        fs::metadata(code).unwrap().ino(),
        made,
        "it was compiled again"
    );
    assert_eq!(fs::read_dir(bench.path("here")).unwrap().count(), 0);

    // Elsewhere, if that is asked for.
    let elsewhere = bench.path("elsewhere");
    bench
        .run(&copies, &["--cache-dir", elsewhere.to_str().unwrap()])
        .code(0);
    assert!(elsewhere.join("run/cache.key").is_file());
}

#[test]
fn a_cache_that_others_can_write_to_is_not_believed() {
    let bench = Bench::new();
    let copies = bench.file("copies.wasm", program(COPIES));
    let cache = bench.path("cache/pelton/run");
    fs::create_dir_all(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let ran = bench.run(&copies, &["-d", "1"]).code(0);
    assert_eq!(ran.stdout, "1");
    assert!(ran.stderr.contains("others can write"), "{}", ran.stderr);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);

    let asked = bench.path("cache/pelton");
    let ran = bench
        .run(&copies, &["--cache-dir", asked.to_str().unwrap()])
        .code(1);
    assert!(ran.stderr.contains("others can write"), "{}", ran.stderr);
}

#[test]
fn a_first_argument_with_a_dash_stands_behind_two() {
    let bench = Bench::new();
    let tells = bench.file("tells.wasm", wat::parse_str(TELLS).unwrap());
    let ran = bench.run(&tells, &["--", "--json"]).code(0);
    assert!(ran.stdout.starts_with("tells\0--json\0"), "{}", ran.stdout);
    bench.run(&tells, &["--loud"]).code(2);
}

/// What a run says is what a plane would do with its first attempt: the dice of this program fall three ways.
#[test]
fn the_exit_code_says_whether_it_ended_well() {
    let bench = Bench::new();
    let wavers = bench.file("wavers.wasm", program(WAVERS));
    for _ in 0..8 {
        let ran = bench.run(&wavers, &["--json", "-d", "1"]);
        let answer = ran.json();
        let expected = match answer["attempt"]["outcome"].as_str().unwrap() {
            "success" => ("success", 0),
            "retry" | "requeue" => ("queued", 1),
            other => panic!("{other}"),
        };
        assert_eq!((answer["status"].as_str().unwrap(), ran.code), expected);
    }
}

/// A web server that answers three requests, and the URL of a page on it.
fn three_answers() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/page", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().take(3) {
            let mut connection = connection.unwrap();
            let mut asked = [0; 1024];
            let _ = connection.read(&mut asked);
            let _ = connection.write_all(
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    });
    url
}

#[test]
fn services_of_this_machine_are_called_if_the_spec_names_them() {
    let bench = Bench::new();
    let file = bench.file("link-check.wasm", guests::wasm("link-check"));
    let url = three_answers();
    let origin = url.trim_end_matches("/page");
    let input = json!({"urls": [url]}).to_string();
    let allowed = format!("allowHosts={}", json!([origin]));
    let ran = bench.run(&file, &["-d", &input, "--set", &allowed]).code(0);
    assert_eq!(
        ran.json(),
        json!({"checked": 1, "broken": 1, "links": [{"url": url, "ok": false, "status": 404}]})
    );
    // Nobody named it.
    let ran = bench.run(&file, &["-d", &input]).code(0);
    assert_eq!(ran.json()["links"][0]["status"], Value::Null);
    let hint = format!("the function has no allowHosts: add \"{origin}\"");
    assert!(ran.stderr.contains(&hint), "{}", ran.stderr);
    // Other private addresses are as closed as on a server.
    let anywhere = [
        "-d",
        r#"{"urls": ["http://10.0.0.1/"]}"#,
        "--set",
        r#"allowHosts=["http://*"]"#,
    ];
    let ran = bench.run(&file, &anywhere).code(0);
    assert!(
        ran.stderr.contains("10.0.0.1 is a private address"),
        "{}",
        ran.stderr
    );
}

#[test]
fn web_functions_of_both_versions_get_a_request_and_their_response_is_the_output() {
    let bench = Bench::new();
    for (name, wasm) in [("http02", http02()), ("http03", http03())] {
        let file = bench.file(&format!("{name}.wasm"), wasm);
        let echoed = bench.fed(&file, &[], b"text\xc3\xbc");
        assert_eq!(echoed.status.code(), Some(0));
        assert_eq!(echoed.stdout, "text\u{fc}".as_bytes());
        let with = |path: &str| format!("invokePath={path}");
        let headers = with("/headers?a=b");
        let told = ["-d", r#"{"n": 1}"#, "--set", &headers, "--trace-id", "t-1"];
        let told = bench.run(&file, &told).code(0).stdout;
        for line in [
            "Method::Post /headers?a=b",
            "content-length: 8",
            "content-type: application/json",
            "x-attempt: 1",
            "x-trace-id: t-1",
        ] {
            assert!(
                told.lines().any(|it| it == line),
                "{line} is not in:\n{told}"
            );
        }
        for (path, status, outcome, code) in [
            ("/with?status=404&body=gone", "error", "error", "HTTP_404"),
            ("/with?status=500", "queued", "retry", "HTTP_500"),
            ("/with?status=429", "queued", "requeue", ""),
            ("/short", "queued", "retry", "BODY_TOO_SHORT"),
            ("/panic", "queued", "retry", "TRAP"),
        ] {
            let answer = bench.document(&file, &["-d", "1", "--set", &with(path)], 1);
            assert_eq!(answer["status"], status, "{answer}");
            assert_eq!(answer["attempt"]["outcome"], outcome, "{answer}");
            let failure = answer["attempt"]["error"]["code"].as_str();
            assert_eq!(failure.unwrap_or_default(), code, "{answer}");
        }
        let log = with("/log");
        let ran = bench.run(&file, &["-d", "1", "--set", &log]).code(0);
        assert_eq!(
            (&*ran.stdout, &*ran.stderr),
            ("logged", "to stdout\nto stderr\n")
        );
    }
}

#[test]
fn a_command_of_0_3_is_run_like_any_other() {
    let bench = Bench::new();
    let file = bench.file("upper.wasm", command03());
    let large = "x".repeat(300_000);
    for input in ["text", "", &large] {
        let output = bench.fed(&file, &[], input.as_bytes());
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            input.to_uppercase()
        );
    }
    for (argument, code) in [("fail", "EXIT_1"), ("exit", "EXIT_65"), ("panic", "TRAP")] {
        let answer = bench.document(&file, &["-d", "1", argument], 1);
        assert_eq!(answer["attempt"]["error"]["code"], code, "{answer}");
    }
    let ran = bench.run(&file, &["-d", "1", "log"]).code(0);
    assert_eq!((&*ran.stdout, &*ran.stderr), ("1", "to stderr\n"));
}

#[test]
fn secrets_of_the_spec_come_from_variables_that_are_named() {
    let bench = Bench::new();
    let tells = bench.file("tells.wasm", wat::parse_str(TELLS).unwrap());
    let spec = bench.file(
        "spec.json",
        r#"{"allowHosts": ["api.example"], "secrets": {
            "DB": {"secret": "db-url", "as": "env"},
            "KEY": {"secret": "key", "as": "placeholder", "hosts": ["api.example"]}}}"#,
    );
    let run = |secrets: &[&str]| {
        let mut command = bench.command(&tells, &["--spec", spec.to_str().unwrap()]);
        command
            .env("MY_DB", "postgres://hunter2")
            .env("MY_KEY", "hunter3");
        command.env("EMPTY", "").env("LARGE", "x".repeat(65_537));
        for secret in secrets {
            command.args(["--secret", secret]);
        }
        Ran::of(command.output().unwrap())
    };
    let told = run(&["db-url=MY_DB", "key=MY_KEY"]).code(0).stdout;
    assert!(told.contains("\0DB=postgres://hunter2\0"), "{told:?}");
    assert!(
        told.contains("\0KEY=pelton-secret-") && !told.contains("hunter3"),
        "{told:?}"
    );
    // One that is not named is not there, however the variable is called.
    let refused = run(&["db-url=MY_DB"]).code(3).stderr;
    assert!(
        refused.contains("UNKNOWN_SECRET (422)") && refused.contains("not given: key"),
        "{refused}"
    );
    assert!(refused.contains("--secret NAME=VARIABLE"), "{refused}");
    // What is typed in the wrong place is not repeated.
    for (wrong, why) in [
        ("key=hunter3", "no such variable"),
        ("key=hun=ter3", "no such variable"),
        ("key=EMPTY", "0 bytes"),
        ("key=LARGE", "65537 bytes"),
        ("hunter3", "NAME=VARIABLE"),
        ("1a=hunter3", "starts with a letter"),
    ] {
        let refused = run(&[wrong]).code(2).stderr;
        assert!(refused.contains(why), "{wrong}: {refused}");
        assert!(!refused.contains("ter3"), "{wrong}: {refused}");
    }
}
