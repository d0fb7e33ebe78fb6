//! Calls that share a row for their payloads: each is read, changed and removed as if it had rows of its own.

use rusqlite::Connection;

use super::world_of;
use crate::execution::{Execution, State};
use crate::model::{Fence, RecordMode, Timestamp};
use crate::store::conformance::World;
use crate::store::conformance::world::{START, attempt, ended_in_memory, failure, transition};
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{Applied, EndedExecution, FunctionRecord, Guard, Retention, Store};

/// So many failed calls, a ms apart, which one batch has recorded.
async fn recorded(world: &World, function: &FunctionRecord, count: u64) -> Vec<EndedExecution> {
    let failed = |ms| ended_in_memory(function, ms, State::Error(failure()), RecordMode::Full);
    let all: Vec<_> = (0..count).map(failed).collect();
    for ended in &all {
        world.record_ended(ended.clone());
    }
    world.flush().await.unwrap();
    all
}

fn older_than(ms: u64, rows_max: u32) -> Retention {
    Retention {
        executions_before: START.plus_ms(ms),
        keys_before: Timestamp(0),
        rows_max,
    }
}

/// Rows of a table in the database of a closed store.
fn rows(dir: &std::path::Path, table: &str) -> i64 {
    let database = Connection::open(dir.join("pelton.db")).unwrap();
    let count = format!("SELECT count(*) FROM {table}");
    database.query_row(&count, [], |row| row.get(0)).unwrap()
}

async fn assert_whole(store: &dyn Store, ended: &EndedExecution, runs: usize) {
    let record = store.execution(ended.id).await.unwrap().unwrap();
    assert_eq!(record.execution, ended.execution);
    assert_eq!(record.output, ended.output);
    assert!(record.input_kept);
    let request = store.request(ended.id).await.unwrap();
    assert_eq!(request.as_ref(), Some(&*ended.request));
    let found = store.attempts(ended.id).await.unwrap();
    assert_eq!(found.len(), runs);
    assert_eq!(found[0], ended.attempts[0]);
}

#[tokio::test]
async fn calls_of_a_batch_share_a_row_and_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    let all = recorded(&world, &function, 40).await;
    for ended in &all {
        assert_whole(&*store, ended, 1).await;
    }
    store.close().await.unwrap();
    let bundles = rows(dir.path(), "bundles");
    assert!((1..40).contains(&bundles), "{bundles} rows for 40 calls");
    for table in ["inputs", "outputs", "attempts"] {
        assert_eq!(rows(dir.path(), table), 0, "{table}");
    }
    assert_eq!(rows(dir.path(), "executions"), 40);
}

/// All columns but those that tell rows apart.
fn columns(dir: &std::path::Path, ended: &EndedExecution) -> Vec<rusqlite::types::Value> {
    let database = Connection::open(dir.join("pelton.db")).unwrap();
    let mut statement = database
        .prepare("SELECT * FROM executions WHERE id = ?1")
        .unwrap();
    let names: Vec<_> = statement.column_names().map(str::to_owned).collect();
    let told_apart = ["id", "seq", "trace_id"];
    let shown = |row: &rusqlite::Row<'_>| {
        let columns = names.iter().enumerate();
        let columns = columns.filter(|(_, name)| !told_apart.contains(&name.as_str()));
        columns.map(|(column, _)| row.get(column)).collect()
    };
    statement.query_row([ended.id.as_bytes()], shown).unwrap()
}

