//! Size, in small: what `cargo bench --bench scale` measures with more zeros.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use pelton::scheduler;
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

fn setup(folder: &std::path::Path, movement: Movement) -> Setup {
    Setup {
        movement,
        home: Home::Folder(folder.to_owned()),
        ..Setup::default()
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
    let plane = std::sync::Arc::new(plane.await.unwrap());
    let spec = |spec: &mut pelton::model::Spec| {
        spec.settings.queue_size = u32::try_from(CALLERS).unwrap();
        spec.settings.concurrency = 8;
    };
    let naps = programs::program(programs::NAPS);
    plane.deploy_with("naps", naps, spec).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        let plane = std::sync::Arc::clone(&plane);
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
