//! Functions and their versions: deploy, change, list, remove.
//!
//! Readers get a snapshot that never changes; a change is prepared (checked, compiled), committed, and
//! then shown by swapping one pointer. Changes of one name happen one after another.
//!
//! **Invariant:** what readers see is what the store has committed; a deploy that fails changes nothing.

mod change;
mod code;
mod grants;
mod hosts;

pub use code::{CodeSource, PlaneCode};

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Mutex as AsyncMutex;

use crate::clock::Clock;
use crate::model::{
    Code, Digest, FunctionId, FunctionName, FunctionSettings, HostName, IdMap, SecretName, Spec,
    Timestamp, Version, VersionNumber,
};
use crate::secrets::{self, Vault};
use crate::shutdown::Tasks;
use crate::store::{FunctionRecord, Store};

/// Versions that a sentence names one by one.
const NUMBERS_SHOWN: usize = 20;

/// A function as it stands: a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its identity.
    pub id: FunctionId,
    /// Its name.
    pub name: FunctionName,
    /// Settings that act at once.
    pub settings: FunctionSettings,
    /// The version that new calls get.
    pub active: Arc<Version>,
    /// All versions, ascending.
    pub versions: Vec<Arc<Version>>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last deployed or changed.
    pub updated_at: Timestamp,
}

impl Function {
    /// The version of this number.
    pub fn version(&self, number: VersionNumber) -> Option<&Arc<Version>> {
        self.versions
            .iter()
            .find(|version| version.number == number)
    }
}

/// Why a function could not be deployed or changed. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no such function.
    #[error("there is no function named {0}")]
    UnknownFunction(FunctionName),
    /// There is one already, and the request was to create.
    #[error("a function named {0} exists already: deploy a new version of it, or delete it first")]
    NameTaken(FunctionName),
    /// There is no such version; the text names those that exist.
    #[error("{0}")]
    UnknownVersion(String),
    /// There is such a version, but its code is not kept any more; the text says what can be done.
    #[error("{0}")]
    CodeGone(String),
    /// Every complaint about the spec at once: field and what is wrong with it.
    #[error("the spec has {} mistake(s)", .0.len())]
    Invalid(Vec<String>),
    /// The image is none that is known here (`builtin:echo`, or `sha256:…` of an uploaded file).
    #[error("{0}")]
    UnknownImage(String),
    /// DEPLOYMENT without a URL: there is no provider of containers here.
    #[error("{0}")]
    NoProvider(String),
    /// The wasm was refused.
    #[error(transparent)]
    Refused(#[from] crate::runtime::Refused),
    /// The plane is full of functions (the limit is named).
    #[error("{0}")]
    TooManyFunctions(String),
    /// The function has as many versions as are kept (the limit is named).
    #[error("{0}")]
    TooManyVersions(String),
    /// Host names that other functions own; the text names both.
    #[error("{0}")]
    HostTaken(String),
    /// The code asks for something that the spec does not grant; the text names the field.
    #[error("{0}")]
    NotGranted(String),
    /// Its secrets, or what was to be done with one.
    #[error(transparent)]
    Secrets(#[from] crate::secrets::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

/// Why calls cannot be sent to a version; the texts say what there is instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// There is no such version.
    Unknown(String),
    /// Its code is not kept any more.
    CodeGone(String),
}

impl From<Unusable> for Error {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Unknown(text) => Self::UnknownVersion(text),
            Unusable::CodeGone(text) => Self::CodeGone(text),
        }
    }
}

/// What makes the new spec out of the one that stands (the default one for a new function).
pub type SpecEdit = Box<dyn FnOnce(&Spec) -> Result<Spec, Vec<String>> + Send>;

/// A finished deploy.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The function as it stands now.
    pub function: Arc<Function>,
    /// Whether it is new.
    pub created: bool,
}

/// Settings of the registry.
#[derive(Debug, Clone)]
pub struct Options {
    /// Functions, at most.
    pub functions_max: u32,
    /// Versions of one function, at most.
    pub versions_max: u32,
    /// The secrets that functions are given.
    pub secrets: secrets::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            functions_max: 10_000,
            versions_max: 1_000,
            secrets: secrets::Options::default(),
        }
    }
}

