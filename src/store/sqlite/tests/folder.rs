//! The data folder: who may use it, and what in it is refused.

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;

use super::world_of;
use crate::store::Store;
use crate::store::sqlite::{OpenError, Options, SqliteStore, Synchronous, schema};

fn error_of(opened: Result<SqliteStore, OpenError>) -> OpenError {
    match opened {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_folder_is_used_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = SqliteStore::open(Options::new(dir.path())).unwrap();
    let error = error_of(SqliteStore::open(Options::new(dir.path())));
    assert!(matches!(&error, OpenError::InUse { dir: named } if named == dir.path()));
    assert!(error.to_string().contains("in use by another Pelton"));
    first.close().await.unwrap();
    let second = SqliteStore::open(Options::new(dir.path())).unwrap();
    assert!(second.boot() > first.boot());
}

#[tokio::test]
async fn a_new_folder_is_its_owners_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a").join("data");
    let _store = SqliteStore::open(Options::new(&dir)).unwrap();
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_database_from_the_future_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(Options::new(dir.path())).unwrap();
    store.close().await.unwrap();
    let path = dir.path().join("pelton.db");
    let database = Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 4_711).unwrap();
    database.close().unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = error_of(SqliteStore::open(Options::new(dir.path())));
    assert!(
        matches!(&error, OpenError::FromFuture { path: named, found: 4_711, supported } if *named == path && *supported == schema::newest(schema::STEPS)),
        "{error:?}"
    );
    assert!(error.to_string().contains("use a newer Pelton"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_is_no_database_or_no_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pelton.db");
    std::fs::write(
        &path,
        "not a database, but long enough to be looked at".repeat(99),
    )
    .unwrap();
    let error = error_of(SqliteStore::open(Options::new(dir.path())));
    assert!(matches!(&error, OpenError::Database { path: named, .. } if *named == path));

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = error_of(SqliteStore::open(Options::new(&file)));
    assert!(matches!(&error, OpenError::Io { path: named, .. } if *named == file));
}

#[tokio::test]
async fn without_syncs_it_works_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        synchronous: Synchronous::Off,
        ..Options::new(dir.path())
    };
    let (world, store) = world_of(options.clone());
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    store.close().await.unwrap();
    let store = SqliteStore::open(options).unwrap();
    assert!(store.execution(new.id).await.unwrap().is_some());
}
