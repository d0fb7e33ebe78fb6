//! Executions: accepted, run, ended; their payloads, attempts and logs.

use tokio::task::JoinSet;

use super::world::{
    START, World, attempt, ended, failure, new_execution, output, success, transition,
};
use crate::execution::{Execution, State};
use crate::model::{
    ContentType, Encoding, ExecutionId, Fence, FunctionId, LogLine, LogStream, Logs, Output,
};
use crate::store::{Accepted, Applied, AttemptRecord, Error, Guard, Transition};

pub(crate) async fn keeps_what_was_accepted(mut world: World) {
    let function = world.function("alpha").await;
    let mut new = new_execution(&function, 0);
    new.deadline = Some(START.plus_ms(30_000));
    let request = std::sync::Arc::make_mut(&mut new.request);
    request.parent = Some(ExecutionId::new(START));
    request.input.content_type = ContentType("application/octet-stream".into());
    request.input.body = (0..=255).cycle().take(100_000).collect::<Vec<u8>>().into();
    assert_eq!(world.accept(new.clone()).await.unwrap(), Accepted::New);
    world.reopen().await;

    let record = world.execution(new.id).await.unwrap().unwrap();
    assert_eq!(record.execution, new.execution);
    assert_eq!(record.function, function.name);
    assert_eq!(record.function_id, function.id);
    assert_eq!(record.version, function.active);
    assert_eq!(record.input_bytes, 100_000);
    assert!(record.input_kept);
    assert_eq!((record.output, record.output_bytes), (None, None));
    assert_eq!(record.trace_id, new.request.trace_id);
    assert_eq!(record.parent, new.request.parent);
    assert_eq!(
        world.request(new.id).await.unwrap(),
        Some((*new.request).clone())
    );
    assert_eq!(world.attempts(new.id).await.unwrap(), []);

    let live = world.live_executions(None, 10).await.unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].id, new.id);
    assert_eq!(live[0].execution, new.execution);
    assert_eq!(live[0].deadline, new.deadline);
    assert_eq!(live[0].input_bytes, 100_000);
    assert_eq!(live[0].trace_id, new.request.trace_id);

    let unknown = ExecutionId::new(START);
    assert_eq!(world.execution(unknown).await.unwrap(), None);
    assert_eq!(world.request(unknown).await.unwrap(), None);
    assert_eq!(world.attempts(unknown).await.unwrap(), []);
}

pub(crate) async fn keeps_a_whole_life(mut world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    let fence = world.claim(new.id).await;
    let running = world.execution(new.id).await.unwrap().unwrap();
    assert_eq!(running.execution.state, State::Running { fence });
    assert_eq!(running.execution.attempts, 1);
    assert_eq!(running.execution.started_at, Some(START.plus_ms(5_000)));

    let end = success(&new, fence, 5_010);
    world.done(end.clone()).await;
    for _ in 0..2 {
        let record = world.execution(new.id).await.unwrap().unwrap();
        assert_eq!(record.execution, end.next);
        assert_eq!(record.output, end.output);
        assert_eq!(record.output_bytes, Some(5));
        assert_eq!((record.cold_start, record.init_ms), (true, Some(3)));
        assert!(record.input_kept, "a redrive may want it");
        assert!(world.request(new.id).await.unwrap().is_some());
        assert_eq!(world.attempts(new.id).await.unwrap(), [attempt(fence)]);
        assert_eq!(world.live_executions(None, 10).await.unwrap(), []);
        world.reopen().await;
    }
}

pub(crate) async fn keeps_each_terminal_state_with_its_failure(mut world: World) {
    let function = world.function("alpha").await;
    let states = [
        State::Success,
        State::Error(failure()),
        State::Timeout(failure()),
        State::Cancelled(failure()),
    ];
    let outputs = [
        None,
        Some(output()),
        Some(Output {
            content_type: None,
            encoding: Encoding::Base64,
            body: vec![0xff, 0].into(),
        }),
        Some(Output {
            content_type: Some(crate::model::JSON),
            encoding: Encoding::Json,
            body: "{}".into(),
        }),
    ];
    let mut expected = Vec::new();
    for (ms, (state, output)) in (0..).zip(states.into_iter().zip(outputs)) {
        let new = world.accepted(&function, ms).await;
        let next = ended(&new, state, ms + 1);
        let end = Transition {
            output: output.clone(),
            ..transition(new.id, Guard::Live, next.clone())
        };
        world.done(end).await;
        expected.push((new.id, next, output));
    }
    world.reopen().await;
    for (id, next, output) in expected {
        let record = world.execution(id).await.unwrap().unwrap();
        assert_eq!(record.execution, next);
        assert_eq!(record.output, output);
    }
}

