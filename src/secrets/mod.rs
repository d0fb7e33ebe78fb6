//! Secrets by name: kept encrypted, opened for attempts whose function is given them, and shown to nobody.
//!
//! The store keeps what the key has sealed, and nothing else holds a value but an attempt while it runs. That the key
//! is the one that the secrets were sealed with is found out at the start: a wrong one opens none of them.
//!
//! **Invariant:** no method but [`Vault::open_for`] gives a value away; no error and no line of a log has one in it.

mod key;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{OwnedRwLockReadGuard, RwLock as AsyncRwLock};

pub use key::{InvalidKey, Key};

use crate::clock::Clock;
use crate::model::{
    Failure, FunctionName, OpenSecret, SecretName, SecretUse, SecretValue, Timestamp,
};
use crate::shutdown::Tasks;
use crate::store::{self, Applied, SecretRecord, Store};

/// How a key is given, for those who have to.
const HOW_TO: &str = "start the server with a key in the variable PELTON_SECRETS_KEY or in a file named by \
     --secrets-key-file: 32 random bytes, as `openssl rand -base64 32` prints them";

/// The code of an attempt that cannot be given its secrets.
const UNAVAILABLE: &str = "SECRET_UNAVAILABLE";

/// Settings of the secrets.
#[derive(Debug, Clone)]
pub struct Options {
    /// What they are sealed with; without it there can be none.
    pub key: Option<Key>,
    /// What they were sealed with before: those that still are get sealed with the key when they are opened.
    pub old_key: Option<Key>,
    /// Secrets, at most.
    pub secrets_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            key: None,
            old_key: None,
            secrets_max: 1_000,
        }
    }
}

/// Why the secrets of a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// None of them opens.
    #[error(
        "the key for secrets is not the one that the {count} secrets in here were encrypted with: give that one, \
         as it is or, to change it, with --secrets-old-key-file; if it is lost, start without a key, delete the secrets \
         (`pelton secrets rm`) and start with a new one"
    )]
    WrongKey {
        /// How many there are.
        count: usize,
    },
    /// One could not be sealed with the new key.
    #[error("secrets cannot be encrypted with the new key: {0}")]
    Sealing(String),
}

/// Why something was not done. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no key.
    #[error("this server has no key to encrypt secrets with: {HOW_TO}")]
    NoKey,
    /// There is no secret of this name.
    #[error("there is no secret named {0}: GET /v1/secrets lists those that exist")]
    Unknown(SecretName),
    /// A spec names secrets that do not exist.
    #[error("{}", missing(.0))]
    Missing(Vec<SecretName>),
    /// Functions are given it.
    #[error(
        "the secret {name} is used by {}: take it out of their specs first, or delete them", listed(.functions)
    )]
    InUse {
        /// Which secret.
        name: SecretName,
        /// By whom.
        functions: Vec<FunctionName>,
    },
    /// The limit, which is named.
    #[error(
        "there are {0} secrets, as many as this server keeps: delete some, or raise --secrets-max"
    )]
    TooMany(u32),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Ours.
    #[error("{0}")]
    Internal(String),
}

fn listed(names: &[impl ToString]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn missing(names: &[SecretName]) -> String {
    let (these, them) = match names {
        [_] => ("there is no secret named", "it"),
        _ => ("there are no secrets named", "them"),
    };
    format!(
        "{these} {}: set {them} first (PUT /v1/secrets/NAME, or `pelton secrets set NAME`)",
        listed(names)
    )
}

/// What may be known of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: SecretName,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was last set.
    pub updated_at: Timestamp,
}

