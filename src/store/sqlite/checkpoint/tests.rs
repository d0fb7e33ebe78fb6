//! The log stays bounded while the writer is busy, and is empty after an orderly close.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::Connection;

use super::{Bounds, Did, Pace, checkpoint, copy_bulk, pages_in_log};
use crate::store::Store;
use crate::store::conformance::World;
use crate::store::conformance::world::new_execution;
use crate::store::sqlite::connection::{open_writing, use_wal};
use crate::store::sqlite::{Options, SqliteStore, Synchronous};

#[test]
fn counting_pages_moves_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let database = open_writing(&path, Synchronous::Off).unwrap();
    use_wal(&database).unwrap();
    database
        .execute_batch("CREATE TABLE a (x); INSERT INTO a VALUES (zeroblob(100000))")
        .unwrap();
    let pages = pages_in_log(&database).unwrap();
    assert!(pages > 10, "{pages}");
    assert_eq!(pages_in_log(&database).unwrap(), pages);
    checkpoint(&database, "TRUNCATE").unwrap();
    assert_eq!(pages_in_log(&database).unwrap(), 0);
}

#[test]
fn a_reader_in_the_way_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let database = open_writing(&path, Synchronous::Off).unwrap();
    use_wal(&database).unwrap();
    database.execute_batch("CREATE TABLE a (x)").unwrap();
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch(READ).unwrap();
    database.execute_batch("INSERT INTO a VALUES (1)").unwrap();
    checkpoint(&database, "PASSIVE").unwrap();
    assert!(pages_in_log(&database).unwrap() > 0);
}

/// Begins to read, and sees no later commit until it ends.
const READ: &str = "BEGIN; SELECT count(*) FROM a";
/// Small bounds: a commit of [`Log::write`] is a few pages.
const BOUNDS: Bounds = Bounds {
    soft: 50,
    hard: 400,
};
/// More pages than one commit makes.
const COMMIT_MAX: i64 = 10;

/// A writer and a helper that copies when the test lets it.
struct Log {
    _dir: tempfile::TempDir,
    writer: Connection,
    helper: Connection,
    pace: Pace,
    asked: Receiver<()>,
    most: i64,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let writer = open_writing(&path, Synchronous::Off).unwrap();
        use_wal(&writer).unwrap();
        writer.execute_batch("CREATE TABLE a (x)").unwrap();
        let helper = open_writing(&path, Synchronous::Off).unwrap();
        let (pace, asked) = Pace::new(BOUNDS);
        Self {
            _dir: dir,
            writer,
            helper,
            pace,
            asked,
            most: 0,
        }
    }

    /// Commits a few pages.
    fn write(&mut self) -> Did {
        let insert = "INSERT INTO a VALUES (zeroblob(10000))";
        self.writer.execute_batch(insert).unwrap();
        self.most = self.most.max(self.pages());
        self.pace.after_commit(&self.writer).unwrap()
    }

    fn reader(&self) -> Connection {
        Connection::open(self.writer.path().unwrap()).unwrap()
    }

    fn pages(&self) -> i64 {
        pages_in_log(&self.writer).unwrap()
    }
}

#[test]
fn a_log_begins_again_each_time_that_the_helper_has_copied_while_the_writer_goes_on() {
    let mut log = Log::new();
    let reader = log.reader();
    for round in 0..5 {
        while log.asked.try_recv().is_err() {
            assert_ne!(log.write(), Did::CopiedItself, "round {round}");
        }
        // What comes after a reader has begun is not copied with the bulk: so is what comes while it is copied.
        reader.execute_batch(READ).unwrap();
        log.write();
        copy_bulk(&log.helper, &log.pace.rest_is_left).unwrap();
        reader.execute_batch("COMMIT").unwrap();
        log.write();
        assert!(log.pages() > BOUNDS.soft, "round {round}");
        // The rest is copied by now.
        log.write();
        assert!(log.pages() <= COMMIT_MAX, "round {round}: {}", log.pages());
    }
    assert!(log.most <= BOUNDS.soft + 4 * COMMIT_MAX, "{}", log.most);
}

#[test]
fn a_log_is_bounded_though_the_helper_never_comes() {
    let mut log = Log::new();
    let mut copied = 0;
    while copied < 3 {
        copied += u32::from(log.write() == Did::CopiedItself);
        assert!(log.pages() <= BOUNDS.hard + BOUNDS.soft + COMMIT_MAX);
    }
    assert!(log.most >= BOUNDS.hard);
    log.write();
    assert!(log.pages() <= COMMIT_MAX, "{}", log.pages());
}

#[test]
fn a_log_that_a_reader_holds_is_copied_now_and_then_and_begins_again_after_it() {
    let mut log = Log::new();
    let reader = log.reader();
    reader.execute_batch(READ).unwrap();
    let mut did = Vec::new();
    while log.pages() < 3 * BOUNDS.hard {
        did.push(log.write());
    }
    let busy = did.iter().filter(|did| **did != Did::Nothing).count();
    let most = usize::try_from(log.most / BOUNDS.soft).unwrap();
    assert!(busy <= most, "{busy} times in {most} rounds");
    reader.execute_batch("COMMIT").unwrap();
    while log.write() == Did::Nothing {}
    log.write();
    assert!(log.pages() <= COMMIT_MAX, "{}", log.pages());
}

#[tokio::test]
async fn a_store_has_a_helper_and_closes_with_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        synchronous: Synchronous::Off,
        ..Options::new(dir.path())
    };
    let store = Arc::new(SqliteStore::open(options).unwrap());
    let shared = Arc::clone(&store);
    let world = World::new(Box::new(move || Arc::clone(&shared) as Arc<dyn Store>));
    let function = world.function("alpha").await;
    let log = dir.path().join("pelton.db-wal");
    for ms in 0.. {
        let mut new = new_execution(&function, ms);
        let request = Arc::make_mut(&mut new.request);
        request.input.body = vec![b'x'; 200_000].into();
        store.accept(new).await.unwrap();
        // It has a thread of its own: whenever the system lets that run.
        if store.stats().checkpoints > 0 {
            break;
        }
    }
    assert!(std::fs::metadata(&log).unwrap().len() > 0);
    store.close().await.unwrap();
    assert_eq!(std::fs::metadata(&log).map_or(0, |log| log.len()), 0);
}
