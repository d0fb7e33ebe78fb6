//! What is written behind: executions that lived in memory.

use super::world::{World, attempt, ended_in_memory, failure, transition};
use crate::execution::{Execution, State, Streamed};
use crate::model::{Fence, Logs, RecordMode};
use crate::store::{AttemptRecord, Filter, Guard};

pub(crate) async fn sees_an_ended_execution_at_once(world: World) {
    let function = world.function("alpha").await;
    for ms in 0..200 {
        let ended = ended_in_memory(&function, ms, State::Success, RecordMode::Full);
        world.record_ended(ended.clone());
        let record = world.execution(ended.id).await.unwrap();
        let record = record.expect("no gap between buffer and disk");
        assert_eq!(record.execution, ended.execution);
        assert_eq!(record.output, ended.output);
        let request = world.request(ended.id).await.unwrap();
        assert_eq!(request.as_ref(), Some(&*ended.request));
        assert_eq!(world.attempts(ended.id).await.unwrap(), ended.attempts);
    }
}

pub(crate) async fn keeps_an_ended_execution(mut world: World) {
    let function = world.function("alpha").await;
    let ended = ended_in_memory(&function, 0, State::Error(failure()), RecordMode::Auto);
    world.record_ended(ended.clone());
    let before = world.execution(ended.id).await.unwrap().unwrap();
    world.flush().await.unwrap();
    assert_eq!(world.execution(ended.id).await.unwrap().unwrap(), before);
    world.reopen().await;
    assert_eq!(world.execution(ended.id).await.unwrap().unwrap(), before);
    assert_eq!(before.execution, ended.execution);
    assert_eq!(before.function, ended.function);
    assert_eq!(before.output, ended.output);
    assert!(before.input_kept && before.cold_start);
    assert_eq!(before.init_ms, Some(3));
    assert_eq!(before.trace_id, ended.request.trace_id);
    assert_eq!(world.attempts(ended.id).await.unwrap(), ended.attempts);
    let request = world.request(ended.id).await.unwrap();
    assert_eq!(request.as_ref(), Some(&*ended.request));
    assert_eq!(world.live_executions(None, 10).await.unwrap(), []);
}

pub(crate) async fn keeps_a_summary_without_bodies(mut world: World) {
    let function = world.function("alpha").await;
    let ended = ended_in_memory(&function, 0, State::Timeout(failure()), RecordMode::Summary);
    world.record_ended(ended.clone());
    for _ in 0..2 {
        let record = world.execution(ended.id).await.unwrap().unwrap();
        assert_eq!(record.execution, ended.execution);
        assert_eq!(record.output, None);
        assert_eq!(record.output_bytes, Some(5));
        let input_bytes = u64::try_from(ended.request.input.body.len()).unwrap();
        assert_eq!(record.input_bytes, input_bytes);
        assert!(!record.input_kept);
        assert_eq!(record.trace_id, ended.request.trace_id);
        assert_eq!(world.request(ended.id).await.unwrap(), None);
        assert_eq!(world.attempts(ended.id).await.unwrap(), []);
        world.reopen().await;
    }
}

/// Of one whose caller spoke with the function, whatever it is that the spec keeps of others.
pub(crate) async fn keeps_sizes_of_an_exchange_and_runs_that_say_something(mut world: World) {
    let function = world.function("alpha").await;
    let mut expected = Vec::new();
    let modes = [RecordMode::Auto, RecordMode::Full, RecordMode::Summary];
    for (ms, mode) in (0..).zip(modes) {
        let mut ended = ended_in_memory(&function, ms, State::Success, mode);
        ended.streamed = Some(Streamed {
            input_bytes: 5_000_000_000,
            output_bytes: 6_000_000_000,
        });
        let mut runs = Vec::new();
        if mode != RecordMode::Summary {
            runs.clone_from(&ended.attempts);
        }
        // One that went well, wrote nothing and found everything ready says nothing.
        ended.attempts.insert(
            0,
            AttemptRecord {
                failure: None,
                logs: Logs::default(),
                cold_start: false,
                ..attempt(Fence(1))
            },
        );
        world.record_ended(ended.clone());
        expected.push((ended, runs));
    }
    for _ in 0..2 {
        for (ended, runs) in &expected {
            let record = world.execution(ended.id).await.unwrap().unwrap();
            assert_eq!(record.execution, ended.execution);
            assert_eq!((&record.output, record.input_kept), (&None, false));
            assert_eq!(record.input_bytes, 5_000_000_000);
            assert_eq!(record.output_bytes, Some(6_000_000_000));
            assert_eq!(record.trace_id, ended.request.trace_id);
            assert_eq!(world.request(ended.id).await.unwrap(), None);
            assert_eq!(world.attempts(ended.id).await.unwrap(), *runs);
        }
        world.reopen().await;
    }
}

pub(crate) async fn lists_what_was_recorded_before(world: World) {
    let function = world.function("alpha").await;
    for ms in 0..50 {
        let ended = ended_in_memory(&function, ms, State::Success, RecordMode::Auto);
        world.record_ended(ended.clone());
        let page = world.executions(&Filter::default(), 1).await.unwrap();
        assert_eq!(page[0].id, ended.id);
    }
}

pub(crate) async fn redrives_what_was_only_just_recorded(world: World) {
    let function = world.function("alpha").await;
    let ended = ended_in_memory(&function, 0, State::Error(failure()), RecordMode::Full);
    world.record_ended(ended.clone());
    let queued = Execution::queued(ended.execution.created_at);
    let redrive = transition(ended.id, Guard::Redrivable, queued.clone());
    world.done(redrive).await;
    let record = world.execution(ended.id).await.unwrap().unwrap();
    assert_eq!(record.execution, queued);
    assert!(world.request(ended.id).await.unwrap().is_some());
}
