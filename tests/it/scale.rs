//! Size, in small: what `cargo bench --bench scale` measures with more zeros.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pelton::execution::Status;
use pelton::model::Input;
use pelton::runtime::{InProcessCompiler, Options, Runtime};
use pelton::scheduler::{self, Call, CallError, Crowded};
use pelton::testing::{Harness, Home, Movement, Setup, open_runtime};
use serde_json::json;

use crate::support::programs;

/// Names of one wasm, and different files.
const NAMES: u32 = 600;
const DIFFERENT: u32 = 20;
/// Executions that are queued over a restart.
const QUEUED: usize = 2_000;
/// Callers that wait at once.
const CALLERS: usize = 500;
/// Clients that enqueue more than runs, how often each does, and how many may wait.
const FILLERS: usize = 16;
const FILLED: usize = 100;
const PLACES: usize = 40;

fn setup(folder: &std::path::Path, movement: Movement) -> Setup {
    Setup {
        movement,
        home: Home::Folder(folder.to_owned()),
        ..Setup::default()
    }
}

/// A call with a number as its input.
fn call(function: &str, number: usize) -> Call {
    Call {
        function: function.parse().unwrap(),
        input: Input {
            content_type: pelton::model::JSON,
            body: number.to_string().into(),
        },
        metadata: Arc::new([]),
        trace_id: None,
        traceparent: None,
        key: None,
        wait: None,
        parent: None,
    }
}

