//! Idempotency keys.

use tokio::task::JoinSet;

use super::world::{START, World, keyed, new_execution};
use crate::store::{Accepted, Error, KeyHolder};

const HOUR_MS: u64 = 3_600_000;

pub(crate) async fn gives_a_key_to_the_first(mut world: World) {
    let function = world.function("alpha").await;
    let first = keyed(new_execution(&function, 0), "key", HOUR_MS);
    let holder = KeyHolder {
        id: first.id,
        body_hash: [7; 32],
    };
    let key = "key".parse().unwrap();
    assert_eq!(
        world.key_holder(function.id, &key, START).await.unwrap(),
        None
    );
    assert_eq!(world.accept(first.clone()).await.unwrap(), Accepted::New);
    for ms in 1..3 {
        let mut second = keyed(new_execution(&function, ms), "key", HOUR_MS);
        if let Some(claim) = &mut second.key {
            claim.body_hash = [8; 32];
        }
        let accepted = world.accept(second.clone()).await.unwrap();
        assert_eq!(accepted, Accepted::Existing(holder));
        assert_eq!(world.execution(second.id).await.unwrap(), None);
        let found = world.key_holder(function.id, &key, START.plus_ms(ms)).await;
        assert_eq!(found.unwrap(), Some(holder));
        world.reopen().await;
    }
    let request = world.request(first.id).await.unwrap().unwrap();
    assert_eq!(request.idempotency_key, Some(key));
}

pub(crate) async fn gives_a_key_to_one_of_many_at_once(world: World) {
    let function = world.function("alpha").await;
    for round in 0..5 {
        let mut tasks = JoinSet::new();
        for ms in 0..32 {
            let new = keyed(
                new_execution(&function, ms),
                &format!("key-{round}"),
                HOUR_MS,
            );
            let store = world.store();
            tasks.spawn(async move { (new.id, store.accept(new).await.unwrap()) });
        }
        let (mut winners, mut pointed_at) = (Vec::new(), Vec::new());
        while let Some(task) = tasks.join_next().await {
            match task.unwrap() {
                (id, Accepted::New) => winners.push(id),
                (_, Accepted::Existing(holder)) => pointed_at.push(holder.id),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(pointed_at, vec![winners[0]; 31]);
    }
    assert_eq!(world.live_executions(None, 100).await.unwrap().len(), 5);
}

pub(crate) async fn gives_an_expired_key_away(world: World) {
    let function = world.function("alpha").await;
    let key = "key".parse().unwrap();
    let first = keyed(new_execution(&function, 0), "key", 1_000);
    world.accept(first.clone()).await.unwrap();
    let holder_at = |ms| world.key_holder(function.id, &key, START.plus_ms(ms));
    assert_eq!(holder_at(999).await.unwrap().map(|h| h.id), Some(first.id));
    assert_eq!(holder_at(1_000).await.unwrap(), None);

    let early = keyed(new_execution(&function, 999), "key", 1_000);
    let accepted = world.accept(early).await.unwrap();
    assert!(matches!(accepted, Accepted::Existing(holder) if holder.id == first.id));
    let late = keyed(new_execution(&function, 1_000), "key", 1_000);
    assert_eq!(world.accept(late.clone()).await.unwrap(), Accepted::New);
    assert_eq!(holder_at(1_500).await.unwrap().map(|h| h.id), Some(late.id));
}

pub(crate) async fn keeps_keys_of_functions_apart(world: World) {
    for name in ["alpha", "beta"] {
        let function = world.function(name).await;
        for key in ["key", "Key"] {
            let new = keyed(new_execution(&function, 0), key, HOUR_MS);
            assert_eq!(world.accept(new).await.unwrap(), Accepted::New);
        }
    }
}

pub(crate) async fn leaves_no_key_behind_a_refusal(world: World) {
    let function = world.function("alpha").await;
    let first = world.accepted(&function, 0).await;
    // The id is taken, so the execution cannot be written; its key must not be either.
    let mut refused = keyed(new_execution(&function, 1), "key", HOUR_MS);
    refused.id = first.id;
    assert!(matches!(world.accept(refused).await, Err(Error::Failed(_))));
    let key = "key".parse().unwrap();
    assert_eq!(
        world.key_holder(function.id, &key, START).await.unwrap(),
        None
    );
    let next = keyed(new_execution(&function, 2), "key", HOUR_MS);
    assert_eq!(world.accept(next).await.unwrap(), Accepted::New);
}

pub(crate) async fn forgets_keys_with_their_function(world: World) {
    let function = world.function("alpha").await;
    let first = keyed(new_execution(&function, 0), "key", HOUR_MS);
    world.accept(first).await.unwrap();
    world.delete_function(function.id).await.unwrap();
    let key = "key".parse().unwrap();
    assert_eq!(
        world.key_holder(function.id, &key, START).await.unwrap(),
        None
    );
    let second = keyed(new_execution(&function, 1), "key", HOUR_MS);
    assert!(matches!(
        world.accept(second).await,
        Err(Error::NoSuchFunction)
    ));
}
