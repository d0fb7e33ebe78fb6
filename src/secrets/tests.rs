//! Secrets that come, go, and are kept from those who have no business with them.

use super::*;
use crate::model::Exposure;
use crate::store::memory::{Disk, MemoryStore};

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const OTHER: &str = "0202020202020202020202020202020202020202020202020202020202020202";

async fn vault_on(disk: &Disk, key: Option<&str>) -> Result<Vault, OpenError> {
    vault_with(disk, key, None).await
}

async fn vault_with(
    disk: &Disk,
    key: Option<&str>,
    old_key: Option<&str>,
) -> Result<Vault, OpenError> {
    let key_of = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    let options = Options {
        key: key_of(key),
        old_key: key_of(old_key),
        secrets_max: 2,
    };
    let store = Arc::new(MemoryStore::open(disk));
    Vault::open(
        options,
        store,
        Clock::manual(Timestamp(7)),
        Tasks::default(),
    )
    .await
}

async fn vault() -> Vault {
    vault_on(&Disk::default(), Some(KEY)).await.unwrap()
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.to_owned())
}

fn uses(names: &[&str]) -> BTreeMap<String, SecretUse> {
    let used = |secret: &&str| SecretUse {
        secret: name(secret),
        exposure: Exposure::Env,
    };
    names
        .iter()
        .map(|secret| (secret.to_uppercase(), used(secret)))
        .collect()
}

fn opened(vault: &Vault, names: &[&str]) -> Vec<(String, String)> {
    let open = vault.open_for(&uses(names)).unwrap();
    open.iter()
        .map(|secret| (secret.key.to_string(), secret.value.expose().to_owned()))
        .collect()
}

#[tokio::test]
async fn a_secret_is_set_again_listed_and_opened_for_who_is_given_it() {
    let vault = vault().await;
    let (listed, is_new) = vault.set(&name("one"), value("first")).await.unwrap();
    assert!(is_new);
    assert_eq!(listed.created_at, Timestamp(7));
    let (_, is_new) = vault.set(&name("one"), value("second")).await.unwrap();
    assert!(!is_new);
    assert_eq!(vault.list(), [listed]);
    assert_eq!(
        opened(&vault, &["one"]),
        [("ONE".to_owned(), "second".to_owned())]
    );
    assert_eq!(opened(&vault, &[]), []);
}

#[tokio::test]
async fn what_is_kept_outlives_a_restart_and_is_not_readable_on_the_disk() {
    let disk = Disk::default();
    let vault = vault_on(&disk, Some(KEY)).await.unwrap();
    vault.set(&name("one"), value("hunter2")).await.unwrap();
    let kept = vault.inner.store.secrets().await.unwrap();
    assert!(!kept[0].sealed.windows(7).any(|part| part == b"hunter2"));
    assert!(!format!("{kept:?}").contains("hunter2"));

    let again = vault_on(&disk, Some(KEY)).await.unwrap();
    assert_eq!(opened(&again, &["one"])[0].1, "hunter2");
    let wrong = vault_on(&disk, Some(OTHER)).await.map(drop).unwrap_err();
    assert!(matches!(wrong, OpenError::WrongKey { count: 1 }), "{wrong}");

    // Without a key it can be seen that there is one, and it can be deleted; then another key is as good.
    let blind = vault_on(&disk, None).await.unwrap();
    assert_eq!(blind.list().len(), 1);
    let failure = blind.open_for(&uses(&["one"])).unwrap_err();
    assert_eq!(failure.code, "SECRET_UNAVAILABLE");
    assert!(
        failure.message.contains("PELTON_SECRETS_KEY"),
        "{failure:?}"
    );
    blind.delete(&name("one"), Vec::new).await.unwrap();
    vault_on(&disk, Some(OTHER)).await.unwrap();
}

#[tokio::test]
async fn without_a_key_nothing_is_set_and_nothing_relied_on() {
    let vault = vault_on(&Disk::default(), None).await.unwrap();
    let refused = vault.set(&name("one"), value("v")).await.unwrap_err();
    assert!(matches!(refused, Error::NoKey));
    assert!(
        refused.to_string().contains("--secrets-key-file"),
        "{refused}"
    );
    assert!(matches!(
        vault.rely_on(&uses(&["one"])).await,
        Err(Error::NoKey)
    ));
    assert!(vault.rely_on(&uses(&[])).await.is_ok());
}

