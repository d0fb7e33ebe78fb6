//! Functions and their versions: deploy, change, list, remove.
//!
//! Readers get a snapshot that never changes; a change is prepared (checked, compiled), committed, and
//! then shown by swapping one pointer. Changes of one name happen one after another.
//!
//! **Invariant:** what readers see is what the store has committed; a deploy that fails changes nothing.

mod change;
mod code;

pub use code::{CodeSource, PlaneCode};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Mutex as AsyncMutex;

use crate::clock::Clock;
use crate::model::{
    FunctionId, FunctionName, FunctionSettings, IdMap, Spec, Timestamp, Version, VersionNumber,
};
use crate::shutdown::Tasks;
use crate::store::{self, FunctionRecord, Store};

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
    /// The store refused.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            functions_max: 10_000,
            versions_max: 1_000,
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
    clock: Clock,
    tasks: Tasks,
    table: RwLock<Table>,
    changing: Mutex<HashMap<FunctionName, Arc<AsyncMutex<()>>>>,
}

#[derive(Default)]
struct Table {
    by_name: HashMap<FunctionName, Arc<Function>>,
    by_id: IdMap<FunctionId, Arc<Function>>,
}

impl Table {
    fn insert(&mut self, function: Arc<Function>) {
        self.by_id.insert(function.id, Arc::clone(&function));
        self.by_name.insert(function.name.clone(), function);
    }

    fn remove(&mut self, function: &Function) {
        self.by_id.remove(&function.id);
        self.by_name.remove(&function.name);
    }
}

impl Registry {
    /// Reads all functions from the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(
        options: Options,
        store: Arc<dyn Store>,
        code: Arc<dyn CodeSource>,
        clock: Clock,
        tasks: Tasks,
    ) -> store::Result<Self> {
        let mut table = Table::default();
        for record in store.functions().await? {
            let name = record.name.clone();
            match Function::from_record(record) {
                Some(function) => table.insert(Arc::new(function)),
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
                clock,
                tasks,
                table: RwLock::new(table),
                changing: Mutex::default(),
            }),
        })
    }

    /// One function.
    pub fn get(&self, name: &FunctionName) -> Option<Arc<Function>> {
        self.read().by_name.get(name).cloned()
    }

    /// One function by identity.
    pub fn get_by_id(&self, id: FunctionId) -> Option<Arc<Function>> {
        self.read().by_id.get(&id).cloned()
    }

    /// All functions, by name.
    pub fn list(&self) -> Vec<Arc<Function>> {
        let mut all: Vec<_> = self.read().by_name.values().cloned().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        let table = self.inner.table.read();
        table.unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        let table = self.inner.table.write();
        table.unwrap_or_else(PoisonError::into_inner)
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
