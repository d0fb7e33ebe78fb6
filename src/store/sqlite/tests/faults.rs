//! Poisoning: what a failed commit means for everybody.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::gate::Gate;
use super::world_of;
use crate::execution::State;
use crate::model::RecordMode;
use crate::store::conformance::world::{claim, ended_in_memory, new_execution, success, version};
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{Error, Filter, Store};

fn assert_poisoned<T: std::fmt::Debug>(answer: Result<T, Error>) {
    match answer {
        Err(Error::Poisoned(reason)) => assert_eq!(&*reason, "the disk is on fire"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_failed_commit_ends_all_writing_and_no_reading() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    let good = world.accepted(&function, 0).await;
    assert_eq!(store.poisoned(), None);

    gate.fail();
    let lost = new_execution(&function, 1);
    assert_poisoned(store.accept(lost.clone()).await);
    assert_eq!(&*store.wait_poisoned().await, "the disk is on fire");
    assert!(store.poisoned().is_some());

    let seen = gate.arrived();
    assert_poisoned(store.accept(new_execution(&function, 2)).await);
    assert_poisoned(
        store
            .transition(success(&good, world.next_fence(), 1))
            .await,
    );
    assert_poisoned(store.flush().await);
    let settings = &function.settings;
    assert_poisoned(store.add_version(function.id, settings, version(2)).await);
    store.log_claim(claim(good.id, world.next_fence()));
    let behind = ended_in_memory(&function, 3, State::Success, RecordMode::Full);
    store.record_ended(behind.clone());
    assert_eq!(store.stats().dropped_records, 1);
    assert_eq!(gate.arrived(), seen, "nothing is tried again");

    assert_eq!(
        store.functions().await.unwrap(),
        std::slice::from_ref(&function)
    );
    let kept = store.execution(good.id).await.unwrap().unwrap();
    assert_eq!(kept.execution, good.execution);
    assert_eq!(store.execution(lost.id).await.unwrap(), None);
    assert_eq!(store.execution(behind.id).await.unwrap(), None);
    let list = store.executions(&Filter::default(), 10).await.unwrap();
    assert_eq!(list.len(), 1);
    let held = SqliteStore::open(Options::new(dir.path()));
    assert!(held.is_err(), "a poisoned store still has its folder");

    assert_poisoned(store.close().await);
    let again = SqliteStore::open(Options::new(dir.path())).unwrap();
    assert!(again.execution(good.id).await.unwrap().is_some());
    assert_eq!(again.execution(lost.id).await.unwrap(), None);
    let accepted = again.accept(new_execution(&function, 4)).await;
    assert!(accepted.is_ok(), "a restart heals");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_waits_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let options = Options {
        queue_ops_max: 8,
        ..options
    };
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    gate.shut();
    let mut tasks = JoinSet::new();
    let mut accept = |ms| {
        let new = new_execution(&function, ms);
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.accept(new).await });
    };
    // One in the commit, some in the queue, and more than fit in there.
    accept(0);
    gate.wait_for_arrival();
    (1..50).for_each(&mut accept);
    while store.stats().queue_ops < 7 {
        tokio::task::yield_now().await;
    }
    let behind = ended_in_memory(&function, 99, State::Success, RecordMode::Full);
    store.record_ended(behind.clone());
    gate.fail();
    gate.open();
    let answers = tasks.join_all().await;
    assert_eq!(answers.len(), 50);
    answers.into_iter().for_each(assert_poisoned);
    assert_eq!(gate.arrived(), 1);
    let seen = store.execution(behind.id).await.unwrap();
    assert!(seen.is_some(), "what was shown stays visible until the end");
}

#[tokio::test]
async fn a_failed_commit_of_work_that_nobody_waits_for_poisons_too() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    gate.fail();
    store.record_ended(ended_in_memory(
        &function,
        0,
        State::Success,
        RecordMode::Auto,
    ));
    store.wait_poisoned().await;
}

#[tokio::test]
async fn a_damaged_database_poisons_and_does_not_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    for ms in 0..500 {
        world.accepted(&function, ms).await;
    }
    store.close().await.unwrap();
    let path = dir.path().join("pelton.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // The schema's page stays, so that the database opens.
    bytes[3 * 8192..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let store = SqliteStore::open(Options::new(dir.path())).unwrap();
    let written = store.accept(new_execution(&function, 1_000)).await;
    assert!(matches!(written, Err(Error::Poisoned(_))), "{written:?}");
    let read = store.executions(&Filter::default(), 10).await;
    assert!(matches!(read, Err(Error::Failed(_))), "{read:?}");
}
