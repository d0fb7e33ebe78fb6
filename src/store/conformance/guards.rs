//! The second wall: what must be true of a row for a transition to be written.

use super::world::{
    START, World, attempt, claim, ended, failure, new_execution, output, success, transition,
};
use crate::execution::{Execution, State};
use crate::model::VersionNumber;
use crate::store::{AttemptRecord, Guard, Transition};

pub(crate) async fn lets_the_holder_of_the_latest_claim_finish(world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    world.claim(new.id).await;
    let latest = world.claim(new.id).await;
    world.done(success(&new, latest, 1)).await;
}

pub(crate) async fn turns_an_older_claim_away(mut world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    let older = world.claim(new.id).await;
    let newer = world.claim(new.id).await;
    world.stale(success(&new, older, 1)).await;
    world.reopen().await;
    world.stale(success(&new, older, 1)).await;
    let record = world.execution(new.id).await.unwrap().unwrap();
    assert_eq!(record.execution.state, State::Running { fence: newer });
    assert_eq!(record.output, None);
    assert_eq!(world.attempts(new.id).await.unwrap(), []);

    // A claim counts as logged once a transition has been written under it.
    let third = world.next_fence();
    let retry = transition(new.id, Guard::Claim(third), new.execution.clone());
    world.done(retry).await;
    world.stale(success(&new, newer, 2)).await;
}

pub(crate) async fn never_logs_an_older_claim_or_one_of_an_ended_execution(world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    let older = world.next_fence();
    let newer = world.claim(new.id).await;
    world.log_claim(claim(new.id, older));
    world.flush().await.unwrap();
    let record = world.execution(new.id).await.unwrap().unwrap();
    assert_eq!(record.execution.state, State::Running { fence: newer });

    let end = success(&new, newer, 1);
    world.done(end.clone()).await;
    world.claim(new.id).await;
    let record = world.execution(new.id).await.unwrap().unwrap();
    assert_eq!(record.execution, end.next);

    // Nobody knows this one.
    let unknown = new_execution(&function, 1);
    world.claim(unknown.id).await;
    assert_eq!(world.execution(unknown.id).await.unwrap(), None);
}

pub(crate) async fn changes_nothing_that_has_ended(world: World) {
    let function = world.function("alpha").await;
    let states = [
        State::Success,
        State::Error(failure()),
        State::Timeout(failure()),
        State::Cancelled(failure()),
    ];
    for (ms, state) in (0..).zip(states) {
        let new = world.accepted(&function, ms).await;
        let first = ended(&new, state, ms + 1);
        world
            .done(transition(new.id, Guard::Live, first.clone()))
            .await;
        let late = success(&new, world.next_fence(), ms + 2);
        world.stale(late.clone()).await;
        world
            .stale(Transition {
                guard: Guard::Live,
                ..late
            })
            .await;
        let record = world.execution(new.id).await.unwrap().unwrap();
        assert_eq!(record.execution, first);
        assert_eq!(record.output, None);
        assert_eq!(world.attempts(new.id).await.unwrap(), []);
    }
    let unknown = new_execution(&function, 9);
    world.stale(success(&unknown, world.next_fence(), 1)).await;
    let live = ended(&unknown, State::Success, 1);
    world.stale(transition(unknown.id, Guard::Live, live)).await;
}

pub(crate) async fn redrives_errors_and_timeouts_only(world: World) {
    let function = world.function("alpha").await;
    let cases = [
        (None, false),
        (Some(State::Success), false),
        (Some(State::Error(failure())), true),
        (Some(State::Timeout(failure())), true),
        (Some(State::Cancelled(failure())), false),
    ];
    for (ms, (state, redrivable)) in (0..).zip(cases) {
        let new = world.accepted(&function, ms).await;
        if let Some(state) = state {
            let next = ended(&new, state, ms + 1);
            world.done(transition(new.id, Guard::Live, next)).await;
        }
        let redrive = transition(new.id, Guard::Redrivable, new.execution.clone());
        if redrivable {
            world.done(redrive.clone()).await;
        }
        // Also the second time: it is queued by then.
        world.stale(redrive).await;
    }
    let unknown = new_execution(&function, 9);
    let redrive = transition(unknown.id, Guard::Redrivable, unknown.execution);
    world.stale(redrive).await;
}

pub(crate) async fn forgets_the_first_life_when_redriven(mut world: World) {
    let function = world.function("alpha").await;
    let mut new = new_execution(&function, 0);
    new.deadline = Some(START.plus_ms(10));
    world.accept(new.clone()).await.unwrap();
    let fence = world.claim(new.id).await;
    let run = AttemptRecord {
        outcome: "error",
        ..attempt(fence)
    };
    let error = Transition {
        output: Some(output()),
        attempt: Some(run.clone()),
        ..transition(
            new.id,
            Guard::Claim(fence),
            ended(&new, State::Error(failure()), 1),
        )
    };
    world.done(error).await;

    let queued = Execution {
        state: State::Queued {
            due: START.plus_ms(77),
        },
        ..new.execution.clone()
    };
    let redrive = Transition {
        version: Some(VersionNumber(5)),
        ..transition(new.id, Guard::Redrivable, queued.clone())
    };
    world.done(redrive).await;
    world.reopen().await;
    let record = world.execution(new.id).await.unwrap().unwrap();
    assert_eq!(record.execution, queued);
    assert_eq!(record.version, VersionNumber(5));
    assert_eq!((record.output, record.output_bytes), (None, None));
    assert_eq!((record.cold_start, record.init_ms), (false, None));
    assert_eq!(world.attempts(new.id).await.unwrap(), [run]);
    let live = world.live_executions(None, 10).await.unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].deadline, None, "nobody waits for a redrive");

    // The claims of the first life are older than those of the second.
    world
        .stale(success(&new, crate::model::Fence(fence.0 - 1), 2))
        .await;
    let second = world.claim(new.id).await;
    world.done(success(&new, second, 100)).await;
    assert_eq!(world.attempts(new.id).await.unwrap().len(), 2);
}

pub(crate) async fn keeps_claims_in_order_with_transitions(world: World) {
    let function = world.function("alpha").await;
    for round in 0..50 {
        let new = world.accepted(&function, round).await;
        let (first, second) = (world.next_fence(), world.next_fence());
        // Handed over in one go, so that they share a batch more often than not.
        world.log_claim(claim(new.id, first));
        let retry = transition(new.id, Guard::Claim(first), new.execution.clone());
        let retried = world.transition(retry);
        let retried = async {
            let applied = retried.await;
            world.log_claim(claim(new.id, second));
            applied
        };
        assert_eq!(retried.await.unwrap(), crate::store::Applied::Done);
        world.stale(success(&new, first, round)).await;
        let record = world.execution(new.id).await.unwrap().unwrap();
        assert_eq!(record.execution.state, State::Running { fence: second });
        world.done(success(&new, second, round)).await;
    }
}
