//! Restarts and the end.

use super::world::{
    START, World, attempt, claim, ended_in_memory, failure, new_execution, success, version,
};
use crate::execution::State;
use crate::model::{FunctionSettings, RecordMode, Timestamp, VersionNumber};
use crate::store::{Error, Filter, Retention};

pub(crate) async fn grows_the_boot_number(mut world: World) {
    let mut boots = vec![world.boot()];
    for _ in 0..3 {
        world.reopen().await;
        boots.push(world.boot());
    }
    assert!(boots.is_sorted_by(|a, b| a < b), "{boots:?}");
    assert!(boots[0] > 0);
}

pub(crate) async fn finds_running_work_after_a_restart(mut world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    let fence = world.next_fence();
    // Nobody waits for it, and the close takes it along all the same.
    world.log_claim(claim(new.id, fence));
    world.reopen().await;
    let live = world.live_executions(None, 10).await.unwrap();
    assert_eq!(live[0].execution.state, State::Running { fence });
    let later = world.next_fence();
    assert!(later > fence, "claims of a later start are later");
    world.done(success(&new, later, 1)).await;
}

pub(crate) async fn refuses_everything_once_closed(world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    world.close().await.unwrap();

    let settings = FunctionSettings::default();
    let is_closed = |error: Error| assert!(matches!(error, Error::Closed), "{error}");
    is_closed(world.functions().await.unwrap_err());
    let made = world.create_function(&function.name, &settings, version(1));
    is_closed(made.await.unwrap_err());
    let added = world.add_version(function.id, &settings, version(2));
    is_closed(added.await.unwrap_err());
    let set = world.set_function(function.id, &settings, VersionNumber(1), START);
    is_closed(set.await.unwrap_err());
    is_closed(world.delete_function(function.id).await.unwrap_err());
    let another = new_execution(&function, 1);
    is_closed(world.accept(another).await.unwrap_err());
    let key = "key".parse().unwrap();
    let holder = world.key_holder(function.id, &key, START);
    is_closed(holder.await.unwrap_err());
    let end = success(&new, world.next_fence(), 1);
    is_closed(world.transition(end.clone()).await.unwrap_err());
    is_closed(world.transition_all(vec![end]).await.unwrap_err());
    let late = world.add_attempt(new.id, attempt(world.next_fence()));
    is_closed(late.await.unwrap_err());
    is_closed(world.execution(new.id).await.unwrap_err());
    let all = Filter::default();
    let list = world.executions(&all, 1);
    is_closed(list.await.unwrap_err());
    is_closed(world.request(new.id).await.unwrap_err());
    is_closed(world.attempts(new.id).await.unwrap_err());
    is_closed(world.live_executions(None, 1).await.unwrap_err());
    let old = Retention {
        executions_before: Timestamp(0),
        keys_before: Timestamp(0),
        rows_max: 1,
    };
    is_closed(world.purge(old).await.unwrap_err());
    is_closed(world.flush().await.unwrap_err());
    is_closed(world.close().await.unwrap_err());

    // These cannot answer; they must not wait or panic.
    world.log_claim(claim(new.id, world.next_fence()));
    let late = ended_in_memory(&function, 2, State::Error(failure()), RecordMode::Auto);
    world.record_ended(late);
    assert_eq!(world.poisoned(), None);
}