#[tokio::test]
async fn all_missing_secrets_are_named_at_once() {
    let vault = vault().await;
    vault.set(&name("two"), value("v")).await.unwrap();
    let missing = vault.rely_on(&uses(&["one", "three", "two"])).await;
    let missing = missing.map(drop).unwrap_err();
    assert!(matches!(missing, Error::Missing(_)));
    assert!(
        missing
            .to_string()
            .starts_with("there are no secrets named one, three:"),
        "{missing}"
    );
    let failure = vault.open_for(&uses(&["one"])).unwrap_err();
    assert!(
        failure.message.contains("the secret one does not exist"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_secret_in_use_stays_and_its_users_are_named() {
    let vault = vault().await;
    vault.set(&name("one"), value("v")).await.unwrap();
    let users = || vec!["a".parse().unwrap(), "b".parse().unwrap()];
    let refused = vault.delete(&name("one"), users).await.unwrap_err();
    assert!(
        refused.to_string().contains("is used by a, b:"),
        "{refused}"
    );
    assert_eq!(vault.list().len(), 1);
    vault.delete(&name("one"), Vec::new).await.unwrap();
    let gone = vault.delete(&name("one"), Vec::new).await;
    assert!(matches!(gone, Err(Error::Unknown(_))));
}

#[tokio::test]
async fn nobody_deletes_a_secret_while_a_deploy_relies_on_it() {
    let vault = vault().await;
    vault.set(&name("one"), value("v")).await.unwrap();
    let relied = vault.rely_on(&uses(&["one"])).await.unwrap();
    let one = name("one");
    let mut deleting = Box::pin(vault.delete(&one, || vec!["a".parse().unwrap()]));
    for _ in 0..10 {
        assert!(futures_util::poll!(&mut deleting).is_pending());
        tokio::task::yield_now().await;
    }
    drop(relied);
    assert!(matches!(deleting.await, Err(Error::InUse { .. })));
}

#[tokio::test]
async fn there_may_be_so_many() {
    let vault = vault().await;
    for secret in ["one", "two", "one"] {
        vault.set(&name(secret), value("v")).await.unwrap();
    }
    let refused = vault.set(&name("three"), value("v")).await.unwrap_err();
    assert!(refused.to_string().contains("--secrets-max"), "{refused}");
}

#[tokio::test]
async fn one_damaged_secret_does_not_hide_the_others() {
    let disk = Disk::default();
    let vault = vault_on(&disk, Some(KEY)).await.unwrap();
    vault.set(&name("one"), value("v")).await.unwrap();
    let store = &vault.inner.store;
    store
        .put_secret(&name("two"), vec![1; 40].into(), Timestamp(7))
        .await
        .unwrap();
    let again = vault_on(&disk, Some(KEY)).await.unwrap();
    assert_eq!(opened(&again, &["one"])[0].1, "v");
    let failure = again.open_for(&uses(&["two"])).unwrap_err();
    assert!(failure.message.contains("damaged"), "{failure:?}");
}

#[tokio::test]
async fn a_new_key_takes_over_what_the_old_one_opens() {
    let disk = Disk::default();
    let before = vault_on(&disk, Some(KEY)).await.unwrap();
    before.set(&name("one"), value("first")).await.unwrap();
    before.set(&name("two"), value("second")).await.unwrap();
    let listed = before.list();
    drop(before);
    // A third key opens nothing, whatever is beside it.
    let third = "03".repeat(32);
    let wrong = vault_with(&disk, Some(&third), Some(OTHER)).await;
    assert!(matches!(wrong, Err(OpenError::WrongKey { count: 2 })));

    let both = [
        ("ONE".to_owned(), "first".to_owned()),
        ("TWO".to_owned(), "second".to_owned()),
    ];
    // As often as it is given, the old one does no harm.
    for _ in 0..2 {
        let turned = vault_with(&disk, Some(OTHER), Some(KEY)).await.unwrap();
        assert_eq!(opened(&turned, &["one", "two"]), both);
        assert_eq!(turned.list(), listed, "nobody has set them");
    }
    let after = vault_on(&disk, Some(OTHER)).await.unwrap();
    assert_eq!(opened(&after, &["one", "two"]), both);
    assert!(matches!(
        vault_on(&disk, Some(KEY)).await,
        Err(OpenError::WrongKey { count: 2 })
    ));
}

#[tokio::test]
async fn a_change_of_keys_that_was_broken_off_goes_on() {
    let disk = Disk::default();
    let before = vault_on(&disk, Some(KEY)).await.unwrap();
    before.set(&name("one"), value("first")).await.unwrap();
    drop(before);
    // One is of the new key already, one of the old.
    let turned = vault_with(&disk, Some(OTHER), Some(KEY)).await.unwrap();
    let store = MemoryStore::open(&disk);
    let sealed = KEY
        .parse::<Key>()
        .unwrap()
        .seal(&name("two"), &value("second"))
        .unwrap();
    store
        .put_secret(&name("two"), sealed.into(), Timestamp(9))
        .await
        .unwrap();
    drop((turned, store));
    let after = vault_with(&disk, Some(OTHER), Some(KEY)).await.unwrap();
    let both = [
        ("ONE".to_owned(), "first".to_owned()),
        ("TWO".to_owned(), "second".to_owned()),
    ];
    assert_eq!(opened(&after, &["one", "two"]), both);
}
