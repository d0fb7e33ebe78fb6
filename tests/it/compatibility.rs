//! What guests of every shape find when they run, and `docs/compatibility.md`, which says nothing else.
//!
//! The page is rendered from what was seen. If it differs, the new page stands beside it as
//! `docs/compatibility.md.new`: look at the difference, and move it over the old one if that is what is meant.

mod renamed;
mod versions;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::origin::{Origin, ok};
use crate::support::probes::Probe;
use crate::support::world::World;

/// A shape, as the page names it.
struct Column {
    title: &'static str,
    exports: &'static str,
    shape: &'static str,
    probe: Probe,
}

const COLUMNS: [Column; 6] = [
    Column {
        title: "core command",
        exports: "`_start` and `memory`",
        shape: "core-command",
        probe: Probe::Core,
    },
    Column {
        title: "command 0.2",
        exports: "`wasi:cli/run@0.2.x`",
        shape: "command-0.2",
        probe: Probe::Command02,
    },
    Column {
        title: "command 0.3",
        exports: "`wasi:cli/run@0.3.x`",
        shape: "command-0.3",
        probe: Probe::Command03,
    },
    Column {
        title: "handler",
        exports: "`pelton:function/handler@0.1.x`",
        shape: "handler",
        probe: Probe::Handler,
    },
    Column {
        title: "HTTP 0.2",
        exports: "`wasi:http/incoming-handler@0.2.x`",
        shape: "http-0.2",
        probe: Probe::Http02,
    },
    Column {
        title: "HTTP 0.3",
        exports: "`wasi:http/handler@0.3.x`",
        shape: "http-0.3",
        probe: Probe::Http03,
    },
];

/// What the guests are asked, and in which order.
const PROBES: [&str; 16] = [
    "args",
    "env",
    "clocks",
    "random",
    "files",
    "sockets",
    "terminals",
    "threads",
    "logs",
    "calls",
    "config",
    "secret",
    "logging",
    "json log",
    "panic",
    "exit",
];

/// What one shape's guest answered to one probe.
struct Seen {
    execution: Value,
    attempt: Value,
    /// The requests that arrived at the server that it may call, each as it was written.
    requests: Vec<String>,
}

impl Seen {
    /// The answer; empty where it failed.
    fn text(&self) -> &str {
        self.execution["output"].as_str().unwrap_or_default()
    }

    fn code(&self) -> &str {
        self.attempt["error"]["code"].as_str().unwrap_or_default()
    }

    fn logged(&self, stream: &str) -> Vec<&str> {
        let lines = self.attempt["lines"].as_array().unwrap().iter();
        let of_stream = lines.filter(|line| line["stream"] == stream);
        of_stream
            .map(|line| line["text"].as_str().unwrap())
            .collect()
    }
}

/// Everything that one shape's guest answered.
type Answers = BTreeMap<&'static str, Seen>;