#[tokio::test]
async fn successes_are_inserted_together_and_as_each_would_be_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    let success = |ms| {
        let mut ended = ended_in_memory(&function, ms, State::Success, RecordMode::Full);
        let run = &mut ended.attempts[0];
        (run.cold_start, run.init_ms) = (false, None);
        std::sync::Arc::make_mut(&mut ended.request).trace_id = None;
        ended
    };
    // One that has more to be said of it than the others goes by itself, and two are known already.
    let mut all: Vec<_> = (0..30).map(success).collect();
    for (ended, model) in [(5, 0), (6, 0)] {
        all[ended] = EndedExecution {
            id: all[ended].id,
            ..all[model].clone()
        };
    }
    std::sync::Arc::make_mut(&mut all[5].request).trace_id = Some("trace".into());
    for ended in all.iter().chain([&all[3], &all[20]]) {
        world.record_ended(ended.clone());
    }
    world.flush().await.unwrap();
    for ended in &all {
        assert_whole(&*store, ended, 1).await;
    }
    store.close().await.unwrap();
    assert_eq!(rows(dir.path(), "executions"), 30);
    let alone = columns(dir.path(), &all[5]);
    assert!(alone.len() > 20, "{alone:?}");
    assert_eq!(columns(dir.path(), &all[6]), alone);
}

#[tokio::test]
async fn a_late_run_is_added_once_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    let all = recorded(&world, &function, 5).await;
    let late = attempt(Fence(all[2].attempts[0].fence.0 + 1_000));
    for again in [&late, &late, &all[2].attempts[0]] {
        let added = store.add_attempt(all[2].id, again.clone()).await;
        assert_eq!(added.unwrap(), Applied::Done);
    }
    for (number, ended) in all.iter().enumerate() {
        assert_whole(&*store, ended, 1 + usize::from(number == 2)).await;
    }
    assert_eq!(store.attempts(all[2].id).await.unwrap()[1], late);
}

#[tokio::test]
async fn calls_of_a_bundle_grow_old_together_and_what_was_changed_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    let all = recorded(&world, &function, 20).await;
    let again = Execution::queued(all[7].execution.created_at);
    let redriven = transition(all[7].id, Guard::Redrivable, again.clone());
    world.done(redriven).await;
    // The last of them ended 22 ms after the start.
    assert_eq!(store.purge(older_than(1, 1_000)).await.unwrap(), 0);
    for ended in &all {
        assert!(store.execution(ended.id).await.unwrap().is_some());
    }
    let mut gone = 0;
    loop {
        let step = store.purge(older_than(1_000, 3)).await.unwrap();
        assert!(step <= 3);
        gone += step;
        if step == 0 {
            break;
        }
    }
    assert!(gone >= 19, "{gone}");
    for ended in &all {
        let left = store.execution(ended.id).await.unwrap();
        assert_eq!(left.is_some(), ended.id == all[7].id);
    }
    let request = store.request(all[7].id).await.unwrap();
    assert_eq!(request.as_ref(), Some(&*all[7].request));
    assert_eq!(
        store.execution(all[7].id).await.unwrap().unwrap().execution,
        again
    );
    store.close().await.unwrap();
    assert_eq!(rows(dir.path(), "bundles"), 0);
}

#[tokio::test]
async fn a_damaged_bundle_fails_its_readers_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    let all = recorded(&world, &function, 3).await;
    store.close().await.unwrap();
    let database = Connection::open(dir.path().join("pelton.db")).unwrap();
    database
        .execute("UPDATE bundles SET body = substr(body, 1, 20)", [])
        .unwrap();
    database.close().unwrap();
    let store = SqliteStore::open(Options::new(dir.path())).unwrap();
    assert!(store.execution(all[0].id).await.is_err());
    assert!(store.request(all[1].id).await.is_err());
    assert!(store.attempts(all[2].id).await.is_err());
    let again = Execution::queued(all[0].execution.created_at);
    let redrive = transition(all[0].id, Guard::Redrivable, again);
    assert!(store.transition(redrive).await.is_err());
    assert_eq!(store.poisoned(), None);
    let others = recorded(
        &World::new(Box::new({
            let store = std::sync::Arc::new(store);
            move || std::sync::Arc::clone(&store) as std::sync::Arc<dyn Store>
        })),
        &function,
        1,
    )
    .await;
    assert_eq!(others.len(), 1);
}
