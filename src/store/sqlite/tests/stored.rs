//! Rows that make no sense: an error of the one read or write that meets them.

use rusqlite::Connection;

use super::world_of;
use crate::store::conformance::world::success;
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{Applied, Error, Filter, Store};

fn assert_failed<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::Failed(_))), "{answer:?}");
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_fails_its_reader_only() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    let good = world.accepted(&function, 0).await;
    let damages = [
        "UPDATE executions SET status = 99, standing = 3 WHERE id = ?1",
        "UPDATE executions SET status = 3, error_code = NULL WHERE id = ?1",
        "UPDATE executions SET attempts = -1 WHERE id = ?1",
        "UPDATE executions SET version = -1 WHERE id = ?1",
        "UPDATE executions SET function = 'no name!' WHERE id = ?1",
        "UPDATE executions SET parent = x'00' WHERE id = ?1",
        "UPDATE executions SET due = NULL WHERE id = ?1",
    ];
    let mut damaged = Vec::new();
    for (ms, _) in (1..).zip(damages) {
        damaged.push(world.accepted(&function, ms).await);
    }
    let ended = world.accepted(&function, 50).await;
    world.done(success(&ended, world.next_fence(), 60)).await;
    store.close().await.unwrap();

    let database = Connection::open(dir.path().join("pelton.db")).unwrap();
    for (sql, new) in damages.into_iter().zip(&damaged) {
        assert_eq!(database.execute(sql, [new.id.as_bytes()]), Ok(1), "{sql}");
    }
    let payload =
        "UPDATE inputs SET metadata = '{' WHERE seq = (SELECT seq FROM executions WHERE id = ?1)";
    assert_eq!(database.execute(payload, [ended.id.as_bytes()]), Ok(1));
    database
        .execute("UPDATE attempts SET logs = x'01'", [])
        .unwrap();
    database
        .execute("UPDATE outputs SET encoding = 7", [])
        .unwrap();
    database.close().unwrap();

    let store = SqliteStore::open(Options::new(dir.path())).unwrap();
    for new in &damaged {
        assert_failed(store.execution(new.id).await);
    }
    assert_failed(store.execution(ended.id).await);
    assert_failed(store.request(ended.id).await);
    assert_failed(store.attempts(ended.id).await);
    assert_failed(store.executions(&Filter::default(), 100).await);
    assert_failed(store.live_executions(None, 100).await);
    // Of the writes only the first is hurt: a guard must know the status.
    assert_failed(
        store
            .transition(success(&damaged[0], world.next_fence(), 1))
            .await,
    );
    let applied = store
        .transition(success(&good, world.next_fence(), 1))
        .await;
    assert_eq!(applied.unwrap(), Applied::Done);
    assert_eq!(store.poisoned(), None);
}

#[tokio::test]
async fn functions_that_cannot_be_understood_are_an_error() {
    for damage in [
        "UPDATE functions SET settings = '{\"format\": 2}'",
        "UPDATE functions SET name = '-'",
        "UPDATE versions SET record = 'null'",
        "UPDATE versions SET number = -1",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (world, store) = world_of(Options::new(dir.path()));
        world.function("alpha").await;
        store.close().await.unwrap();
        let database = Connection::open(dir.path().join("pelton.db")).unwrap();
        database.execute(damage, []).unwrap();
        database.close().unwrap();
        let store = SqliteStore::open(Options::new(dir.path())).unwrap();
        assert_failed(store.functions().await);
    }
}