/// A row of the page: what it is about, and what is to be said of a shape.
type Row = (&'static str, fn(&Answers) -> String);

const ROWS: [Row; 23] = [
    ("arguments of the spec (`args`)", |seen| {
        yes(seen["args"].text().lines().skip(1).eq(["--loud", "a b"]))
    }),
    (
        "environment of the spec (`env`), and nothing of the host's",
        |seen| {
            let names = seen["env"]
                .text()
                .lines()
                .filter_map(|line| line.split('=').next());
            yes(names.eq([
                "ATTEMPT",
                "COLOUR",
                "EXECUTION_ID",
                "FUNCTION_NAME",
                "SECRET_ENV",
                "TOKEN",
                "TRACE_ID",
            ]))
        },
    ),
    ("standard output", |seen| {
        let logged = seen["logs"].logged("stdout") == ["out 1", "out 2"];
        let output = seen["logs"].text() == "out 1\nout 2\n";
        one_of(&[(output, "is the output"), (logged, "is logged")])
    }),
    ("standard error", |seen| {
        let logged = seen["logs"].logged("stderr") == ["err 1", "err 2"];
        one_of(&[(logged, "is logged")])
    }),
    ("clocks: monotonic, of the wall, sleep", |seen| {
        all(seen, "clocks", ": true")
    }),
    ("random numbers", |seen| {
        yes(seen["random"].text().starts_with("drawn: "))
    }),
    ("files and folders", |seen| none(seen, "files")),
    ("sockets and name lookup", |seen| none(seen, "sockets")),
    ("requests to hosts of the spec (`allowHosts`)", |seen| {
        let arrived = !seen["calls"].requests.is_empty();
        one_of(&[
            (arrived && seen["calls"].text() == "status 200\n", "yes"),
            (!arrived, "none"),
        ])
    }),
    ("with the `Host` of the URL", |seen| {
        carried(seen, "host: 127.0.0.1:")
    }),
    ("with the caller's `traceparent`", |seen| {
        carried(seen, &format!("traceparent: {TRACEPARENT}\r\n"))
    }),
    (
        "`config` of the spec (`wasi:config/store`)",
        |seen| match seen["config"].text() {
            "Some(\"green\") None 4\n" => "yes".to_owned(),
            text if text.starts_with("there is no probe") => "none".to_owned(),
            text => text.to_owned(),
        },
    ),
    ("a secret as a variable (`as: env`)", |seen| {
        yes(variable(seen, "SECRET_ENV") == Some(SECRET))
    }),
    (
        "a secret in the configuration (`as: config`)",
        |seen| match seen["secret"].text().trim_end() {
            SECRET => "yes".to_owned(),
            text if text.starts_with("there is no probe") => "none".to_owned(),
            text => text.to_owned(),
        },
    ),
    (
        "a placeholder instead of a secret (`as: placeholder`)",
        |seen| {
            let token = variable(seen, "TOKEN").unwrap_or_default();
            yes(token.starts_with("pelton-secret-") && !token.contains(SECRET))
        },
    ),
    ("which leaves as the secret in requests", |seen| {
        carried(seen, &format!("authorization: Bearer {SECRET}\r\n"))
    }),
    (
        "JSON lines on standard error, with level and fields",
        |seen| {
            let lines = seen["json log"].attempt["lines"].as_array().unwrap();
            yes(matches!(lines.as_slice(), [line] if line["level"] == "warn"
            && line["message"] == "it turns" && line["fields"] == json!({"turns": 3})))
        },
    ),
    ("log with levels (`wasi:logging/logging`)", |seen| {
        one_of(&[
            (seen["logging"].logged("logging") == ["it turns"], "yes"),
            (
                seen["logging"].text().starts_with("there is no probe"),
                "none",
            ),
        ])
    }),
    ("threads", |seen| none(seen, "threads")),
    ("terminals", |seen| {
        one_of(&[(seen["terminals"].text() == "a terminal: false\n", "none")])
    }),
    ("a panic", |seen| format!("`{}`", seen["panic"].code())),
    ("its message", |seen| {
        let said = seen["panic"].logged("stderr").join("\n");
        one_of(&[(said.contains("own words"), "is logged")])
    }),
    ("exit code 65", |seen| match seen["exit"].code() {
        "" => "has none".to_owned(),
        code => format!("`{code}`"),
    }),
];

fn yes(holds: bool) -> String {
    if holds { "yes" } else { "no" }.to_owned()
}

fn one_of(said: &[(bool, &str)]) -> String {
    let found = said.iter().find(|(holds, _)| *holds);
    found.map_or("?", |(_, words)| *words).to_owned()
}

/// A variable that the guest found in its environment.
fn variable<'a>(seen: &'a Answers, name: &str) -> Option<&'a str> {
    let mut lines = seen["env"].text().lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Whether every line of an answer ends as it should.
fn all(seen: &Answers, probe: &str, end: &str) -> String {
    let text = seen[probe].text();
    yes(!text.is_empty() && text.lines().all(|line| line.ends_with(end)))
}

/// Whether the request carried this, where there was one.
fn carried(seen: &Answers, line: &str) -> String {
    match seen["calls"].requests.as_slice() {
        [] => "none".to_owned(),
        requests => yes(requests
            .iter()
            .all(|request| request.matches(line).count() == 1)),
    }
}

fn none(seen: &Answers, probe: &str) -> String {
    let refused = all(seen, probe, ": refused") == "yes";
    one_of(&[(refused, "none")])
}

/// The trace of every call.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What every secret is.
const SECRET: &str = "hunter2";
/// What they are encrypted with.
const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";

async fn ask(column: &Column, wasm: Bytes) -> Answers {
    let origin = Origin::answering(|_| ok("hello")).await;
    let spec = json!({
        "args": ["--loud", "a b"],
        "env": {"COLOUR": "grün"},
        "config": {"colour": "green", "call": format!("{}/path", origin.url())},
        "allowHosts": [origin.url()],
        "secrets": {
            "SECRET_ENV": {"secret": "wheel", "as": "env"},
            "SECRET_CONFIG": {"secret": "wheel", "as": "config"},
            "TOKEN": {"secret": "wheel", "as": "placeholder", "hosts": [origin.url()]},
        },
        "maxRetries": 1,
    });
    let world = World::new()
        .setup(|setup| setup.registry.secrets.key = Some(KEY.parse().unwrap()))
        .await;
    let value = json!({ "value": SECRET }).to_string();
    let json_type = [("content-type", "application/json")];
    let set = world.ask("PUT", "/v1/secrets/wheel", &json_type, value);
    set.await.expect(201);
    let uploaded = world.upload_with("probe", &spec, &wasm).await;
    uploaded.expect(201);
    let function = world.get("/v1/functions/probe").await.expect(200);
    assert_eq!(function["shape"], column.shape);
    let mut answers = Answers::new();
    for probe in PROBES {
        let headers = [("x-trace-id", "trace-1"), ("traceparent", TRACEPARENT)];
        let before = origin.seen().len();
        let input = json!({ "probe": probe });
        let answer = world.enqueue_with("probe", &headers, input).await;
        let id = answer.id();
        world.drain("probe").await;
        let attempt = world.attempts(&id).await.remove(0);
        let execution = world.execution(&id).await;
        let seen = Seen {
            execution,
            attempt,
            requests: origin.seen().split_off(before),
        };
        answers.insert(probe, seen);
    }
    answers
}

