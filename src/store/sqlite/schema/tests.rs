//! Migrations, and a database of version 1 as it was written.

use std::sync::Arc;

use rusqlite::Connection;

use super::{MigrateError, STEPS, check, migrate};
use crate::execution::State;
use crate::model::{ExecutionId, Fence, FunctionId, Timestamp, VersionNumber};
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{Filter, Store};

fn version_of(connection: &Connection) -> i64 {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}

#[test]
fn steps_are_taken_once_and_in_order() {
    let mut database = Connection::open_in_memory().unwrap();
    let steps = [
        "CREATE TABLE a (x); INSERT INTO a VALUES (1)",
        "UPDATE a SET x = x + 10",
        "UPDATE a SET x = x * 2",
    ];
    let value = |database: &Connection| -> i64 {
        database
            .query_row("SELECT x FROM a", [], |row| row.get(0))
            .unwrap()
    };
    for (count, expected) in [(1, 1), (1, 1), (2, 11), (3, 22), (3, 22)] {
        migrate(&mut database, &steps[..count]).unwrap();
        assert_eq!(value(&database), expected);
        assert_eq!(version_of(&database), i64::try_from(count).unwrap());
    }
    let older = migrate(&mut database, &steps[..2]);
    assert!(matches!(older, Err(MigrateError::FromFuture(3))));
}

#[test]
fn a_step_that_fails_leaves_nothing_behind() {
    let mut database = Connection::open_in_memory().unwrap();
    let steps = [
        "CREATE TABLE a (x)",
        "CREATE TABLE b (x); CREATE TABLE a (x)",
    ];
    assert!(matches!(
        migrate(&mut database, &steps),
        Err(MigrateError::Sql(_))
    ));
    assert_eq!(version_of(&database), 1);
    let tables: i64 = database
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn the_real_schema_can_take_a_further_step() {
    let mut database = Connection::open_in_memory().unwrap();
    migrate(&mut database, STEPS).unwrap();
    let mut steps = STEPS.to_vec();
    steps.push("ALTER TABLE executions ADD COLUMN note TEXT");
    migrate(&mut database, &steps).unwrap();
    assert_eq!(check(&database, &steps).unwrap(), super::newest(&steps));
    assert!(check(&database, STEPS).is_err());
}

/// The fixture is never regenerated: it is what a released build wrote.
#[tokio::test]
async fn a_database_of_version_1_opens_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let database = Connection::open(dir.path().join("pelton.db")).unwrap();
    database
        .execute_batch(include_str!("../testdata/schema_v1.sql"))
        .unwrap();
    database.close().unwrap();

    let store = Arc::new(SqliteStore::open(Options::new(dir.path())).unwrap());
    assert_eq!(store.boot(), 8);
    let functions = store.functions().await.unwrap();
    assert_eq!(functions.len(), 1);
    assert_eq!(functions[0].id, FunctionId(3));
    assert_eq!(functions[0].active, VersionNumber(2));
    assert_eq!(functions[0].versions.len(), 2);
    assert_eq!(functions[0].settings.rate_per_second, Some(50));

    let page = store.executions(&Filter::default(), 10).await.unwrap();
    let states: Vec<_> = page.iter().map(|e| e.execution.status().as_str()).collect();
    assert_eq!(states, ["running", "error", "success"]);
    let done = ExecutionId::parse("019a0000-0000-7000-8000-000000000001").unwrap();
    let record = store.execution(done).await.unwrap().unwrap();
    assert_eq!(&*record.output.unwrap().body, b"{\"pong\":1}");
    let request = store.request(done).await.unwrap().unwrap();
    assert_eq!(&*request.input.body, b"{\"ping\":1}");
    assert_eq!(request.metadata[0], ("tenant".to_owned(), "a".to_owned()));
    let attempts = store.attempts(done).await.unwrap();
    assert_eq!(attempts[0].logs.lines[0].text, "hi");
    let key = "order-1".parse().unwrap();
    let holder = store.key_holder(FunctionId(3), &key, Timestamp(1_760_000_000_500));
    assert_eq!(holder.await.unwrap().unwrap().id, done);
    assert_eq!(store.secrets().await.unwrap(), []);
    let name = "api-key".parse().unwrap();
    let secret = store.put_secret(&name, vec![1].into(), Timestamp(1));
    secret.await.unwrap();
    assert_eq!(store.secrets().await.unwrap().len(), 1);
    let live = store.live_executions(None, 10).await.unwrap();
    let fence = Fence::new(7, 2);
    assert_eq!(live[0].execution.state, State::Running { fence });
}