/// The same program with a mark that tells it apart.
fn marked(number: u32) -> Bytes {
    let data = format!("(data (i32.const 2048) \"{number}\")");
    programs::program_with(&data, programs::COPIES)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_functions_are_there_after_a_restart_and_code_is_loaded_when_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open_runtime(&folder.path().join("code")).unwrap();
    let with_runtime = || Setup {
        runtime: Some(runtime.clone()),
        ..setup(folder.path(), Movement::Background)
    };
    let plane = Harness::with(with_runtime()).await.unwrap();
    for number in 0..DIFFERENT {
        let name = format!("different-{number}");
        plane.deploy(&name, marked(number)).await.unwrap();
    }
    for number in 0..NAMES {
        let name = format!("same-{number}");
        plane.deploy(&name, marked(0)).await.unwrap();
    }
    // However many names there are: code is kept by its digest.
    assert_eq!(runtime.stats().loaded_entries, u64::from(DIFFERENT));
    let before: Vec<_> = plane.registry.list();
    plane.stop(Duration::ZERO).await.unwrap();
    drop(runtime);

    let runtime = open_runtime(&folder.path().join("code")).unwrap();
    let plane = Harness::with(Setup {
        runtime: Some(runtime.clone()),
        ..setup(folder.path(), Movement::Background)
    });
    let plane = plane.await.unwrap();
    assert_eq!(plane.registry.list(), before);
    assert_eq!(
        runtime.stats().loaded_entries,
        0,
        "nothing is loaded before its turn"
    );
    for number in [0, NAMES / 2, NAMES - 1] {
        let called = plane.invoke(&format!("same-{number}"), "7").await.unwrap();
        assert_eq!(called.output_json(), json!(7));
    }
    assert_eq!(runtime.stats().loaded_entries, 1);
    for number in 0..DIFFERENT {
        let name = format!("different-{number}");
        plane.invoke(&name, "7").await.unwrap().assert_success();
    }
    assert_eq!(runtime.stats().loaded_entries, u64::from(DIFFERENT));
    plane.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn often_called_functions_stay_loaded_where_there_is_no_room_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let code = folder.path().join("code");
    let with_room = open_runtime(&code).unwrap();
    let deployed = Harness::with(Setup {
        runtime: Some(with_room.clone()),
        ..setup(folder.path(), Movement::Background)
    });
    let deployed = deployed.await.unwrap();
    for number in 0..DIFFERENT {
        let name = format!("f-{number}");
        deployed.deploy(&name, marked(number)).await.unwrap();
    }
    let all_bytes = with_room.stats().loaded_bytes;
    deployed.stop(Duration::ZERO).await.unwrap();

    let mut options = Options::new(&code);
    options.loaded_bytes_max = all_bytes / 4;
    let compiler = Arc::new(InProcessCompiler::new().unwrap());
    let runtime = Runtime::open(&options, compiler).unwrap();
    let plane = Harness::with(Setup {
        runtime: Some(runtime.clone()),
        ..setup(folder.path(), Movement::Background)
    });
    let plane = plane.await.unwrap();
    // The one of rank n is called every n-th time.
    let (mut calls, mut cold) = (0, 0);
    for round in 0..60_usize {
        let called = |number: &u32| round.is_multiple_of(*number as usize + 1);
        for number in (0..DIFFERENT).filter(called) {
            let call = call(&format!("f-{number}"), round);
            let called = plane.scheduler.invoke(call).await.unwrap().execution;
            let output = called.output.as_ref().unwrap();
            assert_eq!(output.body, round.to_string().as_bytes());
            calls += 1;
            cold += u32::from(called.cold_start);
        }
        let stats = runtime.stats();
        assert!(stats.loaded_bytes <= options.loaded_bytes_max, "{stats:?}");
    }
    assert!(cold > DIFFERENT, "{cold} of {calls}: all had room");
    assert!(cold < calls, "{cold} of {calls}: nothing stayed");
    plane.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_survives_a_restart_with_its_inputs_on_disk_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Harness::with(setup(folder.path(), Movement::Drained))
        .await
        .unwrap();
    let mut spec = pelton::model::Spec::default();
    spec.version.image = Some("builtin:echo".to_owned());
    spec.settings.queue_size = u32::try_from(QUEUED).unwrap();
    plane.create("echo", spec).await.unwrap();
    let padding = "x".repeat(1_000);
    let mut ids = Vec::new();
    for number in 0..QUEUED {
        let input = json!({"number": number, "padding": padding}).to_string();
        ids.push(plane.enqueue("echo", &input).await.unwrap());
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), QUEUED);
    plane.stop(Duration::ZERO).await.unwrap();

    let plane = Harness::with(setup(folder.path(), Movement::Drained))
        .await
        .unwrap();
    let load = plane.scheduler.load();
    assert_eq!((load.queued, load.running), (QUEUED, 0));
    assert_eq!(
        load.queued_input_bytes, 0,
        "inputs were read before their turn"
    );
    let some = scheduler::DrainOptions {
        limit: Some(50),
        recursive: true,
        ..scheduler::DrainOptions::default()
    };
    let drained = plane.drain("echo", some).await.unwrap();
    assert_eq!(drained.items.len(), 50);
    assert_eq!(plane.scheduler.load().queued_input_bytes, 0);
    plane.stop(Duration::ZERO).await.unwrap();

    let plane = Harness::with(setup(folder.path(), Movement::Background))
        .await
        .unwrap();
    for (number, id) in ids.iter().enumerate() {
        let ended = async {
            while !plane.execution(*id).await.unwrap().status().is_terminal() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended)
            .await
            .unwrap();
        let execution = plane.execution(*id).await.unwrap();
        execution.assert_success().assert_attempts(1);
        assert_eq!(execution.output_json()["number"], number);
    }
    assert_eq!(plane.scheduler.load().queued, 0);
    plane.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_wait_at_once_and_each_gets_its_own_answer() {
    let plane = Harness::with(Setup {
        movement: Movement::Background,
        ..Setup::default()
    });
    let plane = Arc::new(plane.await.unwrap());
    let spec = |spec: &mut pelton::model::Spec| {
        spec.settings.queue_size = u32::try_from(CALLERS).unwrap();
        spec.settings.concurrency = 8;
    };
    let naps = programs::program(programs::NAPS);
    plane.deploy_with("naps", naps, spec).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        let plane = Arc::clone(&plane);
        callers.spawn(async move {
            let answer = plane.invoke("naps", &number.to_string()).await.unwrap();
            answer.assert_success();
            assert_eq!(answer.output_json(), json!(number));
        });
    }
    let most = async {
        let mut most = 0;
        while most < CALLERS / 2 {
            let load = plane.scheduler.load();
            assert!(load.running <= 8);
            most = most.max(load.queued + load.running);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), most)
        .await
        .unwrap();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert_eq!(plane.scheduler.load().queued, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_beyond_the_bound_are_refused_and_all_others_are_answered() {
    let mut bounded = Setup {
        movement: Movement::Background,
        ..Setup::default()
    };
    bounded.scheduler.runtime_config.sync_queue_max_depth = u32::try_from(PLACES).unwrap();
    let plane = Arc::new(Harness::with(bounded).await.unwrap());
    let spec = |spec: &mut pelton::model::Spec| {
        spec.settings.queue_size = u32::try_from(CALLERS).unwrap();
        spec.settings.concurrency = 8;
    };
    let naps = programs::program(programs::NAPS);
    plane.deploy_with("naps", naps, spec).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        let plane = Arc::clone(&plane);
        callers.spawn(async move {
            let call = call("naps", number);
            match plane.scheduler.invoke(call).await {
                Ok(invoked) => {
                    assert_eq!(invoked.execution.execution.status(), Status::Success);
                    true
                }
                Err(CallError::QueueFull {
                    crowded: Crowded::Callers { .. },
                    retry_after_s: 1..,
                }) => false,
                Err(other) => panic!("{other}"),
            }
        });
    }
    let mut answered = 0;
    while let Some(caller) = callers.join_next().await {
        answered += usize::from(caller.unwrap());
    }
    assert!(answered >= PLACES, "{answered}");
    assert!(answered < CALLERS, "nobody was refused");
    assert_eq!(plane.scheduler.load().queued, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_filled_faster_than_it_drains_refuses_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Harness::with(setup(folder.path(), Movement::Background));
    let plane = Arc::new(plane.await.unwrap());
    let spec = |spec: &mut pelton::model::Spec| {
        spec.settings.queue_size = u32::try_from(PLACES).unwrap();
        spec.settings.concurrency = 2;
    };
    let naps = programs::program(programs::NAPS);
    plane.deploy_with("naps", naps, spec).await.unwrap();
    let mut fillers = tokio::task::JoinSet::new();
    for filler in 0..FILLERS {
        let plane = Arc::clone(&plane);
        fillers.spawn(async move {
            let mut accepted = Vec::new();
            for number in 0..FILLED {
                let number = filler * FILLED + number;
                match plane.scheduler.enqueue(call("naps", number)).await {
                    Ok(enqueued) => accepted.push((enqueued.execution.id, number)),
                    Err(CallError::QueueFull {
                        crowded: Crowded::Queue { .. },
                        retry_after_s: 1..,
                    }) => {}
                    Err(other) => panic!("{other}"),
                }
                let load = plane.scheduler.load();
                assert!(
                    load.queued <= PLACES + FILLERS && load.running <= 2,
                    "{load:?}"
                );
            }
            accepted
        });
    }
    let mut accepted = Vec::new();
    while let Some(filler) = fillers.join_next().await {
        accepted.extend(filler.unwrap());
    }
    assert!(accepted.len() >= PLACES, "{}", accepted.len());
    assert!(accepted.len() < FILLERS * FILLED, "nothing was refused");
    let calm = async {
        while plane.scheduler.load().live > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), calm)
        .await
        .unwrap();
    for (id, number) in &accepted {
        let execution = plane.execution(*id).await.unwrap();
        execution.assert_success().assert_attempts(1);
        assert_eq!(execution.output_json(), json!(number));
    }
}