/// `import "INTERFACE"` of one function with its type, in a program that does nothing.
fn importing(interface: &str, function: &str) -> Bytes {
    component(&format!(
        r#"(import "{interface}" (instance {function}))
        (core module $main (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $main))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $out (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $out))"#
    ))
}

/// A web function of this version of `wasi:http`, which traps when it is called.
fn serving(version: &str) -> Bytes {
    component(&format!(
        r#"(import "wasi:http/types@{version}" (instance $types
            (export "incoming-request" (type (sub resource)))
            (export "response-outparam" (type (sub resource)))))
        (alias export $types "incoming-request" (type $request))
        (alias export $types "response-outparam" (type $out))
        (core module $main (func (export "handle") (param i32 i32) unreachable))
        (core instance $i (instantiate $main))
        (func $handle (param "request" (own $request)) (param "response-out" (own $out))
            (canon lift (core func $i "handle")))
        (instance $handler (export "handle" (func $handle)))
        (export "wasi:http/incoming-handler@{version}" (instance $handler))"#
    ))
}

#[track_caller]
fn component(items: &str) -> Bytes {
    wat::parse_str(format!("(component {items})"))
        .unwrap()
        .into()
}

/// A preview 1 program, or one of the preview before it.
fn preview(module: &str) -> Bytes {
    let text = format!(
        r#"(module (import "{module}" "sched_yield" (func (result i32)))
            (memory (export "memory") 1) (func (export "_start")))"#
    );
    wat::parse_str(text).unwrap().into()
}

/// The web function of 0.3, whose own version is replaced by another of the same length.
fn serving_0_3(version: &str) -> Bytes {
    const BUILT: &[u8] = b"@0.3.2";
    let version = format!("@{version}");
    assert_eq!(version.len(), BUILT.len());
    let mut wasm = Probe::Http03.wasm().to_vec();
    let mut at = 0;
    while let Some(found) = wasm[at..]
        .windows(BUILT.len())
        .position(|bytes| bytes == BUILT)
    {
        let end = at + found + BUILT.len();
        wasm[end - BUILT.len()..end].copy_from_slice(version.as_bytes());
        at = end;
    }
    wasm.into()
}

/// What is said of a file when it is deployed.
async fn deployed(world: &World, wasm: Bytes) -> String {
    let answer = world.upload("tried", wasm).await;
    let code = answer.json["error"].as_str().unwrap_or_default();
    match answer.status {
        200 | 201 => "accepted".to_owned(),
        422 => format!("refused: `{code}`"),
        other => panic!("{other}: {}", answer.json),
    }
}

const ARGUMENTS: &str = r#"(export "get-arguments" (func (result (list string))))"#;
const ANY: &str = r#"(export "anything" (func))"#;

/// Versions and interfaces that are tried one by one: what the page calls it, and a file of that kind.
fn files() -> Vec<(&'static str, Bytes)> {
    vec![
        ("`wasi_unstable`", preview("wasi_unstable")),
        (
            "`wasi_snapshot_preview1`",
            preview("wasi_snapshot_preview1"),
        ),
        (
            "`wasi:cli@0.2.0`",
            importing("wasi:cli/environment@0.2.0", ARGUMENTS),
        ),
        (
            "`wasi:cli@0.2.12`",
            importing("wasi:cli/environment@0.2.12", ARGUMENTS),
        ),
        (
            "`wasi:cli@0.2.99`",
            importing("wasi:cli/environment@0.2.99", ARGUMENTS),
        ),
        (
            "`wasi:cli@0.3.0`",
            importing("wasi:cli/environment@0.3.0", ARGUMENTS),
        ),
        (
            "`wasi:cli@0.3.0-rc-2025-09-16`",
            importing("wasi:cli/environment@0.3.0-rc-2025-09-16", ARGUMENTS),
        ),
        (
            "`wasi:cli@0.4.0`",
            importing("wasi:cli/environment@0.4.0", ARGUMENTS),
        ),
        ("`wasi:http@0.2.0`", serving("0.2.0")),
        ("`wasi:http@0.2.3`", serving("0.2.3")),
        ("`wasi:http@0.2.12`", serving("0.2.12")),
        (
            "`wasi:http@0.2.0-rc-2023-11-10`",
            serving("0.2.0-rc-2023-11-10"),
        ),
        ("`wasi:http@0.3.0`", serving_0_3("0.3.0")),
        ("`wasi:http@0.3.2`", serving_0_3("0.3.2")),
        (
            "`wasi:keyvalue/store@0.2.0-draft`",
            importing("wasi:keyvalue/store@0.2.0-draft", ANY),
        ),
        (
            "`wasi:blobstore/blobstore@0.2.0-draft`",
            importing("wasi:blobstore/blobstore@0.2.0-draft", ANY),
        ),
        (
            "`wasi:messaging/producer@0.2.0-draft`",
            importing("wasi:messaging/producer@0.2.0-draft", ANY),
        ),
        (
            "`wasi:nn/inference@0.2.0-rc-2024-10-28`",
            importing("wasi:nn/inference@0.2.0-rc-2024-10-28", ANY),
        ),
        (
            "`fermyon:spin/llm@2.0.0`",
            importing("fermyon:spin/llm@2.0.0", ANY),
        ),
    ]
}

