//! What a plane does beside its calls, by its real loops: old executions and code that nobody has any more go.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use pelton::app::{App, CompilerProgram};
use pelton::clock::Clock;
use pelton::config::{Config, Options};
use pelton::testing::START;
use serde_json::Value;

use crate::support::binary::Server;
use crate::support::guests;
use crate::support::programs::exits;

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(60);

fn echo() -> &'static Path {
    &guests::built("echo").component
}

#[test]
fn executions_are_forgotten_when_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(
        &folder.path().join("data"),
        &["--retention-ms", "1000", "--idempotency-ttl-ms", "1000"],
    );
    server.deploy("echo", echo(), &[]);
    let id = server.enqueue("echo", "1");
    server.wait_for(&id, |execution| execution["status"] == "success");
    let begun = Instant::now();
    while server.run(&["executions", "get", &id]).code != 3 {
        assert!(begun.elapsed() < PATIENCE, "it is still remembered");
        std::thread::sleep(Duration::from_millis(50));
    }
    let list = server.run(&["executions", "ls", "--json"]).code(0).json();
    assert_eq!(list["items"], Value::Array(Vec::new()));
}

/// A plane in this process, on a clock of ours.
struct Plane {
    app: App,
    clock: Clock,
    code: PathBuf,
}

impl Plane {
    async fn start(data: &Path) -> Self {
        let clock = Clock::manual(START);
        let config = Config::try_from(Options {
            listen: "127.0.0.1:0".to_owned(),
            management_listen: "127.0.0.1:0".to_owned(),
            data_dir: data.to_owned(),
            ..Options::default()
        });
        let compiler = CompilerProgram::At(env!("CARGO_BIN_EXE_pelton").into());
        let app = App::start_at(config.unwrap(), compiler, clock.clone());
        Self {
            app: app.await.unwrap(),
            clock,
            code: data.join("code"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v1/functions/{path}", self.app.addr())
    }

    /// The wasm files that are there.
    fn files(&self) -> BTreeSet<PathBuf> {
        let files = std::fs::read_dir(&self.code).unwrap();
        let files = files.map(|file| file.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
            .collect()
    }

    /// Makes all files as old as if nobody had touched them for two hours.
    fn age(&self) {
        for file in std::fs::read_dir(&self.code).unwrap() {
            let file = File::options().append(true).open(file.unwrap().path());
            let now = file
                .as_ref()
                .unwrap()
                .metadata()
                .unwrap()
                .modified()
                .unwrap();
            let then: SystemTime = now - 2 * HOUR;
            file.unwrap().set_modified(then).unwrap();
        }
    }

    /// A figure of the metrics.
    async fn figure(&self, http: &reqwest::Client, name: &str) -> u64 {
        let url = format!("http://{}/actuator/prometheus", self.app.management_addr());
        let text = http.get(url).send().await.unwrap().text().await.unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(key, _)| *key == name).expect(name);
        value.parse::<f64>().unwrap() as u64
    }

    async fn deploy(&self, http: &reqwest::Client, name: &str, wasm: Vec<u8>) -> PathBuf {
        let before = self.files();
        let request = http
            .put(self.url(name))
            .header("content-type", "application/wasm");
        let answer = request.body(wasm).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let after = self.files();
        after.difference(&before).next().unwrap().clone()
    }
}

/// Every loop of the plane has its turns, and what waits for a later time costs no write and no wake-up of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_plane_whose_work_waits_writes_nothing() {
    const WAITING: u64 = 40;
    const TURNS: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path()).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let json = ("content-type", "application/json");
    plane
        .deploy(&http, "later", exits(75, "not now").to_vec())
        .await;
    let spec = r#"{"retryBackoff": {"baseDelayMs": 80000000}, "queueSize": 1000}"#;
    let patched = http
        .patch(plane.url("later"))
        .header(json.0, json.1)
        .body(spec);
    assert_eq!(patched.send().await.unwrap().status(), 200);
    for _ in 0..WAITING {
        let call = http.post(plane.url("later:enqueue")).header(json.0, json.1);
        assert_eq!(
            call.body(r#"{"input": 1}"#).send().await.unwrap().status(),
            202
        );
    }
    let settled = async || {
        let begun = Instant::now();
        loop {
            let mut idle = plane.figure(&http, "pelton_guests_running").await == 0;
            let queued = http.get(format!(
                "http://{}/v1/executions?status=queued&limit=500",
                plane.app.addr()
            ));
            let queued = queued.send().await.unwrap().bytes().await.unwrap();
            let queued: Value = serde_json::from_slice(&queued).unwrap();
            let asked = queued["items"].as_array().unwrap().iter();
            idle &= asked.filter(|it| it["requeues"] == 1).count() as u64 == WAITING;
            idle &= plane.figure(&http, "pelton_store_writes_waiting").await == 0;
            if idle {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not come to rest");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    settled().await;
    let written = async || plane.figure(&http, "pelton_store_writes_total").await;
    let progress = async || {
        plane
            .figure(&http, "pelton_purge_last_progress_timestamp_ms")
            .await
    };
    let before = written().await;
    for turn in 0..TURNS {
        plane.clock.advance(Duration::from_secs(600));
        let now = plane.clock.now().0 as u64;
        let begun = Instant::now();
        while progress().await < now {
            assert!(
                begun.elapsed() < PATIENCE,
                "turn {turn} of the purge does not come"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(plane.figure(&http, "pelton_loops_late").await, 0);
    // Looking for what is old is a write that may find nothing: one for each turn, however much waits.
    let writes = written().await - before;
    assert!(writes <= TURNS, "{writes} writes in {TURNS} turns");
    settled().await;
    plane.app.stop().await.unwrap();
}

fn command(marker: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 1) (data (i32.const 0) "{marker}") (func (export "_start")))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_no_version_names_is_removed_once_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path()).await;
    // An error says that another test did it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let used = plane.deploy(&http, "used", command("used")).await;
    let deleted = plane.deploy(&http, "deleted", command("deleted")).await;
    plane.age();
    // Not yet an hour without a version: its function may be about to be deployed again.
    let recent = plane.deploy(&http, "recent", command("recent")).await;
    for name in ["deleted", "recent"] {
        let answer = http.delete(plane.url(name)).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
    let begun = Instant::now();
    while plane.files().contains(&deleted) {
        plane.clock.advance(HOUR);
        assert!(begun.elapsed() < PATIENCE, "its file is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(plane.files(), BTreeSet::from([used, recent]));
    // What is named still runs.
    let call = http
        .post(plane.url("used:invoke"))
        .header("content-type", "application/json");
    let answer = call.body(r#"{"input": 1}"#).send().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["status"], "success", "{answer}");
    plane.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_how_far_each_loop_is() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::start(folder.path()).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let loops = ["timer", "writer", "checkpoint", "purge", "sweep"];
    for hour in 1..=3 {
        plane.clock.advance(HOUR);
        let hours = HOUR * hour;
        let now = START.plus_ms(u64::try_from(hours.as_millis()).unwrap()).0;
        let begun = Instant::now();
        loop {
            let url = format!("http://{}/actuator/prometheus", plane.app.addr());
            let text = http.get(url).send().await.unwrap().text().await.unwrap();
            let up_to_date = |name: &&str| {
                let series = format!("pelton_{name}_last_progress_timestamp_ms ");
                let mut lines = text.lines();
                let value = lines.find_map(|line| line.strip_prefix(&series));
                // The writer may be at work this very millisecond.
                value.unwrap().parse::<i64>().unwrap() >= now - 1_000
            };
            let left: Vec<_> = loops.iter().filter(|name| !up_to_date(name)).collect();
            if left.is_empty() && text.contains("\npelton_loops_late 0\n") {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{left:?} do not go on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    plane.app.stop().await.unwrap();
}
