//! The last start of a history: everything that is left runs to its end, and then the books are checked.
//!
//! **Invariant:** nothing fails here but what the functions themselves say.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ledger::{Ledger, Outside, model};
use super::life::{AGE_MS_MAX, Life, Mood, NAMES, random_options};
use super::random::Random;
use crate::execution::Status;
use crate::model::ExecutionId;
use crate::scheduler::tests::support::*;
use crate::shutdown::chaos::Chaos;
use crate::store::{AttemptRecord, ExecutionRecord};

/// From now on nothing fails.
pub(super) fn calm(ground: &Ground) {
    let orders = &ground.orders;
    for failing in [
        &orders.failing,
        &orders.failing_transitions,
        &orders.echoing,
        &orders.panicking,
    ] {
        failing.store(0, Ordering::SeqCst);
    }
    *orders.poisoning.lock().unwrap() = None;
    ground.runner.panics.store(0, Ordering::SeqCst);
    orders.stalled.send_replace(false);
}

/// See the module.
pub(super) async fn judged(ground: Ground, random: &mut Random, outside: Outside, chaos: Chaos) {
    let options = random_options(random);
    let manual = options.manual;
    ground.runner.returned.lock().unwrap().clear();
    let steps = random.mostly_small(3);
    let mut life = Life::start(
        ground,
        options,
        &chaos,
        (random, outside.clone(), Mood::Fair),
    )
    .await;
    life.steps(steps).await;
    life.answered().await;
    drained(&mut life, manual).await;
    // What runs say after their execution has ended is on its way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let world = &*life.world;
    world.scheduler.check_at_rest();
    assert_eq!(world.scheduler.live_count(), 0, "work that never ends");
    let running = *world.ground.runner.running.borrow();
    assert_eq!(running, 0, "a run that nobody ended");
    let rows = world.store.live_executions(None, 10).await.unwrap();
    assert!(rows.is_empty(), "the store thinks otherwise: {rows:?}");
    let ends = world.ground.orders.ends.lock().unwrap().clone();
    for (id, ends) in &ends {
        assert!(ends.len() <= 1, "{id} ended more than once: {ends:?}");
    }
    let moved = world.ground.orders.moved_by_echoes.lock().unwrap().clone();
    assert!(moved.is_empty(), "writes that came too late: {moved:?}");
    check_runs(world).await;
    let ledger = outside.with(std::mem::take);
    for (id, script) in &ledger.promised {
        let record = world.scheduler.execution(*id).await.unwrap();
        let record = record.unwrap_or_else(|| panic!("{id} was promised and is lost"));
        assert_eq!(
            ends.get(id).map(Vec::as_slice),
            Some(&[record.execution.status()][..]),
            "{id} as it is and as it ended"
        );
        check_promised(world, (&ledger, &outside), script, &record).await;
    }
    for (id, told) in &ledger.told {
        // One that lived in memory may be gone with its process.
        if let Some(record) = world.scheduler.execution(*id).await.unwrap() {
            let status = record.execution.status();
            let again = ledger.redriven.contains(id);
            assert!(again || status == *told, "{id} was {told:?}, is {status:?}");
        }
    }
}

async fn drained(life: &mut Life<'_>, manual: bool) {
    for _ in 0..200 {
        if life.world.scheduler.live_count() == 0 {
            break;
        }
        for name in NAMES.iter().filter(|_| manual) {
            if life.world.registry.get(&named(name)).is_some() {
                life.world.drain_all(name).await;
            }
        }
        life.world.ground.clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        life.look();
    }
}

/// Every run of this life is recorded with its execution once, whatever became of the execution.
async fn check_runs(world: &World) {
    let returned = world.ground.runner.returned.lock().unwrap().clone();
    for (id, fence) in returned {
        let runs = world.scheduler.attempts(id).await.unwrap();
        let found: Vec<&AttemptRecord> = runs.iter().filter(|run| run.fence == fence).collect();
        assert_eq!(found.len(), 1, "the run {fence} of {id}: {runs:?}");
        assert_eq!(found[0].logs.lines.len(), 1, "what it wrote");
    }
}

async fn check_promised(
    world: &World,
    (ledger, outside): (&Ledger, &Outside),
    script: &str,
    record: &ExecutionRecord,
) {
    let (id, execution) = (record.id, &record.execution);
    let runs = world.scheduler.attempts(id).await.unwrap();
    assert!(
        runs.is_sorted_by(|a, b| a.fence < b.fence),
        "each claim once, in order: {runs:?}"
    );
    check_decider(record, &runs);
    let removed = execution
        .failure()
        .is_some_and(|why| why.code == "FUNCTION_REMOVED");
    let function = world.registry.get_by_id(record.function_id);
    if removed || function.is_none() {
        let deletions = ledger.deletions.get(record.function.as_str());
        assert!(
            deletions.is_some_and(|count| *count > 0),
            "nobody deleted the function of {record:?}"
        );
        assert!(
            function.is_none(),
            "{id} ended with its function, which is there"
        );
    }
    let Some(function) = function else { return };
    let version = function.version(record.version).expect("versions stay");
    let attempts_max = version.spec.max_attempts();
    assert!(execution.attempts <= attempts_max, "{id}: {execution:?}");
    let is_aged = execution.failure().is_some_and(|why| why.code == "MAX_AGE");
    if is_aged {
        outside.with(|ledger| ledger.aged += 1);
    }
    if version.spec.max_age_ms <= AGE_MS_MAX {
        // How far it got is a matter of time.
        return;
    }
    assert!(!is_aged, "{id} may grow as old as it likes: {execution:?}");
    if ledger.touched.contains(&id) {
        return;
    }
    let expected = model(script, attempts_max);
    assert_eq!(execution.status(), expected.status, "{id} {script:?}");
    assert_eq!(execution.attempts, expected.attempts, "{id} {script:?}");
    assert_eq!(execution.requeues, expected.requeues, "{id} {script:?}");
    let ours = ["fault", "interrupted"];
    let came_to = runs.iter().map(|run| run.outcome);
    let came_to: Vec<_> = came_to.filter(|word| !ours.contains(word)).collect();
    assert_eq!(came_to, expected.runs, "{id} {script:?}: {runs:?}");
    check_output(id, record);
}

/// Where a run decided the end, it was the last one: no older claim may speak for a newer one.
#[track_caller]
fn check_decider(record: &ExecutionRecord, runs: &[AttemptRecord]) {
    let execution = &record.execution;
    let by_a_run = match execution.failure() {
        None => record.output.is_some(),
        Some(failure) => failure.code == "SCRIPTED",
    };
    if !by_a_run {
        return;
    }
    let words: &[&str] = match execution.status() {
        Status::Success => &["success"],
        Status::Timeout => &["timeout"],
        Status::Error | Status::Cancelled | Status::Queued | Status::Running => {
            &["error", "limit", "retry"]
        }
    };
    let last = runs.last().map(|run| run.outcome);
    assert!(
        last.is_some_and(|last| words.contains(&last)),
        "{execution:?} was not decided by the last of {runs:?}"
    );
}

#[track_caller]
fn check_output(id: ExecutionId, record: &ExecutionRecord) {
    let output = record.output.as_ref().map(|output| &output.body[..]);
    if record.execution.status() == Status::Success {
        let own = id.to_string();
        assert_eq!(output, Some(own.as_bytes()), "somebody else's output");
    } else {
        assert_eq!(output, None, "{id} has an output all the same");
    }
}
