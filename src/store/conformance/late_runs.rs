//! Runs that end after their execution did: what they wrote is kept, and nothing else changes.

use super::world::{
    START, World, attempt, claim, ended, ended_in_memory, failure, logs, success, transition,
};
use crate::execution::{Execution, State, Streamed};
use crate::model::{ExecutionId, Logs, RecordMode};
use crate::store::{Applied, AttemptRecord, Guard, Transition};

async fn added(world: &World, id: ExecutionId, run: AttemptRecord) {
    assert_eq!(world.add_attempt(id, run).await.unwrap(), Applied::Done);
}

pub(crate) async fn adds_the_run_of_what_has_ended_and_changes_nothing_else(mut world: World) {
    let function = world.function("alpha").await;
    let states = [
        State::Success,
        State::Error(failure()),
        State::Timeout(failure()),
        State::Cancelled(failure()),
    ];
    let mut expected = Vec::new();
    for (ms, state) in (0..).zip(states) {
        let new = world.accepted(&function, ms).await;
        let fence = world.claim(new.id).await;
        // As `:complete` does: the end comes from elsewhere, with an output and without a run.
        let end = Transition {
            attempt: None,
            next: ended(&new, state, 7),
            ..success(&new, fence, 7)
        };
        world.done(end.clone()).await;
        let run = AttemptRecord {
            outcome: "interrupted",
            ..attempt(fence)
        };
        added(&world, new.id, run.clone()).await;
        // The first record of a claim stays.
        let again = AttemptRecord {
            outcome: "fault",
            logs: Logs::default(),
            cold_start: false,
            ..attempt(fence)
        };
        added(&world, new.id, again).await;
        expected.push((new.id, end, run));
    }
    for _ in 0..2 {
        for (id, end, run) in &expected {
            let runs = world.attempts(*id).await.unwrap();
            assert_eq!(runs, std::slice::from_ref(run));
            let record = world.execution(*id).await.unwrap().unwrap();
            assert_eq!(record.execution, end.next);
            assert_eq!(record.output, end.output);
            assert_eq!((record.cold_start, record.init_ms), (true, Some(3)));
        }
        assert_eq!(world.live_executions(None, 10).await.unwrap(), []);
        world.reopen().await;
    }
}

pub(crate) async fn adds_an_older_run_to_what_goes_on(world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    let (older, newer) = (world.claim(new.id).await, world.next_fence());
    // As a completion from outside that asks for a retry: back in the queue, and claimed again.
    let queued = Execution {
        state: State::Queued { due: START },
        attempts: 1,
        ..new.execution.clone()
    };
    world
        .done(transition(new.id, Guard::Claim(older), queued))
        .await;
    world.log_claim(claim(new.id, newer));
    world.flush().await.unwrap();
    let before = world.execution(new.id).await.unwrap().unwrap();
    added(&world, new.id, attempt(older)).await;
    let running = world.execution(new.id).await.unwrap().unwrap();
    assert_eq!(running.execution, before.execution);

    let last = AttemptRecord {
        cold_start: false,
        init_ms: None,
        ..attempt(newer)
    };
    let end = Transition {
        attempt: Some(last.clone()),
        ..success(&new, newer, 9)
    };
    world.done(end.clone()).await;
    let oldest = AttemptRecord {
        logs: logs(),
        ..attempt(crate::model::Fence(1))
    };
    added(&world, new.id, oldest.clone()).await;
    let runs = world.attempts(new.id).await.unwrap();
    assert_eq!(runs, [oldest, attempt(older), last]);
    // What it says of its last run is of the last run.
    let record = world.execution(new.id).await.unwrap().unwrap();
    assert_eq!(record.execution, end.next);
    assert_eq!((record.cold_start, record.init_ms), (false, None));
}

pub(crate) async fn adds_a_run_to_what_was_only_just_recorded(mut world: World) {
    let function = world.function("alpha").await;
    let mut expected = Vec::new();
    for ms in 0..20 {
        let state = State::Timeout(failure());
        let mut gone = ended_in_memory(&function, ms, state, RecordMode::Full);
        let run = gone.attempts.pop().unwrap();
        world.record_ended(gone.clone());
        added(&world, gone.id, run.clone()).await;
        expected.push((gone, run));
    }
    for _ in 0..2 {
        for (gone, run) in &expected {
            let runs = world.attempts(gone.id).await.unwrap();
            assert_eq!(runs, std::slice::from_ref(run));
            let record = world.execution(gone.id).await.unwrap().unwrap();
            assert_eq!(record.execution, gone.execution);
            assert!(record.cold_start);
        }
        world.reopen().await;
    }
}

pub(crate) async fn adds_a_run_to_an_exchange(mut world: World) {
    let function = world.function("alpha").await;
    let mut expected = Vec::new();
    for ms in 0..2 {
        let mut gone = ended_in_memory(&function, ms, State::Timeout(failure()), RecordMode::Auto);
        let run = gone.attempts.pop().unwrap();
        gone.streamed = Some(Streamed {
            input_bytes: 3,
            output_bytes: 4,
        });
        world.record_ended(gone.clone());
        if ms == 0 {
            world.reopen().await;
        }
        added(&world, gone.id, run.clone()).await;
        expected.push((gone.id, run));
    }
    for _ in 0..2 {
        for (id, run) in &expected {
            let runs = world.attempts(*id).await.unwrap();
            assert_eq!(runs, std::slice::from_ref(run));
            assert_eq!(world.request(*id).await.unwrap(), None);
            let record = world.execution(*id).await.unwrap().unwrap();
            assert!(record.cold_start && !record.input_kept);
            assert_eq!((record.input_bytes, record.output_bytes), (3, Some(4)));
        }
        world.reopen().await;
    }
}

pub(crate) async fn adds_no_run_to_a_summary_or_to_nobody(world: World) {
    let function = world.function("alpha").await;
    let state = State::Timeout(failure());
    let summary = ended_in_memory(&function, 1, state, RecordMode::Summary);
    let fence = world.next_fence();
    world.record_ended(summary.clone());
    for id in [summary.id, ExecutionId::new(START)] {
        let late = world.add_attempt(id, attempt(fence)).await;
        assert_eq!(late.unwrap(), Applied::Stale);
    }
    world.flush().await.unwrap();
    let runs = world.attempts(summary.id).await.unwrap();
    assert!(runs.iter().all(|run| run.fence != fence), "{runs:?}");
}
