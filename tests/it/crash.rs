//! The real binary is killed again and again. What it promised is there afterwards, and ended once.

use std::sync::Arc;
use std::time::Duration;

use pelton::model::Dice;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use crate::support::binary::Server;
use crate::support::load::{Load, clients};
use crate::support::programs;

const KILLS: u64 = 20;
const CLIENTS: u64 = 4;
/// How long a round waits at most for the moment that it was to be killed at.
const ROUND_MAX: Duration = Duration::from_secs(2);
/// More faults than there are kills: here nothing ends for having been killed too often.
const FLAGS: [&str; 4] = ["--faults-max", "100", "--guests-max", "16"];

/// When a server is killed.
#[derive(Debug)]
enum Moment {
    /// After this time.
    Time(Duration),
    /// When so many more calls were accepted.
    Accepted(usize),
    /// When so many more executions were seen to have ended: while others are just about to.
    Ended(usize),
}

impl Moment {
    fn random(random: &mut StdRng) -> Self {
        match random.random_range(0..3) {
            0 => Self::Time(Duration::from_millis(random.random_range(0..400))),
            1 => Self::Accepted(random.random_range(1..120)),
            _ => Self::Ended(random.random_range(1..80)),
        }
    }

    async fn comes(self, load: &Load) {
        let counted = |count: &watch::Sender<usize>, more: usize| {
            let mut count = count.subscribe();
            let wanted = *count.borrow() + more;
            async move { drop(count.wait_for(|count| *count >= wanted).await.unwrap()) }
        };
        match self {
            Self::Time(time) => tokio::time::sleep(time).await,
            Self::Accepted(more) => counted(&load.accepted, more).await,
            Self::Ended(more) => counted(&load.ended, more).await,
        }
    }
}

/// Says how to see it again when the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}: set PELTON_TEST_SEED to it", self.0);
        }
    }
}

