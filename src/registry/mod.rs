//! Functions and their versions: deploy, change, list, remove.
//!
//! Readers get a snapshot that never changes; a change is prepared (checked, compiled), committed, and
//! then shown by swapping one pointer. Changes of one name happen one after another.
//!
//! **Invariant:** what readers see is what the store has committed; a deploy that fails changes nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::model::{
    FunctionId, FunctionName, FunctionSettings, Spec, Timestamp, Version, VersionNumber,
};
use crate::runtime::Runtime;
use crate::store::{self, Store};

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
    TooMany(String),
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

/// A cheap handle on all functions.
#[derive(Clone)]
pub struct Registry {
    _inner: Arc<()>,
}

impl Registry {
    /// Reads all functions from the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(
        options: Options,
        store: Arc<dyn Store>,
        runtime: Runtime,
        endpoint: Endpoint,
        clock: Clock,
    ) -> store::Result<Self> {
        let _ = (options, store, runtime, endpoint, clock);
        unimplemented!("registry")
    }

    /// One function.
    pub fn get(&self, name: &FunctionName) -> Option<Arc<Function>> {
        let _ = name;
        unimplemented!("registry")
    }

    /// One function by identity.
    pub fn get_by_id(&self, id: FunctionId) -> Option<Arc<Function>> {
        let _ = id;
        unimplemented!("registry")
    }

    /// All functions, by name.
    pub fn list(&self) -> Vec<Arc<Function>> {
        unimplemented!("registry")
    }

    /// Deploys wasm: creates the function or adds a version and makes it active. Without `edit` a new
    /// function gets the default spec and an existing one keeps its own.
    ///
    /// # Errors
    /// See [`Error`]; the version before stays active.
    pub async fn deploy(
        &self,
        name: &FunctionName,
        wasm: Bytes,
        edit: Option<SpecEdit>,
    ) -> Result<Deployed, Error> {
        let _ = (name, wasm, edit);
        unimplemented!("registry")
    }

    /// Creates a function from a spec alone (`image` or `endpointUrl`).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create(&self, name: &FunctionName, spec: Spec) -> Result<Arc<Function>, Error> {
        let _ = (name, spec);
        unimplemented!("registry")
    }

    /// Changes a spec. A changed version spec makes a version; changed settings act at once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update(
        &self,
        name: &FunctionName,
        edit: SpecEdit,
    ) -> Result<Arc<Function>, Error> {
        let _ = (name, edit);
        unimplemented!("registry")
    }

    /// Makes an older version the active one again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rollback(
        &self,
        name: &FunctionName,
        version: VersionNumber,
    ) -> Result<Arc<Function>, Error> {
        let _ = (name, version);
        unimplemented!("registry")
    }
}