/// A cheap handle on all functions.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    store: Arc<dyn Store>,
    code: Arc<dyn CodeSource>,
    vault: Vault,
    clock: Clock,
    tasks: Tasks,
    table: RwLock<Table>,
    /// How often the table was changed; readers of it alone write nothing that other threads read.
    changes: AtomicU64,
    /// Whether the table has any hosts, likewise.
    owns_hosts: AtomicBool,
    changing: Mutex<HashMap<FunctionName, Arc<AsyncMutex<()>>>>,
    /// Host names that are owned, or about to be: looked at before a change is committed.
    hosts: Mutex<HashMap<HostName, FunctionName>>,
}

#[derive(Default)]
struct Table {
    by_name: HashMap<FunctionName, Arc<Function>>,
    by_id: IdMap<FunctionId, Arc<Function>>,
    by_host: HashMap<HostName, Arc<Function>>,
}

impl Table {
    fn insert(&mut self, function: Arc<Function>) {
        self.let_hosts_go(function.id);
        for host in &function.settings.hosts {
            self.by_host.insert(host.clone(), Arc::clone(&function));
        }
        self.by_id.insert(function.id, Arc::clone(&function));
        self.by_name.insert(function.name.clone(), function);
    }

    fn let_hosts_go(&mut self, id: FunctionId) {
        if let Some(before) = self.by_id.get(&id) {
            for host in &before.settings.hosts {
                self.by_host.remove(host);
            }
        }
    }

    fn remove(&mut self, function: &Function) {
        self.let_hosts_go(function.id);
        self.by_id.remove(&function.id);
        self.by_name.remove(&function.name);
    }
}