impl Seed {
    fn new() -> Self {
        let given = std::env::var_os("PELTON_TEST_SEED");
        let given = given.map(|seed| seed.to_str().unwrap().parse().unwrap());
        Self(given.unwrap_or_else(|| Dice::system().number()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_ends_once_however_often_the_server_is_killed() {
    let seed = Seed::new();
    let mut random = StdRng::seed_from_u64(seed.0);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let load = Arc::new(Load::new());

    let mut server = Server::start(&data, &FLAGS);
    load.deploy(server.url()).await;
    let mut killed = 0;
    for round in 0..KILLS {
        let moment = Moment::random(&mut random);
        let mut clients = clients(&load, server.url(), CLIENTS, random.random());
        // It may not come: then the server is killed all the same.
        let _ = tokio::time::timeout(ROUND_MAX, moment.comes(&load)).await;
        server.kill();
        killed += 1;
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        if round % 4 == 0 {
            let lives = Duration::from_millis(random.random_range(0..120));
            Server::stillborn(&data, &FLAGS, lives);
            killed += 1;
        }
        server = Server::start(&data, &FLAGS);
    }

    load.settled(server.url()).await;
    let seen = load.audit(server.url(), killed).await;
    assert!(seen.len() > 100, "only {} executions", seen.len());
    let hit = seen.values().filter(|execution| execution["faults"] != 0);
    assert!(
        hit.count() > 0,
        "nothing was running whenever it was killed"
    );
    load.repeat_all(server.url()).await;
    assert_eq!(load.audit(server.url(), killed).await, seen);

    server.kill();
    let server = Server::start(&data, &FLAGS);
    load.repeat_all(server.url()).await;
    assert_eq!(load.audit(server.url(), killed).await, seen);
}

/// Needs the hook of debug builds.
#[cfg(debug_assertions)]
#[test]
fn an_input_that_kills_the_process_does_not_do_so_for_ever() {
    const FAULTS_MAX: u64 = 3;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = ["--faults-max", "3", "--test-abort-on", "poison"];
    let copies = folder.path().join("copies.wasm");
    std::fs::write(&copies, programs::program(programs::COPIES)).unwrap();

    // By hand, so that all of it waits when the first one dies.
    let first = Server::start(&data, &["--manual"]);
    for name in ["doomed", "others"] {
        let settings = ["concurrency=1", "retryBackoff={\"baseDelayMs\": 0}"];
        first.deploy(name, &copies, &settings);
    }
    let poison = first.enqueue("doomed", "\"poison\"");
    let behind = first.enqueue("doomed", "\"behind\"");
    let beside = first.enqueue("others", "\"beside\"");
    first.kill();

    let mut deaths = 0;
    let server = loop {
        match Server::try_start(&data, &flags) {
            Some(server) if outlives(&server, &poison) => break server,
            _ => deaths += 1,
        }
        assert!(deaths <= FAULTS_MAX + 1, "it goes on for ever");
    };
    assert_eq!(deaths, FAULTS_MAX + 1);
    let ended = server.wait_for(&poison, |execution| execution["finishedAt"].is_string());
    assert_eq!(ended["status"], "error", "{ended}");
    assert_eq!(ended["error"]["code"], "PLATFORM_FAULT", "{ended}");
    assert_eq!(ended["faults"], FAULTS_MAX + 1, "{ended}");
    assert_eq!(ended["attempts"], 0, "{ended}");
    // What ran beside it is suspected twice, and then has a turn of its own.
    for (id, output) in [(behind, "behind"), (beside, "beside")] {
        let ended = server.wait_for(&id, |execution| execution["finishedAt"].is_string());
        assert_eq!(ended["status"], "success", "{ended}");
        assert_eq!(ended["output"], output, "{ended}");
    }
}

/// Needs the hook of debug builds.
#[cfg(debug_assertions)]
#[test]
fn an_input_that_kills_the_process_takes_none_with_it_that_run_beside_it() {
    const FAULTS_MAX: u64 = 5;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = [
        "--faults-max",
        "5",
        "--suspect-faults",
        "2",
        "--start-ramp-ms",
        "0",
        "--test-abort-on",
        "poison",
    ];
    let copies = folder.path().join("copies.wasm");
    std::fs::write(&copies, programs::program(programs::COPIES)).unwrap();
    let sleeps = folder.path().join("sleeps.wasm");
    let half_a_second = "(call $sleep (i64.const 500)) (call $copy (i32.const 1))";
    std::fs::write(&sleeps, programs::program(half_a_second)).unwrap();

    let first = Server::start(&data, &["--manual"]);
    let no_delay = "retryBackoff={\"baseDelayMs\": 0}";
    first.deploy("doomed", &copies, &[no_delay]);
    first.deploy("others", &sleeps, &[no_delay, "concurrency=8"]);
    let beside: Vec<_> = (0..6)
        .map(|number| first.enqueue("others", &number.to_string()))
        .collect();
    let poison = first.enqueue("doomed", "\"poison\"");
    first.kill();

    // Those that run beside it take longer than it does to kill the process: without a turn of their own they
    // would be blamed each time.
    let mut deaths = 0;
    let server = loop {
        match Server::try_start(&data, &flags) {
            Some(server) if outlives(&server, &poison) => break server,
            _ => deaths += 1,
        }
        assert!(deaths <= FAULTS_MAX + 1, "it goes on for ever");
    };
    assert_eq!(deaths, FAULTS_MAX + 1);
    let ended = server.wait_for(&poison, |execution| execution["finishedAt"].is_string());
    assert_eq!(ended["error"]["code"], "PLATFORM_FAULT", "{ended}");
    for (number, id) in beside.iter().enumerate() {
        let ended = server.wait_for(id, |execution| execution["finishedAt"].is_string());
        assert_eq!(ended["status"], "success", "{ended}");
        assert_eq!(ended["output"], number, "{ended}");
        assert!(ended["faults"].as_u64().unwrap() <= 2, "{ended}");
    }
}

/// Whether the server lives until this execution has ended.
#[cfg(debug_assertions)]
fn outlives(server: &Server, id: &str) -> bool {
    loop {
        let ran = server.run(&["executions", "get", id, "--json"]);
        if ran.code != 0 {
            return false;
        }
        if ran.json()["finishedAt"].is_string() {
            return true;
        }
    }
}
