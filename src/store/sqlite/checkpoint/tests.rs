//! The log stays bounded while the writer is busy, and is empty after an orderly close.

use std::sync::Arc;

use rusqlite::Connection;

use super::{checkpoint, pages_in_log};
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
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM a")
        .unwrap();
    database.execute_batch("INSERT INTO a VALUES (1)").unwrap();
    checkpoint(&database, "PASSIVE").unwrap();
    assert!(pages_in_log(&database).unwrap() > 0);
}

#[tokio::test]
async fn a_busy_writer_does_not_let_the_log_grow_for_ever() {
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
    let mut written = 0_u64;
    // Until the log is a fraction of what went through it: it began again, more than once.
    for ms in 0.. {
        let mut new = new_execution(&function, ms);
        let request = Arc::make_mut(&mut new.request);
        request.input.body = vec![b'x'; 200_000].into();
        store.accept(new).await.unwrap();
        written += 200_000;
        let log_bytes = std::fs::metadata(&log).unwrap().len();
        assert!(log_bytes < 160_000_000, "{log_bytes} after {written}");
        if written > 30_000_000 && log_bytes < written / 2 && store.stats().checkpoints > 1 {
            break;
        }
    }
    store.close().await.unwrap();
    assert_eq!(std::fs::metadata(&log).map_or(0, |log| log.len()), 0);
}