impl Registry {
    /// Reads all functions and secrets from the store.
    ///
    /// # Errors
    /// The store's, or a key that is not that of the secrets in it.
    pub async fn open(
        options: Options,
        store: Arc<dyn Store>,
        code: Arc<dyn CodeSource>,
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Self, secrets::OpenError> {
        let secrets = options.secrets.clone();
        let vault = Vault::open(secrets, Arc::clone(&store), clock.clone(), tasks.clone()).await?;
        let mut table = Table::default();
        let mut hosts = HashMap::new();
        for record in store.functions().await? {
            let name = record.name.clone();
            match Function::from_record(record) {
                Some(function) => {
                    let owned = function.settings.hosts.iter().cloned();
                    hosts.extend(owned.map(|host| (host, name.clone())));
                    table.insert(Arc::new(function));
                }
                None => {
                    tracing::error!(function.name = %name, "its active version is not in the store: it cannot be called")
                }
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                store,
                code,
                vault,
                clock,
                tasks,
                changes: AtomicU64::new(0),
                owns_hosts: AtomicBool::new(!table.by_host.is_empty()),
                table: RwLock::new(table),
                changing: Mutex::default(),
                hosts: Mutex::new(hosts),
            }),
        })
    }

    /// The secrets.
    pub fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    /// Deletes a secret that no function's active version is given. Older versions may be: they cannot become the
    /// active one again until it is set again, and what is queued for them fails.
    ///
    /// # Errors
    /// See [`secrets::Error`].
    pub async fn delete_secret(&self, name: &SecretName) -> Result<(), Error> {
        let (registry, secret) = (self.clone(), name.clone());
        let users = move || {
            let mut functions = registry.list();
            functions.retain(|function| {
                let mut uses = function.active.spec.secrets.values();
                uses.any(|used| used.secret == secret)
            });
            functions
                .iter()
                .map(|function| function.name.clone())
                .collect()
        };
        Ok(self.inner.vault.delete(name, users).await?)
    }

    /// One function.
    pub fn get(&self, name: &FunctionName) -> Option<Arc<Function>> {
        self.read().by_name.get(name).cloned()
    }

    /// One function by identity.
    pub fn get_by_id(&self, id: FunctionId) -> Option<Arc<Function>> {
        self.read().by_id.get(&id).cloned()
    }

    /// The function that owns a host name, if one does.
    pub fn get_by_host(&self, host: &str) -> Option<Arc<Function>> {
        self.read().by_host.get(host).cloned()
    }

    /// Whether any function owns a host name.
    pub fn owns_hosts(&self) -> bool {
        self.inner.owns_hosts.load(Ordering::Acquire)
    }

    /// A number that is another one whenever any function was deployed, changed or removed since.
    pub fn changes(&self) -> u64 {
        self.inner.changes.load(Ordering::Acquire)
    }

    /// All functions, by name.
    pub fn list(&self) -> Vec<Arc<Function>> {
        let mut all: Vec<_> = self.read().by_name.values().cloned().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// A version that calls can be sent to: it exists, and its code does.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn usable_version(
        &self,
        function: &Function,
        number: VersionNumber,
    ) -> Result<Arc<Version>, Unusable> {
        let name = &function.name;
        let Some(version) = function.version(number) else {
            let all = numbers(&function.versions);
            let text = format!("{name} has no version {number}: it has {all}");
            return Err(Unusable::Unknown(text));
        };
        let Some(digest) = self.code_gone(version) else {
            return Ok(Arc::clone(version));
        };
        let mut others = function.versions.clone();
        others.retain(|version| self.code_gone(version).is_none());
        let others = match others.as_slice() {
            [] => "no version's code is there".to_owned(),
            others => format!("it has that of {}", numbers(others)),
        };
        Err(Unusable::CodeGone(format!(
            "the code of version {number} of {name} (sha256:{digest}) is not kept any more: {others}. Deploy the file again"
        )))
    }

    /// The digest of a version's code, if that is not kept.
    fn code_gone(&self, version: &Version) -> Option<Digest> {
        match version.code {
            Code::Wasm { digest, .. } => match self.inner.code.known(&digest) {
                Some(_) => None,
                None => Some(digest),
            },
            Code::Echo | Code::Endpoint { .. } => None,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        let table = self.inner.table.read();
        table.unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        let table = self.inner.table.write();
        table.unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what readers see.
    fn show(&self, change: impl FnOnce(&mut Table)) {
        let mut table = self.write();
        change(&mut table);
        let owns_hosts = !table.by_host.is_empty();
        self.inner.owns_hosts.store(owns_hosts, Ordering::Release);
        self.inner.changes.fetch_add(1, Ordering::Release);
    }

    fn must_get(&self, name: &FunctionName) -> Result<Arc<Function>, Error> {
        self.get(name)
            .ok_or_else(|| Error::UnknownFunction(name.clone()))
    }

    /// The right to change one name; changes of one name queue up behind each other.
    async fn change(&self, name: &FunctionName) -> ChangeRight {
        let lock = {
            let mut changing = self
                .inner
                .changing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // Locks that nobody holds or waits for are let go here, so the map stays as small as the work.
            changing.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(changing.entry(name.clone()).or_default())
        };
        lock.lock_owned().await
    }
}

type ChangeRight = tokio::sync::OwnedMutexGuard<()>;

/// The numbers of some versions, for a sentence: the latest ones where there are many.
fn numbers(versions: &[Arc<Version>]) -> String {
    let (older, latest) = versions.split_at(versions.len().saturating_sub(NUMBERS_SHOWN));
    let latest: Vec<_> = latest.iter().map(|it| it.number.to_string()).collect();
    let older = match older {
        [] => "",
        [_, ..] => "older ones, ",
    };
    format!("{older}{}", latest.join(", "))
}

impl Function {
    fn from_record(record: FunctionRecord) -> Option<Self> {
        let mut versions = record.versions.iter();
        let active = versions.find(|version| version.number == record.active)?;
        Some(Self {
            id: record.id,
            name: record.name,
            settings: record.settings,
            active: Arc::clone(active),
            versions: record.versions,
            created_at: record.created_at,
            updated_at: record.updated_at,
        })
    }

    /// What its author said, function and version together.
    pub fn spec(&self) -> Spec {
        Spec {
            settings: self.settings.clone(),
            version: self.active.spec.clone(),
        }
    }
}
