//! What shares a commit, and what does not share its fate.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::gate::Gate;
use super::world_of;
use crate::execution::State;
use crate::model::{ExecutionId, Fence, RecordMode, Timestamp, VersionNumber};
use crate::store::conformance::world::{claim, ended_in_memory, new_execution, success};
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{Accepted, Applied, Error, Store};

async fn wait_for_queue(store: &SqliteStore, ops: u64) {
    while store.stats().queue_ops < ops {
        tokio::task::yield_now().await;
    }
}

/// Hands one operation over and holds the writer in its commit, so that what follows shares a batch.
async fn hold_writer(store: &Arc<SqliteStore>, gate: &Gate, tasks: &mut JoinSet<()>) {
    gate.shut();
    let store = Arc::clone(store);
    tasks.spawn(async move {
        let nothing = store.transition_all(vec![no_transition()]).await;
        assert_eq!(nothing.unwrap(), [Applied::Stale]);
    });
    while gate.arrived() == 0 {
        tokio::task::yield_now().await;
    }
}

fn no_transition() -> crate::store::Transition {
    let function = crate::store::FunctionRecord {
        id: crate::model::FunctionId(1),
        name: "nobody".parse().unwrap(),
        settings: crate::model::FunctionSettings::default(),
        active: VersionNumber(1),
        versions: Vec::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    };
    success(&new_execution(&function, 0), Fence::new(1, 1), 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_operation_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    let first = world.accepted(&function, 0).await;
    let mut tasks = JoinSet::new();
    hold_writer(&store, &gate, &mut tasks).await;

    let mut held = JoinSet::new();
    for ms in 1..=20 {
        let mut new = new_execution(&function, ms);
        match ms {
            7 => new.id = first.id,
            13 => new.version = VersionNumber(u64::MAX),
            _ => {}
        }
        let store = Arc::clone(&store);
        held.spawn(async move { (ms, new.id, store.accept(new).await) });
    }
    wait_for_queue(&store, 20).await;
    let fence = world.next_fence();
    store.log_claim(claim(first.id, fence));
    let behind = ended_in_memory(&function, 99, State::Success, RecordMode::Full);
    store.record_ended(behind.clone());
    let commits = store.stats().commits;
    gate.open();
    tasks.join_all().await;
    for (ms, id, accepted) in held.join_all().await {
        if matches!(ms, 7 | 13) {
            assert!(matches!(accepted, Err(Error::Failed(_))), "{accepted:?}");
        } else {
            assert_eq!(accepted.unwrap(), Accepted::New);
            assert!(store.request(id).await.unwrap().is_some());
        }
    }
    assert_eq!(store.stats().batches_isolated, 1);
    assert_eq!(
        store.stats().commits,
        commits + 2,
        "one held, one with the rest"
    );
    let claimed = store.execution(first.id).await.unwrap().unwrap();
    assert_eq!(claimed.execution.state, State::Running { fence });
    assert!(store.request(behind.id).await.unwrap().is_some());
    assert_eq!(store.stats().dropped_records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_not_written_when_its_end_is_in_the_same_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    let mut queued = Vec::new();
    for ms in 0..10 {
        queued.push(world.accepted(&function, ms).await);
    }
    let mut tasks = JoinSet::new();
    hold_writer(&store, &gate, &mut tasks).await;
    let mut held = JoinSet::new();
    let mut fences = Vec::new();
    for new in &queued[..9] {
        let fence = world.next_fence();
        fences.push(fence);
        store.log_claim(claim(new.id, fence));
        let end = success(new, fence, 100);
        let store = Arc::clone(&store);
        held.spawn(async move { store.transition(end).await.unwrap() });
    }
    wait_for_queue(&store, 9).await;
    // A result of an older claim comes late: the newer claim must be there to turn it away.
    let (older, newer) = (world.next_fence(), world.next_fence());
    store.log_claim(claim(queued[9].id, newer));
    let late = success(&queued[9], older, 100);
    let writer = Arc::clone(&store);
    let late = tokio::task::LocalSet::new()
        .run_until(async {
            let late = tokio::task::spawn_local(async move { writer.transition(late).await });
            wait_for_queue(&store, 10).await;
            gate.open();
            late.await.unwrap()
        })
        .await;
    assert_eq!(late.unwrap(), Applied::Stale);
    tasks.join_all().await;
    assert_eq!(held.join_all().await, vec![Applied::Done; 9]);
    assert_eq!(store.stats().claims_superseded, 9);
    for (new, fence) in queued.iter().zip(fences) {
        let record = store.execution(new.id).await.unwrap().unwrap();
        assert_eq!(record.execution.state, State::Success);
        assert_eq!(store.attempts(new.id).await.unwrap()[0].fence, fence);
    }
    let last = store.execution(queued[9].id).await.unwrap().unwrap();
    assert_eq!(last.execution.state, State::Running { fence: newer });
}

#[tokio::test]
async fn work_that_nobody_waits_for_is_committed_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    let fence = world.next_fence();
    store.log_claim(claim(new.id, fence));
    // Nothing else is handed over: only the store's own timer can move it.
    loop {
        let record = store.execution(new.id).await.unwrap().unwrap();
        if record.execution.state == (State::Running { fence }) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let behind = ended_in_memory(&function, 1, State::Success, RecordMode::Auto);
    store.record_ended(behind);
    while store.stats().write_behind_bytes > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_makes_callers_wait_and_never_claims() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let options = Options {
        queue_ops_max: 4,
        // Less than one operation is counted as: each goes in alone.
        queue_bytes_max: 100,
        batch_ops_max: 1,
        claims_max: 3,
        ..options
    };
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    let mut tasks = JoinSet::new();
    hold_writer(&store, &gate, &mut tasks).await;
    let mut held = JoinSet::new();
    for ms in 0..30 {
        let new = new_execution(&function, ms);
        let store = Arc::clone(&store);
        held.spawn(async move { (new.id, store.accept(new).await.unwrap()) });
    }
    for counter in 1..=5 {
        let nobody = ExecutionId::new(Timestamp(0));
        store.log_claim(claim(nobody, Fence::new(1, counter)));
    }
    assert_eq!(store.stats().claims_lost, 2);
    assert_eq!(store.stats().queue_ops, 0, "no room beside the one held");
    gate.open();
    tasks.join_all().await;
    for (id, accepted) in held.join_all().await {
        assert_eq!(accepted, Accepted::New);
        assert!(store.execution(id).await.unwrap().is_some());
    }
    assert_eq!(store.stats().batch_ops_highest, 1);
}

#[tokio::test]
async fn an_operation_that_was_handed_over_is_done_even_if_nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    gate.shut();
    let new = new_execution(&function, 0);
    {
        let accept = store.accept(new.clone());
        tokio::pin!(accept);
        assert!(futures_util::poll!(&mut accept).is_pending());
    }
    // Dropping the store does not wait for the writer, who cannot go on.
    drop((world, store));
    gate.open();
    let store = loop {
        match SqliteStore::open(Options::new(dir.path())) {
            Ok(store) => break store,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(store.execution(new.id).await.unwrap().is_some());
}
