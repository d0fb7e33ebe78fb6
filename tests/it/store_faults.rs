//! Stores whose writes fail, stall, or are lost though they were acknowledged, seen through the API.

use std::fs;
use std::io;
use std::path::Path;
use std::slice;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use pelton::store::Store as _;
use pelton::store::sqlite::{Options, SqliteStore, WriteFaults};
use pelton::testing::Home;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::service::{Reply, Service};
use crate::support::world::{Builder, World, within};

/// What the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Writes,
    Stalls,
    Fails,
}

/// A hand on the disk.
#[derive(Debug)]
struct Disk {
    mood: Mutex<Mood>,
    changed: Condvar,
    /// Whether a commit waits.
    stalled: watch::Sender<bool>,
}

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(Mood::Writes),
            changed: Condvar::new(),
            stalled: watch::Sender::default(),
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_all();
    }

    /// Returns once a commit waits.
    async fn has_stalled(&self) {
        let mut stalled = self.stalled.subscribe();
        let waited = within("a commit that waits", stalled.wait_for(|stalled| *stalled)).await;
        drop(waited.unwrap());
    }
}

impl WriteFaults for Disk {
    fn before_commit(&self) -> io::Result<()> {
        let mood = self.mood.lock().unwrap();
        self.stalled.send_replace(*mood == Mood::Stalls);
        let stalls = |mood: &mut Mood| *mood == Mood::Stalls;
        let mood = self.changed.wait_while(mood, stalls).unwrap();
        self.stalled.send_replace(false);
        match *mood {
            Mood::Writes | Mood::Stalls => Ok(()),
            Mood::Fails => Err(io::Error::other("the disk is gone")),
        }
    }
}

/// A store in this folder on this disk.
fn open(folder: &Path, disk: &Arc<Disk>) -> Arc<SqliteStore> {
    let faults: Arc<dyn WriteFaults> = disk.clone();
    let options = Options {
        faults: Some(faults),
        ..Options::new(folder)
    };
    Arc::new(SqliteStore::open(options).unwrap())
}

/// A plane on this store.
fn plane(store: &Arc<SqliteStore>) -> Builder {
    let store = store.clone();
    World::new().setup(|setup| setup.home = Home::Store(store))
}

/// A plane on what this folder holds, with a disk that works.
async fn reopened(folder: &Path) -> World {
    let world = plane(&open(folder, &Disk::new())).background().await;
    // Time has passed: what waits after a fault is due.
    world.plane.advance(Duration::from_secs(3600));
    world
}

/// Lets a millisecond pass, so that the next id is greater than the last one.
fn tick(world: &World) {
    world.plane.advance(Duration::from_millis(1));
}

/// Stops without grace; the store may have failed.
async fn stop(world: World) {
    let _ = world.plane.stop(Duration::ZERO).await;
}

/// A service that echoes its input, as often as it is released.
async fn held_echo() -> Service {
    Service::held(|seen| Reply::ok(&seen.body["input"])).await
}

