//! How far the writer is behind, so that one that hangs can be told from one that has nothing to do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::poll;
use tokio::task::JoinSet;

use super::gate::Gate;
use super::world_of;
use crate::model::Timestamp;
use crate::store::conformance::world::{attempt, new_execution, success};
use crate::store::sqlite::Options;
use crate::store::{Accepted, Applied, Guard, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_hangs_is_further_and_further_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    world.flush().await.unwrap();
    while store.stats().writing_us > 0 {
        tokio::task::yield_now().await;
    }

    gate.shut();
    let (held, new) = (Arc::clone(&store), new_execution(&function, 0));
    let mut accepting = JoinSet::new();
    accepting.spawn(async move { held.accept(new).await.unwrap() });
    let wanted = Duration::from_millis(20).as_micros();
    while u128::from(store.stats().writing_us) < wanted {
        tokio::task::yield_now().await;
    }
    gate.open();
    accepting.join_next().await.unwrap().unwrap();
    while store.stats().writing_us > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_run_travels_with_others_and_is_answered_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    gate.shut();
    gate.open();
    // Nobody else writes: it is committed when its time has come.
    let fence = world.next_fence();
    world.add_attempt(new.id, attempt(fence)).await.unwrap();
    assert_eq!(gate.arrived(), 1);
    assert_eq!(store.attempts(new.id).await.unwrap(), [attempt(fence)]);
    assert_eq!(store.stats().queue_ops, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_ended_with_shares_the_commit_of_a_later_request() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options {
        company_wait: Duration::from_secs(3600),
        ..Options::new(dir.path())
    });
    let function = world.function("alpha").await;
    let first = world.accepted(&function, 0).await;
    let commits = store.stats().commits;
    let mut end = store.transition(success(&first, world.next_fence(), 100));
    assert!(poll!(&mut end).is_pending());
    // Long enough for a writer that does not wait.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(poll!(&mut end).is_pending());
    // Two requests of a lone client are answered without it; more it does not wait for.
    for number in 1..=2 {
        let next = new_execution(&function, number);
        assert_eq!(store.accept(next).await.unwrap(), Accepted::New);
        assert!(poll!(&mut end).is_pending(), "{number}");
    }
    let last = new_execution(&function, 3);
    let id = last.id;
    assert_eq!(store.accept(last).await.unwrap(), Accepted::New);
    assert_eq!(end.await.unwrap(), Applied::Done);
    assert_eq!(store.stats().commits, commits + 3);

    // What a person asks for waits for nobody.
    let mut cancel = success(&new_execution(&function, 3), world.next_fence(), 100);
    cancel.id = id;
    cancel.guard = Guard::Live;
    assert_eq!(store.transition(cancel).await.unwrap(), Applied::Done);

    // Nor does the end of a run whose caller waits for it: that one cannot ask for more.
    let mut keyed = new_execution(&function, 4);
    keyed.deadline = Some(Timestamp(60_000));
    assert_eq!(store.accept(keyed.clone()).await.unwrap(), Accepted::New);
    let end = store.transition(success(&keyed, world.next_fence(), 100));
    assert_eq!(end.await.unwrap(), Applied::Done);

    // Nor does what is there when the store closes.
    let third = world.accepted(&function, 5).await;
    let mut end = store.transition(success(&third, world.next_fence(), 100));
    assert!(poll!(&mut end).is_pending());
    store.close().await.unwrap();
    assert_eq!(end.await.unwrap(), Applied::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_passes_over_a_few_ends_of_runs_and_no_more() {
    for (ends, passes) in [(3, true), (4, false)] {
        let dir = tempfile::tempdir().unwrap();
        let (world, store) = world_of(Options {
            company_wait: Duration::from_secs(3600),
            ..Options::new(dir.path())
        });
        let function = world.function("alpha").await;
        let mut accepted = Vec::new();
        for number in 0..ends {
            accepted.push(world.accepted(&function, number).await);
        }
        let mut ended: Vec<_> = accepted
            .iter()
            .map(|new| store.transition(success(new, world.next_fence(), 100)))
            .collect();
        for end in &mut ended {
            assert!(poll!(end).is_pending());
        }
        world.accepted(&function, 10).await;
        for end in &mut ended {
            assert_eq!(poll!(end).is_pending(), passes, "{ends}");
        }
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_passed_over_where_many_clients_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (options, gate) = Gate::options(dir.path());
    let (world, store) = world_of(options);
    let function = world.function("alpha").await;
    let first = world.accepted(&function, 0).await;
    world.flush().await.unwrap();
    gate.shut();
    // The first of these is on its way to the disk while the others gather behind it.
    let mut alone = store.accept(new_execution(&function, 1));
    assert!(poll!(&mut alone).is_pending());
    gate.wait_for_arrival();
    let mut end = store.transition(success(&first, world.next_fence(), 100));
    assert!(poll!(&mut end).is_pending());
    let mut others = Vec::new();
    for number in 2..5 {
        let mut accept = store.accept(new_execution(&function, number));
        assert!(poll!(&mut accept).is_pending());
        others.push(accept);
    }
    let commits = store.stats().commits;
    gate.open();
    assert_eq!(alone.await.unwrap(), Accepted::New);
    for accept in others {
        assert_eq!(accept.await.unwrap(), Accepted::New);
    }
    assert_eq!(end.await.unwrap(), Applied::Done);
    assert_eq!(store.stats().commits, commits + 2);
}