impl Listed {
    fn of(record: &SecretRecord) -> Self {
        Self {
            name: record.name.clone(),
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

/// A cheap handle on all secrets.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    store: Arc<dyn Store>,
    clock: Clock,
    tasks: Tasks,
    /// As the store has them.
    table: RwLock<BTreeMap<SecretName, SecretRecord>>,
    /// Held for reading by who relies on a secret's existence until that is committed.
    existence: Arc<AsyncRwLock<()>>,
}

/// The assurance that no secret is deleted meanwhile.
#[must_use]
pub struct Existence {
    _held: OwnedRwLockReadGuard<()>,
}

impl Vault {
    /// Reads all secrets from the store, seals those anew that only the old key opens, and tries the key on all.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        options: Options,
        store: Arc<dyn Store>,
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Self, OpenError> {
        let mut records = store.secrets().await?;
        if let (Some(key), Some(old)) = (&options.key, &options.old_key) {
            seal_anew(key, old, &mut records, &*store).await?;
        }
        match &options.key {
            None if records.is_empty() => {}
            None => tracing::warn!(
                secrets = records.len(),
                "there are secrets and no key: functions that are given one fail ({HOW_TO})"
            ),
            Some(key) => try_key(key, &records)?,
        }
        let table = records
            .into_iter()
            .map(|record| (record.name.clone(), record))
            .collect();
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                store,
                clock,
                tasks,
                table: RwLock::new(table),
                existence: Arc::default(),
            }),
        })
    }

    fn table(&self) -> RwLockReadGuard<'_, BTreeMap<SecretName, SecretRecord>> {
        let table = self.inner.table.read();
        table.unwrap_or_else(PoisonError::into_inner)
    }

    /// All secrets, by name.
    pub fn list(&self) -> Vec<Listed> {
        self.table().values().map(Listed::of).collect()
    }

    /// Sets a secret, new or not; whether it is new. Attempts that begin from now on are given the new value.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set(
        &self,
        name: &SecretName,
        value: SecretValue,
    ) -> Result<(Listed, bool), Error> {
        let (vault, name) = (self.clone(), name.clone());
        self.detached(async move { vault.set_now(&name, &value).await })
            .await
    }

    async fn set_now(
        &self,
        name: &SecretName,
        value: &SecretValue,
    ) -> Result<(Listed, bool), Error> {
        let inner = &self.inner;
        let key = inner.options.key.as_ref().ok_or(Error::NoKey)?;
        // One at a time: the limit and the table follow the store.
        let _alone = inner.existence.write().await;
        let is_new = !self.table().contains_key(name);
        let secrets_max = inner.options.secrets_max;
        if is_new && self.table().len() >= usize::try_from(secrets_max).unwrap_or(usize::MAX) {
            return Err(Error::TooMany(secrets_max));
        }
        let sealed = key.seal(name, value).map_err(Error::Internal)?;
        let now = inner.clock.now();
        let record = inner.store.put_secret(name, sealed.into(), now).await?;
        let listed = Listed::of(&record);
        self.write(|table| table.insert(name.clone(), record));
        tracing::info!(secret.name = %name, "a secret was set");
        Ok((listed, is_new))
    }

    /// Deletes a secret that nobody is given: `users` says who is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(
        &self,
        name: &SecretName,
        users: impl FnOnce() -> Vec<FunctionName> + Send + 'static,
    ) -> Result<(), Error> {
        let (vault, name) = (self.clone(), name.clone());
        self.detached(async move {
            let _alone = vault.inner.existence.write().await;
            let functions = users();
            if !functions.is_empty() {
                return Err(Error::InUse { name, functions });
            }
            match vault.inner.store.delete_secret(&name).await? {
                Applied::Stale => Err(Error::Unknown(name)),
                Applied::Done => {
                    vault.write(|table| table.remove(&name));
                    tracing::info!(secret.name = %name, "a secret was deleted");
                    Ok(())
                }
            }
        })
        .await
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<SecretName, SecretRecord>) -> T) {
        let table = self.inner.table.write();
        change(&mut table.unwrap_or_else(PoisonError::into_inner));
    }

    /// Runs to its end even if the caller goes away: what was committed must be shown.
    async fn detached<T, F>(&self, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let changed = self.inner.tasks.spawn(change).await;
        changed.unwrap_or_else(|_| Err(Error::Internal("the change ended unexpectedly".to_owned())))
    }

    /// Makes sure that a spec's secrets exist, and go on to exist while the answer is held.
    ///
    /// # Errors
    /// [`Error::NoKey`], or [`Error::Missing`] with all that are missing.
    pub async fn rely_on(&self, uses: &BTreeMap<String, SecretUse>) -> Result<Existence, Error> {
        let held = Arc::clone(&self.inner.existence).read_owned().await;
        if !uses.is_empty() && self.inner.options.key.is_none() {
            return Err(Error::NoKey);
        }
        let table = self.table();
        let names: BTreeSet<_> = uses.values().map(|used| &used.secret).collect();
        let missing: Vec<_> = names
            .into_iter()
            .filter(|name| !table.contains_key(*name))
            .cloned()
            .collect();
        drop(table);
        if missing.is_empty() {
            Ok(Existence { _held: held })
        } else {
            Err(Error::Missing(missing))
        }
    }

    /// The secrets of a spec, open, for one attempt.
    ///
    /// # Errors
    /// Why the attempt cannot have them.
    pub fn open_for(
        &self,
        uses: &BTreeMap<String, SecretUse>,
    ) -> Result<Arc<[OpenSecret]>, Failure> {
        let unavailable = |used: &SecretUse, why: &str| {
            let name = &used.secret;
            Failure::new(UNAVAILABLE, format!("the secret {name} {why}"))
        };
        let open = |(key, used): (&String, &SecretUse)| {
            let Some(sealing) = &self.inner.options.key else {
                return Err(unavailable(used, &format!("cannot be read: {HOW_TO}")));
            };
            let Some(record) = self.table().get(&used.secret).cloned() else {
                return Err(unavailable(used, "does not exist any more: set it again"));
            };
            let value = sealing.open(&record.name, &record.sealed);
            let value =
                value.ok_or_else(|| unavailable(used, "is damaged in the store: set it again"))?;
            Ok(OpenSecret {
                key: key.as_str().into(),
                exposure: used.exposure.clone(),
                value,
            })
        };
        uses.iter().map(open).collect()
    }
}

