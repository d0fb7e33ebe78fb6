//! The runtime config: revisions, restarts, and who wins.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use super::support::*;
use crate::model::{RuntimeConfig, RuntimeSetting};
use crate::scheduler::RuntimeConfigError;

fn depth(depth: u32) -> Vec<RuntimeSetting> {
    vec![RuntimeSetting::SyncQueueMaxDepth(Some(depth))]
}

#[tokio::test(start_paused = true)]
async fn every_change_raises_the_revision_and_survives_a_restart() {
    let world = World::new(background()).await;
    let start = RuntimeConfig::default();
    assert_eq!(world.scheduler.runtime_config(), (0, start));
    let change = world.scheduler.change_runtime_config(0, depth(7));
    let change = change.await.unwrap();
    assert_eq!((change.revision, change.applied_at), (1, START));
    assert!(change.warnings.is_empty());
    let wait = Duration::from_millis(500);
    let shorter = vec![RuntimeSetting::SyncQueueMaxQueueWait(Some(wait))];
    let second = world.scheduler.change_runtime_config(1, shorter).await;
    let second = second.unwrap();
    assert_ne!(second.change_id, change.change_id);
    let expected = RuntimeConfig {
        sync_queue_max_depth: 7,
        sync_queue_max_queue_wait: wait,
        sync_queue_max_estimated_wait: wait,
        ..start
    };
    assert_eq!(world.scheduler.runtime_config(), (2, expected));

    // What nobody changed follows the flags of the next start.
    let mut options = background();
    options.runtime_config.rate_max_per_second = 55;
    options.runtime_config.sync_queue_max_depth = 66;
    let world = world.restart(options).await;
    let expected = RuntimeConfig {
        rate_max_per_second: 55,
        ..expected
    };
    assert_eq!(world.scheduler.runtime_config(), (2, expected));
    let back = vec![RuntimeSetting::SyncQueueMaxDepth(None)];
    let change = world.scheduler.change_runtime_config(2, back).await;
    assert_eq!(change.unwrap().config.sync_queue_max_depth, 66);
}

#[tokio::test(start_paused = true)]
async fn of_those_who_saw_the_same_revision_one_wins() {
    let world = World::new(background()).await;
    let changes = (1..=5).map(|n| world.scheduler.change_runtime_config(0, depth(n)));
    let results = join_all(changes).await;
    let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    for error in refused {
        let error = error.unwrap_err();
        assert!(
            matches!(error, RuntimeConfigError::Conflict { current: 1 }),
            "{error}"
        );
    }
    let winner = made.into_iter().next().unwrap().unwrap();
    assert_eq!(world.scheduler.runtime_config(), (1, winner.config));
    let late = world.scheduler.change_runtime_config(0, depth(9)).await;
    assert!(matches!(
        late,
        Err(RuntimeConfigError::Conflict { current: 1 })
    ));
}

#[tokio::test(start_paused = true)]
async fn values_are_judged_before_the_revision_and_change_nothing() {
    let world = World::new(background()).await;
    let bad = vec![
        RuntimeSetting::RateMaxPerSecond(Some(0)),
        RuntimeSetting::SyncQueueMaxEstimatedWait(Some(Duration::from_secs(9))),
        RuntimeSetting::SyncQueueMaxQueueWait(Some(Duration::from_secs(8))),
    ];
    let complaints = world.scheduler.check_runtime_config(&bad).unwrap_err();
    assert_eq!(complaints.len(), 2);
    let refused = world.scheduler.change_runtime_config(99, bad).await;
    let Err(RuntimeConfigError::Invalid(said)) = refused else {
        panic!("nonsense was taken: {refused:?}");
    };
    assert_eq!(said, complaints);
    assert_eq!(world.scheduler.runtime_config().0, 0);
    let world = world.restart(background()).await;
    assert_eq!(world.scheduler.runtime_config().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_kept_is_not_made() {
    let world = World::new(background()).await;
    for panics in [false, true] {
        let orders = &world.ground.orders;
        let failing = match panics {
            true => &orders.panicking,
            false => &orders.failing,
        };
        failing.store(1, Ordering::SeqCst);
        let refused = world.scheduler.change_runtime_config(0, depth(7)).await;
        assert!(
            matches!(refused, Err(RuntimeConfigError::Store(_))),
            "{refused:?}"
        );
        let start = RuntimeConfig::default();
        assert_eq!(world.scheduler.runtime_config(), (0, start));
    }
    let made = world.scheduler.change_runtime_config(0, depth(7)).await;
    assert_eq!(made.unwrap().revision, 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_not_in_force_before_it_is_kept_and_outlives_who_asked_for_it() {
    let world = World::new(background()).await;
    world.ground.orders.stalled.send_replace(true);
    let scheduler = world.scheduler.clone();
    let mut change = Box::pin(scheduler.change_runtime_config(0, depth(7)));
    assert!(futures_util::poll!(&mut change).is_pending());
    world.pass(20).await;
    assert_eq!(world.scheduler.runtime_config().0, 0);
    drop(change);
    world.ground.orders.stalled.send_replace(false);
    world.pass(20).await;
    assert_eq!(world.scheduler.runtime_config().0, 1);
}

#[tokio::test(start_paused = true)]
async fn values_that_are_there_already_make_no_revision() {
    let world = World::new(background()).await;
    world
        .scheduler
        .change_runtime_config(0, depth(7))
        .await
        .unwrap();
    for same in [depth(7), Vec::new()] {
        let change = world.scheduler.change_runtime_config(1, same).await;
        let change = change.unwrap();
        assert_eq!(change.revision, 1);
        assert!(change.warnings[0].contains("nothing was changed"));
    }
    // What the flags say already is a change all the same: from now on it stays so.
    let pinned = vec![RuntimeSetting::SyncQueueEnabled(Some(true))];
    let change = world.scheduler.change_runtime_config(1, pinned).await;
    assert_eq!(change.unwrap().revision, 2);
}
