//! Secrets, which to a store are names and bytes.

use super::world::{START, World};
use crate::model::SecretName;
use crate::store::Applied;

fn name(text: &str) -> SecretName {
    text.parse().expect("a name")
}

pub(crate) async fn keeps_secrets_by_name(mut world: World) {
    let later = START.plus_ms(5);
    let second = world
        .put_secret(&name("second"), vec![0, 255].into(), START)
        .await
        .unwrap();
    world
        .put_secret(&name("first"), vec![1].into(), START)
        .await
        .unwrap();
    let first = world
        .put_secret(&name("first"), vec![2, 3].into(), later)
        .await
        .unwrap();
    assert_eq!(&*first.sealed, [2, 3]);
    assert_eq!((first.created_at, first.updated_at), (START, later));
    for _ in 0..2 {
        let kept = world.secrets().await.unwrap();
        assert_eq!(kept, [first.clone(), second.clone()]);
        world.reopen().await;
    }
}

pub(crate) async fn forgets_a_secret_that_is_deleted(mut world: World) {
    let secret = name("first");
    assert_eq!(world.delete_secret(&secret).await.unwrap(), Applied::Stale);
    world
        .put_secret(&secret, vec![1].into(), START)
        .await
        .unwrap();
    assert_eq!(world.delete_secret(&secret).await.unwrap(), Applied::Done);
    assert_eq!(world.delete_secret(&secret).await.unwrap(), Applied::Stale);
    world.reopen().await;
    assert_eq!(world.secrets().await.unwrap(), []);
    // A name that is used again begins anew.
    let later = START.plus_ms(5);
    let again = world.put_secret(&secret, vec![2].into(), later).await;
    assert_eq!(again.unwrap().created_at, later);
}