async fn ids(world: &World, function: &str) -> Vec<String> {
    let executions = world.executions_of(function).await;
    let ids = executions
        .iter()
        .map(|execution| execution["executionId"].as_str());
    ids.map(|id| id.unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_call_whose_commit_fails_was_never_accepted() {
    let (folder, disk) = (TempDir::new().unwrap(), Disk::new());
    let world = plane(&open(folder.path(), &disk))
        .background()
        .echo("echo")
        .await;
    let earlier = world.enqueue("echo", json!("earlier")).await;
    world.ended(&earlier).await;

    disk.set(Mood::Fails);
    let key = [("idempotency-key", "k")];
    let failed = world.enqueue_with("echo", &key, json!("lost")).await;
    failed.refused(503, "STORE_UNAVAILABLE");
    assert_eq!(ids(&world, "echo").await, slice::from_ref(&earlier));
    stop(world).await;

    let world = reopened(folder.path()).await;
    assert_eq!(ids(&world, "echo").await, slice::from_ref(&earlier));
    // Neither is its key there: it may be used for anything.
    let again = world.enqueue_with("echo", &key, json!("another")).await;
    assert_eq!(again.status, 202);
    assert_eq!(world.ended(&again.id()).await["output"], "another");
}

#[tokio::test]
async fn after_a_failed_commit_everything_reads_and_nothing_writes() {
    let (folder, disk) = (TempDir::new().unwrap(), Disk::new());
    let store = open(folder.path(), &disk);
    let world = plane(&store).background().echo("echo").await;
    let earlier = world.enqueue("echo", json!("earlier")).await;
    let before = world.ended(&earlier).await;
    let ready = world.get("/actuator/health/readiness").await;
    assert_eq!(ready.status, 200);

    disk.set(Mood::Fails);
    world
        .enqueue_with("echo", &[], json!("lost"))
        .await
        .refused(503, "STORE_UNAVAILABLE");
    // A disk that comes back helps nobody: what a failed sync has lost is known to no one.
    disk.set(Mood::Writes);
    assert!(store.wait_poisoned().await.contains("the disk is gone"));

    let ready = world.get("/actuator/health/readiness").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json["status"], "DOWN");
    assert!(ready.json["reason"].as_str().unwrap().contains("no writes"));
    assert_eq!(world.get("/actuator/health/liveness").await.status, 200);

    let key = [("idempotency-key", "k")];
    let another = json!({"name": "another", "image": "builtin:echo"});
    for refused in [
        world.enqueue_with("echo", &[], json!(1)).await,
        world.enqueue_with("echo", &key, json!(1)).await,
        world.invoke_with("echo", &key, json!(1)).await,
        world.post("/v1/functions", another).await,
        world
            .patch("/v1/functions/echo", json!({"queueSize": 7}))
            .await,
        world.delete("/v1/functions/echo").await,
    ] {
        refused.refused(503, "STORE_UNAVAILABLE");
    }

    assert_eq!(world.execution(&earlier).await, before);
    assert_eq!(ids(&world, "echo").await, slice::from_ref(&earlier));
    assert_eq!(world.attempts(&earlier).await.len(), 1);
    let function = world.get("/v1/functions/echo").await.expect(200);
    assert_eq!(function["queueSize"], 100);
    // What needs no disk goes on: it was promised nothing.
    let called = world.invoke("echo", json!("hello")).await.expect(200);
    assert_eq!(
        (&called["status"], &called["output"]),
        (&json!("success"), &json!("hello"))
    );
    stop(world).await;
}

#[tokio::test]
async fn nobody_sees_a_call_before_its_commit() {
    let (folder, disk) = (TempDir::new().unwrap(), Disk::new());
    let service = held_echo().await;
    let world = plane(&open(folder.path(), &disk));
    let world = world.background().pool("pool", &service.url).await;

    disk.set(Mood::Stalls);
    let mut call = Box::pin(world.enqueue_with("pool", &[], json!("late")));
    assert!(call.as_mut().now_or_never().is_none());
    disk.has_stalled().await;
    assert!(
        call.as_mut().now_or_never().is_none(),
        "answered before the commit"
    );
    assert_eq!(
        world.plane.scheduler.load().running,
        0,
        "ran before the commit"
    );
    disk.set(Mood::Writes);
    let answer = within("an answer", call).await;
    service.release(1);
    assert_eq!(world.ended(&answer.id()).await["output"], "late");
    assert_eq!(service.seen().len(), 1);
    stop(world).await;
}

#[tokio::test]
async fn nobody_sees_an_end_before_its_commit() {
    let (folder, disk) = (TempDir::new().unwrap(), Disk::new());
    let store = open(folder.path(), &disk);
    let service = held_echo().await;
    let world = plane(&store).pool("pool", &service.url).await;
    let id = world.enqueue("pool", json!("result")).await;
    let mut drain = Box::pin(world.drain("pool"));
    assert!(drain.as_mut().now_or_never().is_none());
    let arrived = service.arrived(1);
    tokio::select! {
        _ = &mut drain => panic!("answered before the service did"),
        _ = arrived => {}
    }
    // The claim is on disk now: the next commit is the end's.
    store.flush().await.unwrap();

    disk.set(Mood::Stalls);
    service.release(1);
    tokio::select! {
        _ = &mut drain => panic!("answered before the commit"),
        () = disk.has_stalled() => {}
    }
    assert!(drain.as_mut().now_or_never().is_none());
    let seen = world.execution(&id).await;
    assert_eq!(
        (&seen["status"], &seen["output"]),
        (&json!("running"), &Value::Null)
    );
    disk.set(Mood::Writes);
    assert_eq!(within("the drain", drain).await, "success");
    assert_eq!(world.execution(&id).await["output"], "result");
    stop(world).await;
}

#[tokio::test]
async fn an_end_whose_commit_fails_is_not_shown_and_comes_once_after_the_restart() {
    let (folder, disk) = (TempDir::new().unwrap(), Disk::new());
    let store = open(folder.path(), &disk);
    let service = held_echo().await;
    let world = plane(&store).background().pool("pool", &service.url).await;
    let id = world.enqueue("pool", json!("result")).await;
    service.arrived(1).await;
    store.flush().await.unwrap();
    disk.set(Mood::Fails);
    service.release(1);
    within("the failure", store.wait_poisoned()).await;
    service.idle().await;
    // Its outcome is nobody's to know.
    let seen = world.execution(&id).await;
    assert_eq!(
        (&seen["status"], &seen["output"]),
        (&json!("running"), &Value::Null)
    );
    stop(world).await;
    assert_eq!(service.seen().len(), 1);

    let world = reopened(folder.path()).await;
    service.arrived(2).await;
    service.release(1);
    let ended = world.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["output"]),
        (&json!("success"), &json!("result"))
    );
    assert_eq!(
        (&ended["attempts"], &ended["faults"]),
        (&json!(1), &json!(1))
    );
    stop(world).await;

    let world = reopened(folder.path()).await;
    assert_eq!(world.execution(&id).await, ended);
    assert_eq!(world.plane.scheduler.load().queued, 0);
    assert_eq!(service.seen().len(), 2, "it ran again though it had ended");
    stop(world).await;
}

