//! Retention: what is old enough goes, in small steps.

use super::world::{START, World, attempt, keyed, new_execution, success, transition};
use crate::model::Timestamp;
use crate::store::{Accepted, Filter, Guard, Retention, Transition};

fn older_than(ms: u64, rows_max: u32) -> Retention {
    Retention {
        executions_before: START.plus_ms(ms),
        keys_before: Timestamp(0),
        rows_max,
    }
}

pub(crate) async fn removes_what_is_old_with_all_that_belongs_to_it(world: World) {
    let function = world.function("alpha").await;
    let old = world.accepted(&function, 0).await;
    let young = world.accepted(&function, 1).await;
    let live = world.accepted(&function, 2).await;
    world.done(success(&old, world.next_fence(), 100)).await;
    world.done(success(&young, world.next_fence(), 200)).await;

    assert_eq!(world.purge(older_than(100, 1_000)).await.unwrap(), 0);
    // The execution and its one attempt.
    assert_eq!(world.purge(older_than(101, 1_000)).await.unwrap(), 2);
    assert_eq!(world.execution(old.id).await.unwrap(), None);
    assert_eq!(world.request(old.id).await.unwrap(), None);
    assert_eq!(world.attempts(old.id).await.unwrap(), []);
    let kept = world.execution(young.id).await.unwrap().unwrap();
    assert!(kept.output.is_some());

    world.purge(older_than(1_000_000_000, 1_000)).await.unwrap();
    assert_eq!(world.execution(young.id).await.unwrap(), None);
    let kept = world.execution(live.id).await.unwrap();
    assert!(kept.is_some(), "what has not ended is never old");
}

pub(crate) async fn removes_no_more_than_a_step_at_once(world: World) {
    let function = world.function("alpha").await;
    let busy = world.accepted(&function, 0).await;
    for _ in 0..7 {
        let fence = world.next_fence();
        let again = Transition {
            attempt: Some(attempt(fence)),
            ..transition(busy.id, Guard::Claim(fence), busy.execution.clone())
        };
        world.done(again).await;
    }
    world.done(success(&busy, world.next_fence(), 1)).await;
    for ms in 1..5 {
        let new = world.accepted(&function, ms).await;
        world.done(success(&new, world.next_fence(), ms + 1)).await;
    }
    assert_eq!(world.purge(older_than(1_000, 0)).await.unwrap(), 0);
    // One with eight attempts, four with one: seventeen rows.
    let mut steps = Vec::new();
    loop {
        let gone = world.purge(older_than(1_000, 3)).await.unwrap();
        steps.push(gone);
        if gone == 0 {
            break;
        }
    }
    assert_eq!(steps.iter().sum::<u32>(), 17);
    assert!(steps.iter().all(|gone| *gone <= 3), "{steps:?}");
    let left = world.executions(&Filter::default(), 10).await.unwrap();
    assert_eq!(left, []);
}

pub(crate) async fn removes_expired_keys(world: World) {
    let function = world.function("alpha").await;
    for (key, ttl_ms) in [("short", 10), ("long", 1_000)] {
        let new = keyed(new_execution(&function, 0), key, ttl_ms);
        assert_eq!(world.accept(new).await.unwrap(), Accepted::New);
    }
    let keys_before = |ms| Retention {
        executions_before: Timestamp(0),
        keys_before: START.plus_ms(ms),
        rows_max: 100,
    };
    assert_eq!(world.purge(keys_before(10)).await.unwrap(), 0);
    assert_eq!(world.purge(keys_before(11)).await.unwrap(), 1);
    assert_eq!(world.purge(keys_before(11)).await.unwrap(), 0);
    let long = "long".parse().unwrap();
    let holder = world.key_holder(function.id, &long, START).await.unwrap();
    assert!(holder.is_some());
}
