//! How much of an ended execution is kept as the write-behind buffer fills.

use super::gate::Gate;
use super::world_of;
use crate::execution::State;
use crate::model::RecordMode;
use crate::store::conformance::World;
use crate::store::conformance::world::ended_in_memory;
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{EndedExecution, FunctionRecord, Store};

const KIB: usize = 1024;

fn with_body(function: &FunctionRecord, ms: u64, record: RecordMode) -> EndedExecution {
    let mut ended = ended_in_memory(function, ms, State::Success, record);
    let request = std::sync::Arc::make_mut(&mut ended.request);
    request.input.body = vec![b'x'; 10 * KIB].into();
    ended
}

/// A store of 64 KiB for what is written behind, whose writer is held: nothing leaves the buffer but
/// what the writer took before.
async fn held_store(
    dir: &std::path::Path,
) -> (World, std::sync::Arc<SqliteStore>, std::sync::Arc<Gate>) {
    let (options, gate) = Gate::options(dir);
    let options = Options {
        write_behind_bytes_max: 64 * 1024,
        ..options
    };
    let (world, store) = world_of(options);
    (world, store, gate)
}

async fn input_kept(store: &SqliteStore, ended: &EndedExecution) -> Option<bool> {
    let record = store.execution(ended.id).await.unwrap();
    record.map(|record| record.input_kept)
}

#[tokio::test]
async fn auto_keeps_bodies_while_half_is_free_then_summaries_then_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store, gate) = held_store(dir.path()).await;
    let function = world.function("alpha").await;
    gate.shut();
    let mut kept = Vec::new();
    let mut all = Vec::new();
    for ms in 0..200 {
        let ended = with_body(&function, ms, RecordMode::Auto);
        store.record_ended(ended.clone());
        kept.push(input_kept(&store, &ended).await);
        all.push(ended);
    }
    let full = kept.iter().take_while(|kept| **kept == Some(true)).count();
    let summaries = kept.iter().filter(|kept| **kept == Some(false)).count();
    let dropped = kept.iter().filter(|kept| kept.is_none()).count();
    // Each takes some 11 KiB, and half of the buffer is 32 KiB.
    assert_eq!(full, 3);
    assert!(summaries > 40, "{summaries}");
    assert_eq!(full + summaries + dropped, 200);
    assert!(kept.is_sorted_by_key(|kept| match kept {
        Some(true) => 0,
        Some(false) => 1,
        None => 2,
    }));
    let stats = store.stats();
    assert_eq!(stats.summarised_records, u64::try_from(summaries).unwrap());
    assert_eq!(stats.dropped_records, u64::try_from(dropped).unwrap());
    assert!(stats.write_behind_bytes <= 64 * 1024);

    // What was visible is what is on disk afterwards.
    gate.open();
    store.flush().await.unwrap();
    assert_eq!(store.stats().write_behind_bytes, 0);
    for (ended, kept) in all.iter().zip(kept) {
        assert_eq!(input_kept(&store, ended).await, kept);
        assert_eq!(
            store.request(ended.id).await.unwrap().is_some(),
            kept == Some(true)
        );
    }
}

#[tokio::test]
async fn full_keeps_bodies_while_there_is_room_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store, gate) = held_store(dir.path()).await;
    let function = world.function("alpha").await;
    gate.shut();
    let mut kept = Vec::new();
    for ms in 0..8 {
        let ended = with_body(&function, ms, RecordMode::Full);
        store.record_ended(ended.clone());
        kept.push(input_kept(&store, &ended).await);
    }
    let full = kept.iter().filter(|kept| **kept == Some(true)).count();
    assert_eq!(full, 5, "{kept:?}");
    assert_eq!(kept.last(), Some(&Some(false)));
    gate.open();
}

#[tokio::test]
async fn a_summary_was_asked_for_and_is_not_counted_as_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store, _gate) = held_store(dir.path()).await;
    let function = world.function("alpha").await;
    let ended = with_body(&function, 0, RecordMode::Summary);
    store.record_ended(ended.clone());
    assert_eq!(input_kept(&store, &ended).await, Some(false));
    assert_eq!(store.stats().summarised_records, 0);
}

#[tokio::test]
async fn one_that_is_larger_than_the_buffer_leaves_a_summary() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store, _gate) = held_store(dir.path()).await;
    let function = world.function("alpha").await;
    let mut ended = with_body(&function, 0, RecordMode::Full);
    if let Some(output) = &mut ended.output {
        output.body = vec![0; 100 * KIB].into();
    }
    store.record_ended(ended.clone());
    assert_eq!(input_kept(&store, &ended).await, Some(false));
    assert_eq!(store.stats().summarised_records, 1);
}

#[tokio::test]
async fn the_same_execution_twice_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store, _gate) = held_store(dir.path()).await;
    let function = world.function("alpha").await;
    let ended = with_body(&function, 0, RecordMode::Full);
    for _ in 0..2 {
        store.record_ended(ended.clone());
        store.flush().await.unwrap();
    }
    assert_eq!(store.stats().write_behind_bytes, 0);
    assert_eq!(store.attempts(ended.id).await.unwrap(), ended.attempts);
    assert_eq!(store.poisoned(), None);
}