/// What a machine would find after a power cut: the database and as much of its log as `log_bytes` says.
fn image(folder: &Path, log_bytes: Option<usize>) -> TempDir {
    let image = TempDir::new().unwrap();
    fs::copy(folder.join("pelton.db"), image.path().join("pelton.db")).unwrap();
    let mut log = fs::read(folder.join("pelton.db-wal")).unwrap();
    log.truncate(log_bytes.unwrap_or(log.len()));
    fs::write(image.path().join("pelton.db-wal"), log).unwrap();
    image
}

/// Has SQLite look for what is broken or points nowhere.
#[track_caller]
fn check_database(folder: &Path) {
    let database = Connection::open(folder.join("pelton.db")).unwrap();
    let says = |pragma: &str| -> Vec<String> {
        let mut question = database.prepare(pragma).unwrap();
        let rows = question.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(says("PRAGMA integrity_check"), ["ok"]);
    assert_eq!(says("PRAGMA foreign_key_check"), [""; 0]);
}

#[tokio::test]
async fn a_disk_that_loses_what_it_acknowledged_leaves_a_store_in_order() {
    let (folder, disk) = (TempDir::new().unwrap(), Disk::new());
    let store = open(folder.path(), &disk);
    let world = plane(&store).echo("echo").await;
    let ended = world.enqueue("echo", json!("ended")).await;
    assert_eq!(world.drain("echo").await, "success");
    tick(&world);
    let unfinished = world.enqueue("echo", json!("unfinished")).await;
    store.flush().await.unwrap();
    let image = image(folder.path(), None);
    // Acknowledged, shown, and lost.
    assert_eq!(world.drain("echo").await, "success");
    let key = [("idempotency-key", "k")];
    let lost = world.enqueue_with("echo", &key, json!("lost")).await;
    assert_eq!(lost.status, 202);
    stop(world).await;

    check_database(image.path());
    let world = reopened(image.path()).await;
    assert_eq!(world.execution(&ended).await["output"], "ended");
    let again = world.ended(&unfinished).await;
    assert_eq!(
        (&again["status"], &again["output"]),
        (&json!("success"), &json!("unfinished"))
    );
    let gone = world.get(&format!("/v1/executions/{}", lost.id())).await;
    assert_eq!(gone.status, 404);
    assert_eq!(ids(&world, "echo").await, [unfinished, ended]);
    let anew = world.enqueue_with("echo", &key, json!("anything")).await;
    assert_eq!(world.ended(&anew.id()).await["output"], "anything");
    stop(world).await;
}

#[tokio::test]
async fn a_log_torn_anywhere_leaves_the_first_so_many_calls_whole() {
    const CALLS: usize = 24;
    const TEARS: usize = 16;
    let (folder, disk) = (TempDir::new().unwrap(), Disk::new());
    let store = open(folder.path(), &disk);
    let world = plane(&store).echo("echo").await;
    store.flush().await.unwrap();
    let log = folder.path().join("pelton.db-wal");
    let least = usize::try_from(fs::metadata(&log).unwrap().len()).unwrap();
    let mut accepted = Vec::new();
    for number in 0..CALLS {
        tick(&world);
        let key = format!("key-{number}");
        let key = [("idempotency-key", key.as_str())];
        let call = world.enqueue_with("echo", &key, json!(number)).await;
        accepted.push(call.id());
        if number % 3 == 0 {
            assert_eq!(world.drain("echo").await, "success");
        }
    }
    store.flush().await.unwrap();
    let most = usize::try_from(fs::metadata(&log).unwrap().len()).unwrap();
    assert!(most > least);

    let mut found = Vec::new();
    for tear in 0..=TEARS {
        // Not at the borders of pages: the last frame is half there.
        let bytes = least + (most - least) * tear / TEARS;
        let image = image(folder.path(), Some(bytes));
        check_database(image.path());
        let world = reopened(image.path()).await;
        let mut there = ids(&world, "echo").await;
        there.reverse();
        assert_eq!(there, accepted[..there.len()], "torn at {bytes}");
        for (number, id) in there.iter().enumerate() {
            let ended = world.ended(id).await;
            assert_eq!(
                (&ended["status"], &ended["output"]),
                (&json!("success"), &json!(number))
            );
            let key = format!("key-{number}");
            let key = [("idempotency-key", key.as_str())];
            let again = world.enqueue_with("echo", &key, json!(number)).await;
            assert_eq!(again.id(), *id);
        }
        found.push(there.len());
        stop(world).await;
    }
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!((found[0], found[TEARS]), (0, CALLS));
    stop(world).await;
}
