//! What was changed of the runtime config.

use std::time::Duration;

use super::World;
use crate::model::{RuntimeOverrides, RuntimeRevision, Timestamp};
use crate::store::Applied;

fn revision(number: u64) -> RuntimeRevision {
    RuntimeRevision {
        number,
        changed_at: Timestamp(1_000 + i64::try_from(number).unwrap()),
        overrides: RuntimeOverrides {
            rate_max_per_second: Some(5),
            sync_queue_enabled: Some(false),
            sync_queue_max_queue_wait: Some(Duration::from_nanos(1_500_000)),
            ..RuntimeOverrides::default()
        },
    }
}

pub(crate) async fn has_no_revision_at_first(world: World) {
    assert_eq!(world.runtime_config().await.unwrap(), None);
}

pub(crate) async fn keeps_the_latest_revision_over_a_restart(mut world: World) {
    for number in 1..=3 {
        let applied = world.set_runtime_config(number - 1, revision(number));
        assert_eq!(applied.await.unwrap(), Applied::Done);
        let standing = world.runtime_config().await.unwrap();
        assert_eq!(standing, Some(revision(number)));
    }
    world.reopen().await;
    let standing = world.runtime_config().await.unwrap();
    assert_eq!(standing, Some(revision(3)));
}

pub(crate) async fn turns_away_a_change_of_another_revision(world: World) {
    for expected in [1, 7] {
        let applied = world.set_runtime_config(expected, revision(9)).await;
        assert_eq!(applied.unwrap(), Applied::Stale);
    }
    assert_eq!(world.runtime_config().await.unwrap(), None);
    world.set_runtime_config(0, revision(1)).await.unwrap();
    let again = world.set_runtime_config(0, revision(1)).await;
    assert_eq!(again.unwrap(), Applied::Stale);
    assert_eq!(world.runtime_config().await.unwrap(), Some(revision(1)));
}

pub(crate) async fn lets_one_of_many_changes_through(world: World) {
    let changes = (1..=8).map(|n| world.set_runtime_config(0, revision(n)));
    let applied = futures_util::future::join_all(changes).await;
    let done = applied
        .into_iter()
        .filter(|one| *one.as_ref().unwrap() == Applied::Done);
    assert_eq!(done.count(), 1);
}
