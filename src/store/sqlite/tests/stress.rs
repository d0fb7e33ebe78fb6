//! Many callers at once, and a stop in their midst.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::world_of;
use crate::execution::State;
use crate::model::{Fence, RecordMode};
use crate::store::conformance::world::{claim, ended_in_memory, keyed, new_execution, success};
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{Accepted, Applied, Error, Filter, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_before_a_stop_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (world, store) = world_of(Options::new(dir.path()));
    let function = world.function("alpha").await;
    let mut tasks = JoinSet::new();
    for task in 0..32_u64 {
        let (store, function) = (Arc::clone(&store), function.clone());
        tasks.spawn(async move {
            let (mut accepted, mut ended) = (Vec::new(), Vec::new());
            for step in 0.. {
                let ms = task * 1_000 + step;
                let new = keyed(
                    new_execution(&function, ms),
                    &format!("key-{ms}"),
                    1_000_000,
                );
                match store.accept(new.clone()).await {
                    Ok(answer) => assert_eq!(answer, Accepted::New),
                    Err(Error::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
                accepted.push(new.id);
                let fence = Fence::new(store.boot(), ms + 1);
                store.log_claim(claim(new.id, fence));
                if step % 2 == 0 {
                    store.record_ended(ended_in_memory(
                        &function,
                        ms,
                        State::Success,
                        RecordMode::Auto,
                    ));
                    continue;
                }
                match store.transition(success(&new, fence, ms)).await {
                    Ok(answer) => assert_eq!(answer, Applied::Done),
                    Err(Error::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
                ended.push(new.id);
            }
            (accepted, ended)
        });
    }
    while store.stats().ops < 3_000 {
        store.executions(&Filter::default(), 5).await.unwrap();
    }
    store.close().await.unwrap();
    let answers = tasks.join_all().await;

    let store = SqliteStore::open(Options::new(dir.path())).unwrap();
    let mut acknowledged = 0;
    for (accepted, ended) in answers {
        for id in accepted {
            let record = store.execution(id).await.unwrap();
            assert!(record.is_some_and(|record| record.input_kept), "{id}");
            acknowledged += 1;
        }
        for id in ended {
            let record = store.execution(id).await.unwrap().unwrap();
            assert_eq!(record.execution.state, State::Success);
            assert_eq!(store.attempts(id).await.unwrap().len(), 1);
        }
    }
    assert!(acknowledged > 500, "{acknowledged}");
    assert_eq!(store.stats().dropped_records, 0);
}