pub(crate) async fn keeps_a_retry_queued_until_it_is_due(mut world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    let mut runs: Vec<AttemptRecord> = Vec::new();
    for number in 1..=3 {
        let fence = world.claim(new.id).await;
        let run = AttemptRecord {
            number,
            outcome: "retry",
            failure: Some(failure()),
            ..attempt(fence)
        };
        let next = Execution {
            state: State::Queued {
                due: START.plus_ms(u64::from(number) * 1_000),
            },
            attempts: number,
            faults: 2,
            deaths: number % 2,
            requeues: 4,
            started_at: Some(START.plus_ms(7)),
            ..new.execution.clone()
        };
        let retry = Transition {
            attempt: Some(run.clone()),
            ..transition(new.id, Guard::Claim(fence), next.clone())
        };
        world.done(retry).await;
        runs.push(run);
        world.reopen().await;
        let record = world.execution(new.id).await.unwrap().unwrap();
        assert_eq!(record.execution, next);
        let live = world.live_executions(None, 10).await.unwrap();
        assert_eq!(live[0].execution, next);
        assert_eq!(world.attempts(new.id).await.unwrap(), runs);
    }
}

pub(crate) async fn keeps_logs_as_they_were_written(world: World) {
    let function = world.function("alpha").await;
    let long = Logs {
        lines: (0..2_000)
            .map(|i| LogLine {
                stream: [LogStream::Stdout, LogStream::Stderr][i % 2],
                text: format!("line {i} \0 \r").repeat(i % 7),
            })
            .collect(),
        truncated: false,
    };
    let cut = Logs {
        lines: Vec::new(),
        truncated: true,
    };
    for (ms, logs) in (0..).zip([Logs::default(), cut, long]) {
        let new = world.accepted(&function, ms).await;
        let fence = world.next_fence();
        let run = AttemptRecord {
            logs,
            ..attempt(fence)
        };
        let end = Transition {
            attempt: Some(run.clone()),
            ..success(&new, fence, ms)
        };
        world.done(end).await;
        assert_eq!(world.attempts(new.id).await.unwrap(), [run]);
    }
}

pub(crate) async fn knows_every_word_for_an_outcome(world: World) {
    let function = world.function("alpha").await;
    let new = world.accepted(&function, 0).await;
    let words = [
        "success",
        "error",
        "retry",
        "requeue",
        "timeout",
        "limit",
        "fault",
        "interrupted",
    ];
    for outcome in words {
        let fence = world.next_fence();
        let again = Transition {
            attempt: Some(AttemptRecord {
                outcome,
                cold_start: false,
                init_ms: None,
                cpu_us: None,
                ..attempt(fence)
            }),
            ..transition(new.id, Guard::Claim(fence), new.execution.clone())
        };
        world.done(again).await;
    }
    let runs = world.attempts(new.id).await.unwrap();
    let found: Vec<_> = runs.iter().map(|run| run.outcome).collect();
    assert_eq!(found, words);
    assert_eq!(runs[0].cpu_us, None);
}

pub(crate) async fn refuses_work_for_no_function(world: World) {
    let mut function = world.function("alpha").await;
    function.id = FunctionId(function.id.0 + 1);
    let new = new_execution(&function, 0);
    let accepted = world.accept(new.clone()).await;
    assert!(matches!(accepted, Err(Error::NoSuchFunction)));
    assert_eq!(world.execution(new.id).await.unwrap(), None);
}

pub(crate) async fn refuses_an_id_twice_and_nothing_else(world: World) {
    let function = world.function("alpha").await;
    let first = world.accepted(&function, 0).await;
    // At once, so that good ones share a batch with bad ones.
    let mut tasks = JoinSet::new();
    for ms in 0..40 {
        let mut new = new_execution(&function, 100 + ms);
        if ms % 10 == 5 {
            new.id = first.id;
        }
        let store = world.store();
        tasks.spawn(async move { (new.id, store.accept(new).await) });
    }
    let (mut good, mut bad) = (0, 0);
    while let Some(task) = tasks.join_next().await {
        let (id, accepted) = task.unwrap();
        if id == first.id {
            assert!(matches!(accepted, Err(Error::Failed(_))), "{accepted:?}");
            bad += 1;
        } else {
            assert_eq!(accepted.unwrap(), Accepted::New);
            assert!(world.request(id).await.unwrap().is_some());
            good += 1;
        }
    }
    assert_eq!((good, bad), (36, 4));
    let untouched = world.request(first.id).await.unwrap().unwrap();
    assert_eq!(untouched, *first.request);
}

pub(crate) async fn answers_many_transitions_in_order(world: World) {
    let function = world.function("alpha").await;
    let mut transitions = Vec::new();
    let mut expected = Vec::new();
    for ms in 0..600 {
        let mut new = new_execution(&function, ms);
        let known = ms % 3 != 0;
        if known {
            world.accept(new.clone()).await.unwrap();
        } else {
            new.id = ExecutionId::new(START);
        }
        transitions.push(success(&new, Fence::new(1, 1), ms));
        expected.push(if known { Applied::Done } else { Applied::Stale });
    }
    assert_eq!(world.transition_all(transitions).await.unwrap(), expected);
    assert_eq!(world.transition_all(Vec::new()).await.unwrap(), []);
    assert_eq!(world.live_executions(None, 10).await.unwrap(), []);
}