#[tokio::test]
async fn the_page_says_what_guests_find() {
    let mut page = String::from(HEAD);
    let mut seen = Vec::new();
    for column in &COLUMNS {
        seen.push(ask(column, column.probe.wasm()).await);
    }
    let titles = COLUMNS.map(|column| column.title);
    let _ = writeln!(page, "| | {} |", titles.join(" | "));
    let _ = writeln!(page, "|---{}|", "|---".repeat(COLUMNS.len()));
    let exports = COLUMNS.map(|column| column.exports);
    let _ = writeln!(page, "| exports | {} |", exports.join(" | "));
    let mut columns = vec![Vec::new(); COLUMNS.len()];
    for (title, say) in ROWS {
        let cells: Vec<String> = seen.iter().map(say).collect();
        let _ = writeln!(page, "| {title} | {} |", cells.join(" | "));
        for (column, cell) in columns.iter_mut().zip(cells) {
            column.push(cell);
        }
    }
    page.push_str(BY_VERSION);
    page.push_str(&versions::rows(&columns).await);
    page.push_str(VERSIONS);
    let world = World::new().await;
    for (what, wasm) in files() {
        let _ = writeln!(page, "| {what} | {} |", deployed(&world, wasm).await);
    }
    page.push_str(TAIL);
    compare(&page);
}

/// Two calls of a guest find other random numbers.
#[tokio::test]
async fn no_instance_repeats_the_random_numbers_of_another() {
    let world = World::new().function("probe", Probe::Core.wasm()).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let answer = world
            .invoke("probe", json!({"probe": "random"}))
            .await
            .expect(200);
        assert!(seen.insert(answer["output"].to_string()), "{answer}");
    }
}

/// A program that reads once more after the end finds the end again.
#[tokio::test]
async fn standard_input_ends_once_and_for_all() {
    for probe in [Probe::Core, Probe::Command02] {
        let world = World::new()
            .function("probe", probe.wasm())
            .spec(json!({"allowHosts": []}))
            .await;
        let answer = world
            .invoke("probe", json!({"probe": "end of input"}))
            .await;
        assert_eq!(
            answer.expect(200)["output"],
            "read after the end: 0 bytes\n"
        );
    }
}

#[track_caller]
fn compare(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let new = path.with_extension("md.new");
    if written == page {
        let _ = std::fs::remove_file(new);
        return;
    }
    std::fs::write(&new, page).unwrap();
    panic!(
        "docs/compatibility.md is not what was seen: compare it with docs/compatibility.md.new, which may take its place"
    );
}

const HEAD: &str = "\
# Compatibility

This page is written by a test (`tests/it/compatibility.rs`): guests of every shape ask what is around them, and what they
find stands here. Nothing in it is from memory.

## What a function finds

";

const BY_VERSION: &str = "
Rust's standard library cannot carry an exit code through `wasi:cli/run@0.2`: every failure arrives as 1. A component that calls
`exit-with-code` itself keeps its code, and so does every core command.

## What it finds in each version

The same guests with the version of all that they import and export of WASI 0.2 (or 0.3) replaced by each of these, and the name of an
interface beside it. Each was asked all of the questions again. A core command is a program of `wasi_snapshot_preview1`; one of `wasi_unstable`,
whose structures are others, is only deployed below.

| | imports and exports | finds |
|---|---|---|
";

const VERSIONS: &str = "
## Versions and interfaces

What a deploy says of a file that imports or exports this:

| | |
|---|---|
";

const TAIL: &str = "
A version of 0.2 or 0.3 is matched as semantic versions are: a file of any patch runs. A file may mix them; the toolchains of today
do. An interface that nobody provides is refused when the file is deployed, each one named, and nothing is kept.
";