/// Seals with the key what only the old one opens, each secret by itself: where it is broken off, the next start with
/// both keys goes on. When a secret was set does not change by it.
async fn seal_anew(
    key: &Key,
    old: &Key,
    records: &mut [SecretRecord],
    store: &dyn Store,
) -> Result<(), OpenError> {
    let (mut count, mut closed) = (0, 0);
    for record in records {
        if key.open(&record.name, &record.sealed).is_some() {
            continue;
        }
        let Some(value) = old.open(&record.name, &record.sealed) else {
            tracing::warn!(secret.name = %record.name, "neither the key nor the old one opens this secret");
            closed += 1;
            continue;
        };
        let sealed = key.seal(&record.name, &value).map_err(OpenError::Sealing)?;
        let set_at = record.updated_at;
        *record = store
            .put_secret(&record.name, sealed.into(), set_at)
            .await?;
        count += 1;
    }
    if closed > 0 {
        tracing::warn!(
            secrets = count,
            closed,
            "secrets were encrypted with the new key, but not all: keep every old key until a start says that none is \
             needed"
        );
        return Ok(());
    }
    tracing::info!(
        secrets = count,
        "secrets were encrypted with the new key: the old one is not needed any more"
    );
    Ok(())
}

/// Tries a key on what was sealed. Some that do not open are damaged; if none does, the key is another one.
fn try_key(key: &Key, records: &[SecretRecord]) -> Result<(), OpenError> {
    let opens = |record: &&SecretRecord| key.open(&record.name, &record.sealed).is_some();
    let (sound, damaged): (Vec<_>, Vec<_>) = records.iter().partition(opens);
    if sound.is_empty() && !damaged.is_empty() {
        return Err(OpenError::WrongKey {
            count: records.len(),
        });
    }
    for record in damaged {
        tracing::error!(secret.name = %record.name, "a secret is damaged in the store, or of another key: set it again");
    }
    Ok(())
}
