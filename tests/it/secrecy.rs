//! A secret's value is searched for wherever Pelton puts anything: answers, lists, logs, exports, backups, metrics, the
//! log of the server and its folder. A server of its own with everything that it has to say turned on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use serde_json::json;

use crate::support::binary::{Ran, Server, pelton};
use crate::support::guests;
use crate::support::programs::{REFUSES, SPINS, program};
use crate::support::web_guests::probe_calls;

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
/// What must be nowhere. Long enough that no chance makes it.
const VALUE: &str = "hunter2-wheel/turned?by=jets&ü";

/// The value in every form in which it may have been written.
fn forms() -> Vec<Vec<u8>> {
    let bytes = VALUE.as_bytes();
    let escaped = serde_json::to_string(VALUE).unwrap();
    let ascii: String = VALUE.replace('ü', "\\u00fc");
    let percent: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    let mut forms = vec![
        bytes.to_vec(),
        escaped.trim_matches('"').into(),
        ascii.into(),
        percent.into(),
        hex.to_uppercase().into(),
        hex.into(),
        numbers.join(", ").into(),
    ];
    // Base64 at each of the three offsets, without what depends on its neighbours.
    for offset in 0..3 {
        let shifted = [vec![0; offset], bytes.to_vec()].concat();
        let text = base64::engine::general_purpose::STANDARD.encode(shifted);
        forms.push(text.as_bytes()[4..text.len() - 4].to_vec());
    }
    forms
}

fn has_value(bytes: &[u8]) -> bool {
    let forms = forms();
    let mut forms = forms.iter();
    forms.any(|form| bytes.windows(form.len()).any(|part| part == form))
}

/// The files of a folder that have the value.
fn with_value(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(with_value(&path));
        } else if has_value(&fs::read(&path).unwrap()) {
            found.push(path);
        }
    }
    found
}

/// A request as it stands, and everything that comes back.
fn said(server: &Server, method: &str, path: &str, body: &str) -> String {
    let host = server.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn check(what: &str, bytes: impl AsRef<[u8]>) {
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    assert!(!has_value(bytes.as_ref()), "{what} has the value: {text}");
}

#[test]
fn the_search_finds_every_form() {
    for form in forms() {
        assert!(has_value(&[b"before", &*form, b"after"].concat()));
    }
    assert!(!has_value(b"hunter2-wheel"));
}

/// A folder with a key, a value and the wasm of functions that are given it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// A server that says all it can.
    fn serve(&self) -> Server {
        let key = self.file("key", KEY);
        let flags = ["--log-format", "json", "--log-filter", "trace"];
        let flags = [&flags[..], &["--secrets-key-file", key.to_str().unwrap()]].concat();
        Server::start(&self.path("data"), &flags)
    }
}

/// A service that keeps what it is sent.
struct Service {
    port: u16,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        // Ends with the tests.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut asked = [0; 4096];
                let read = connection.read(&mut asked).unwrap_or(0);
                all.lock().unwrap().extend_from_slice(&asked[..read]);
                let _ = connection.write_all(
                    b"HTTP/1.1 401 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                );
            }
        });
        Self { port, seen }
    }
}

/// Functions that are given the value in every way, and end in every way; none writes it down.
fn plant(place: &Place, server: &Server, port: u16) -> Vec<String> {
    let here = format!("http://127.0.0.1:{port}");
    let set = place.file("value", VALUE);
    let set = format!("@{}", set.display());
    for name in ["wheel", "other"] {
        server.run(&["secrets", "set", name, &set]).code(0);
    }
    let spec = json!({
        "A": {"secret": "wheel", "as": "env"},
        "B": {"secret": "wheel", "as": "config"},
        "C": {"secret": "other", "as": "placeholder", "hosts": [here]},
    });
    let secrets = format!("secrets={spec}");
    let allowed = format!(r#"allowHosts=["{here}", "http://127.0.0.1:9"]"#);
    let settings = [&*secrets, "maxRetries=1", "timeoutMs=1000", &*allowed];
    let asks = |to: &str| format!(r#""GET {to}/\nauthorization: Bearer ${{C}}""#);
    let (calls, strays) = (asks(&here), asks("http://127.0.0.1:9"));
    let echo = guests::wasm("echo");
    let mut ids = Vec::new();
    for (name, wasm, input) in [
        ("fine", echo.to_vec(), "1"),
        ("refuses", program(REFUSES).to_vec(), "\"no\""),
        ("traps", program("unreachable").to_vec(), "1"),
        ("spins", program(SPINS).to_vec(), "1"),
        ("calls", probe_calls().to_vec(), &*calls),
        // There the placeholder may not go.
        ("strays", probe_calls().to_vec(), &*strays),
    ] {
        let file = place.file(&format!("{name}.wasm"), wasm);
        server.deploy(name, &file, &settings);
        let id = server.enqueue(name, input);
        server.wait_for(&id, |execution| {
            !["queued", "running"].contains(&execution["status"].as_str().unwrap())
        });
        ids.push(id);
        server.run(&["invoke", name, "-d", input]);
    }
    ids
}

/// What is wrong about a request that carries it is told without it.
#[track_caller]
fn refuses(server: &Server) {
    let value = serde_json::to_string(VALUE).unwrap();
    for (method, path, body) in [
        ("PUT", "/v1/secrets/wheel", value.clone()),
        (
            "PUT",
            "/v1/secrets/wheel",
            format!(r#"{{"value": [{value}]}}"#),
        ),
        (
            "PUT",
            "/v1/secrets/wheel",
            format!(r#"{{"value": {value}, "more": {value}}}"#),
        ),
        ("PUT", "/v1/secrets/wheel", format!(r#"{{"value": {value}"#)),
        ("PUT", "/v1/secrets/1a", format!(r#"{{"value": {value}}}"#)),
        (
            "POST",
            "/v1/secrets/wheel",
            format!(r#"{{"value": {value}}}"#),
        ),
        (
            "DELETE",
            "/v1/secrets/wheel",
            format!(r#"{{"value": {value}}}"#),
        ),
    ] {
        let answer = said(server, method, path, &body);
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        check("a refusal", answer);
    }
}

#[track_caller]
fn back_up(data: &Path, to: &Path) -> Ran {
    let mut command = pelton();
    command.arg("backup").arg("--data-dir").arg(data);
    Ran::of(command.arg("--to").arg(to).output().unwrap()).code(0)
}

/// It is in no file: of the data, of a backup, of the log.
#[track_caller]
fn leaves_nothing(place: &Place, server: Server) {
    let (data, backup) = (place.path("data"), place.path("backup"));
    let ran = back_up(&data, &backup);
    check("what a backup says", ran.stdout + &ran.stderr);
    drop(server);
    for folder in [&data, &backup] {
        let found = with_value(folder);
        assert!(found.is_empty(), "{found:?}");
    }
    let log = fs::read_to_string(place.path("data.log")).unwrap();
    for said in ["a secret was set", r#""level":"TRACE""#, "get-environment"] {
        assert!(log.contains(said), "the log says too little: {said}");
    }
    for line in log.lines() {
        check("the server's log", line);
    }
}

#[test]
fn nothing_that_pelton_writes_or_says_has_a_secret_in_it() {
    let place = Place::new();
    let server = place.serve();
    let service = Service::start();
    let ids = plant(&place, &server, service.port);
    // It is in use.
    let bearer = format!("authorization: Bearer {VALUE}");
    let arrived = String::from_utf8(service.seen.lock().unwrap().clone()).unwrap();
    assert_eq!(arrived.matches(&bearer).count(), 2, "{arrived}");
    for path in [
        "/v1/secrets",
        "/v1/functions",
        "/v1/functions/fine",
        "/v1/functions/fine/versions",
        "/v1/executions",
        "/v1/admin/runtime-config",
        "/actuator/prometheus",
        "/actuator/health",
    ] {
        check(path, server.get(path));
    }
    for id in &ids {
        check("an execution", server.get(&format!("/v1/executions/{id}")));
        check("its logs", server.get(&format!("/v1/executions/{id}/logs")));
        check(
            "a redrive",
            said(
                &server,
                "POST",
                &format!("/v1/executions/{id}:redrive"),
                "{}",
            ),
        );
    }
    refuses(&server);
    let export = place.path("export.ndjson");
    server
        .run(&["executions", "export", "--to", export.to_str().unwrap()])
        .code(0);
    let exported = fs::read_to_string(&export).unwrap();
    assert!(exported.lines().count() >= ids.len(), "{exported}");
    check("an export", exported);
    for command in [
        &["secrets", "ls"][..],
        &["executions", "ls"],
        &["functions", "get", "fine"],
    ] {
        let Ran { stdout, stderr, .. } = server.run(command).code(0);
        check("a command", stdout + &stderr);
    }
    leaves_nothing(&place, server);
}

/// Were it there, it would be found: a function that prints its environment writes it itself.
#[test]
fn what_a_function_writes_down_is_found_in_all_of_these_places() {
    let place = Place::new();
    let server = place.serve();
    let set = place.file("value", VALUE);
    let set = format!("@{}", set.display());
    server.run(&["secrets", "set", "wheel", &set]).code(0);
    let tells = place.file("tells.wasm", crate::secrets::prints_env());
    server.deploy(
        "tells",
        &tells,
        &[r#"secrets.A={"secret": "wheel", "as": "env"}"#],
    );
    let id = server.enqueue("tells", "1");
    server.wait_for(&id, |execution| execution["status"] == "success");
    assert!(has_value(
        server.get(&format!("/v1/executions/{id}")).as_bytes()
    ));
    let export = place.path("export.ndjson");
    server
        .run(&["executions", "export", "--to", export.to_str().unwrap()])
        .code(0);
    assert!(has_value(&fs::read(&export).unwrap()));
    let (data, backup) = (place.path("data"), place.path("backup"));
    back_up(&data, &backup);
    drop(server);
    assert!(!with_value(&data).is_empty() && !with_value(&backup).is_empty());
}

#[test]
fn a_value_that_was_typed_is_not_repeated() {
    for arguments in [
        &["secrets", "set", "TOKEN", "hunter2"][..],
        &["run", "code.wasm", "--secret", "hunter2"],
        &["run", "code.wasm", "--secret", "TOKEN=hunter2"],
    ] {
        let ran = Ran::of(pelton().args(arguments).output().unwrap());
        assert_ne!(ran.code, 0);
        let said = ran.stdout + &ran.stderr;
        assert!(!said.is_empty() && !said.contains("hunter2"), "{said}");
    }
}
