//! Changes of functions: each is prepared, committed, and then shown.
//!
//! **Invariant:** whatever fails before the commit leaves everything as it was; once a change is under way
//! it is seen through, even if the one who asked for it has gone.

use std::sync::Arc;

use bytes::Bytes;

use super::{ChangeRight, Deployed, Error, Function, Registry, SpecEdit, grants};
use crate::model::{
    Code, Digest, ExecutionMode, FunctionName, Spec, Version, VersionNumber, VersionSpec,
};
use crate::runtime::Prepared;
use crate::secrets::Existence;
use crate::store;

impl Registry {
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
        // Before the lock, so that a slow compilation does not hold up other changes of the name.
        let prepared = self.inner.code.prepare(wasm).await?;
        let (registry, name) = (self.clone(), name.clone());
        self.detached(async move { registry.deploy_prepared(&name, &prepared, edit).await })
            .await
    }

    async fn deploy_prepared(
        &self,
        name: &FunctionName,
        prepared: &Prepared,
        edit: Option<SpecEdit>,
    ) -> Result<Deployed, Error> {
        let right = self.change(name).await;
        let standing = self.get(name);
        let base = standing.as_deref().map(Function::spec).unwrap_or_default();
        let mut spec = match edit {
            Some(edit) => edit(&base).map_err(Error::Invalid)?,
            None => without_other_code(base),
        };
        if let Some(endpoint) = &spec.version.endpoint_url {
            return Err(Error::Invalid(vec![format!(
                "endpointUrl: the function has wasm of its own, so it cannot run at {endpoint}: leave one of the two out"
            )]));
        }
        if let Some(image) = spec.version.image.take()
            && image != digest_image(&prepared.digest)
            && Some(&image) != standing.as_deref().and_then(shown_image).as_ref()
        {
            return Err(Error::Invalid(vec![format!(
                "image: the function has wasm of its own, so it does not run {image:?}: leave one of the two out"
            )]));
        }
        if spec.version.execution_mode != Some(ExecutionMode::Local) {
            spec.version.execution_mode = None;
        }
        let code = wasm_code(prepared);
        let outgoing = prepared.outgoing.as_deref();
        let _existence = self.admit(&code, outgoing, &spec.version).await?;
        match standing {
            Some(function) => {
                let function = self.add_version(right, &function, code, spec).await?;
                Ok(Deployed {
                    function,
                    created: false,
                })
            }
            None => {
                let function = self.create_with(right, name, code, spec).await?;
                Ok(Deployed {
                    function,
                    created: true,
                })
            }
        }
    }

    /// Creates a function from a spec alone (`image` or `endpointUrl`).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create(&self, name: &FunctionName, spec: Spec) -> Result<Arc<Function>, Error> {
        let (registry, name) = (self.clone(), name.clone());
        self.detached(async move {
            let right = registry.change(&name).await;
            if registry.get(&name).is_some() {
                return Err(Error::NameTaken(name));
            }
            let code = registry.resolve(&name, &spec.version)?;
            let _existence = registry.admit_known(&code, &spec.version).await?;
            registry.create_with(right, &name, code, spec).await
        })
        .await
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
        let (registry, name) = (self.clone(), name.clone());
        self.detached(async move { registry.update_now(&name, edit).await })
            .await
    }

    async fn update_now(
        &self,
        name: &FunctionName,
        edit: SpecEdit,
    ) -> Result<Arc<Function>, Error> {
        let right = self.change(name).await;
        let function = self.must_get(name)?;
        let base = function.spec();
        let spec = edit(&base).map_err(Error::Invalid)?;
        if spec == base {
            return Ok(function);
        }
        if spec.version == base.version {
            return self
                .set(right, &function, spec.settings, function.active.number)
                .await;
        }
        let code = if names_same_code(&spec.version, &base.version) {
            function.active.code.clone()
        } else {
            self.resolve(name, &spec.version)?
        };
        let _existence = self.admit_known(&code, &spec.version).await?;
        self.add_version(right, &function, code, spec).await
    }

    /// Makes an older version the active one again. Settings of the function stay as they are.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn rollback(
        &self,
        name: &FunctionName,
        version: VersionNumber,
    ) -> Result<Arc<Function>, Error> {
        let (registry, name) = (self.clone(), name.clone());
        self.detached(async move { registry.rollback_now(&name, version).await })
            .await
    }

    async fn rollback_now(
        &self,
        name: &FunctionName,
        version: VersionNumber,
    ) -> Result<Arc<Function>, Error> {
        let right = self.change(name).await;
        let function = self.must_get(name)?;
        let older = self.usable_version(&function, version)?;
        let _existence = self.admit_known(&older.code, &older.spec).await?;
        self.set(right, &function, function.settings.clone(), version)
            .await
    }

    /// Removes a function. Its waiting work is the scheduler's to end.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&self, name: &FunctionName) -> Result<Arc<Function>, Error> {
        let (registry, name) = (self.clone(), name.clone());
        self.detached(async move {
            let _right = registry.change(&name).await;
            let function = registry.must_get(&name)?;
            registry.inner.store.delete_function(function.id).await?;
            registry.show(|table| table.remove(&function));
            registry.inner.code.changed(&name);
            registry.let_hosts_go(&name, &function.settings.hosts);
            log(&function, "a function was deleted");
            Ok(function)
        })
        .await
    }

    /// Runs to its end even if the caller goes away: what was committed must be shown.
    async fn detached<T, F>(&self, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        match self.inner.tasks.spawn(change).await {
            Ok(result) => result,
            Err(_) => Err(Error::Store(store::Error::Failed(
                "the change ended unexpectedly".into(),
            ))),
        }
    }

    async fn create_with(
        &self,
        _right: ChangeRight,
        name: &FunctionName,
        code: Code,
        spec: Spec,
    ) -> Result<Arc<Function>, Error> {
        let functions_max = self.inner.options.functions_max as usize;
        if self.read().by_name.len() >= functions_max {
            return Err(Error::TooManyFunctions(format!(
                "there are {functions_max} functions, as many as this server takes: delete some, or raise --functions-max"
            )));
        }
        let hosts = self.take_hosts(name, &[].into(), &spec.settings.hosts)?;
        let version = self.version(VersionNumber(1), code, spec.version);
        let created = self
            .inner
            .store
            .create_function(name, &spec.settings, version);
        let record = created.await.map_err(|error| match error {
            store::Error::NameTaken => Error::NameTaken(name.clone()),
            error @ (store::Error::Poisoned(_)
            | store::Error::Closed
            | store::Error::NoSuchFunction
            | store::Error::Failed(_)) => Error::Store(error),
        })?;
        let function = Function::from_record(record).map(Arc::new);
        let function = function.ok_or_else(|| lost(name))?;
        self.show(|table| table.insert(Arc::clone(&function)));
        self.inner.code.changed(&function.name);
        hosts.keep();
        log(&function, "a function was created");
        Ok(function)
    }

    async fn add_version(
        &self,
        _right: ChangeRight,
        function: &Function,
        code: Code,
        spec: Spec,
    ) -> Result<Arc<Function>, Error> {
        let versions_max = self.inner.options.versions_max as usize;
        if function.versions.len() >= versions_max {
            return Err(Error::TooManyVersions(format!(
                "{} has {versions_max} versions, as many as this server keeps: delete the function and deploy it again, or raise --versions-max",
                function.name
            )));
        }
        let before = &function.settings.hosts;
        let hosts = self.take_hosts(&function.name, before, &spec.settings.hosts)?;
        let last = function
            .versions
            .last()
            .map_or(0, |version| version.number.0);
        let version = self.version(VersionNumber(last + 1), code, spec.version);
        let added = self
            .inner
            .store
            .add_version(function.id, &spec.settings, Arc::clone(&version));
        added.await?;
        let mut versions = function.versions.clone();
        versions.push(Arc::clone(&version));
        let function = Arc::new(Function {
            settings: spec.settings,
            updated_at: version.created_at,
            active: version,
            versions,
            id: function.id,
            name: function.name.clone(),
            created_at: function.created_at,
        });
        self.show(|table| table.insert(Arc::clone(&function)));
        self.inner.code.changed(&function.name);
        hosts.keep();
        log(&function, "a new version is active");
        Ok(function)
    }

    async fn set(
        &self,
        _right: ChangeRight,
        function: &Function,
        settings: crate::model::FunctionSettings,
        active: VersionNumber,
    ) -> Result<Arc<Function>, Error> {
        let before = &function.settings.hosts;
        let hosts = self.take_hosts(&function.name, before, &settings.hosts)?;
        let now = self.inner.clock.now();
        let store = &self.inner.store;
        store
            .set_function(function.id, &settings, active, now)
            .await?;
        let version = function.version(active).unwrap_or(&function.active);
        let function = Arc::new(Function {
            settings,
            active: Arc::clone(version),
            updated_at: now,
            ..function.clone()
        });
        self.show(|table| table.insert(Arc::clone(&function)));
        self.inner.code.changed(&function.name);
        hosts.keep();
        log(
            &function,
            "a function's settings or active version were set",
        );
        Ok(function)
    }

    fn version(&self, number: VersionNumber, code: Code, spec: VersionSpec) -> Arc<Version> {
        Arc::new(Version {
            number,
            code,
            spec,
            created_at: self.inner.clock.now(),
        })
    }

    /// Makes sure that a version may become the active one: that it is granted what its code asks for, and that its
    /// secrets exist for as long as the answer is held.
    async fn admit(
        &self,
        code: &Code,
        outgoing: Option<&str>,
        spec: &VersionSpec,
    ) -> Result<Existence, Error> {
        grants::check(code, outgoing, spec)?;
        Ok(self.inner.vault.rely_on(&spec.secrets).await?)
    }

    /// The same for code that was uploaded before.
    async fn admit_known(&self, code: &Code, spec: &VersionSpec) -> Result<Existence, Error> {
        let known = match code {
            Code::Wasm { digest, .. } => self.inner.code.known(digest),
            Code::Echo | Code::Endpoint { .. } => None,
        };
        let outgoing = known.and_then(|prepared| prepared.outgoing);
        self.admit(code, outgoing.as_deref(), spec).await
    }

    /// Finds the code that a spec names.
    fn resolve(&self, name: &FunctionName, spec: &VersionSpec) -> Result<Code, Error> {
        let mode = spec.execution_mode.unwrap_or(match spec.endpoint_url {
            Some(_) => ExecutionMode::Pool,
            None => ExecutionMode::Local,
        });
        match (mode, &spec.endpoint_url) {
            (ExecutionMode::Pool | ExecutionMode::Deployment, Some(url)) => {
                let checked = self.inner.code.check_url(url);
                checked.map_err(|reason| Error::Invalid(vec![format!("endpointUrl: {reason}")]))?;
                Ok(Code::Endpoint {
                    url: url.as_str().into(),
                })
            }
            (ExecutionMode::Pool, None) => Err(Error::Invalid(vec![
                "endpointUrl: is needed with executionMode POOL".to_owned(),
            ])),
            (ExecutionMode::Deployment, None) => Err(Error::NoProvider(format!(
                "there are no containers here: upload wasm for {name} (PUT /v1/functions/{name}), or give the endpointUrl of a service that runs already"
            ))),
            (ExecutionMode::Local, _) => self.resolve_image(name, spec.image.as_deref()),
        }
    }

    fn resolve_image(&self, name: &FunctionName, image: Option<&str>) -> Result<Code, Error> {
        let how_to = format!(
            "upload the wasm (PUT /v1/functions/{name} with content type application/wasm), or use \"builtin:echo\", \"sha256:…\" of a file that was uploaded before, or an endpointUrl"
        );
        let Some(image) = image else {
            return Err(Error::Invalid(vec![format!("image: is needed: {how_to}")]));
        };
        if image == "builtin:echo" {
            return Ok(Code::Echo);
        }
        let digest = image
            .strip_prefix("sha256:")
            .and_then(|hex| hex.parse::<Digest>().ok());
        let known = digest.and_then(|digest| self.inner.code.known(&digest));
        known.as_ref().map(wasm_code).ok_or_else(|| {
            Error::UnknownImage(format!("no image {image:?} is known here: {how_to}"))
        })
    }
}

/// A line for a change that is committed and shown.
fn log(function: &Function, what: &'static str) {
    let digest = match &function.active.code {
        Code::Wasm { digest, .. } => Some(digest.to_string()),
        Code::Echo | Code::Endpoint { .. } => None,
    };
    tracing::info!(
        function.name = %function.name,
        function.version = function.active.number.0,
        code.digest = digest.as_deref(),
        "{what}"
    );
}

fn wasm_code(prepared: &Prepared) -> Code {
    Code::Wasm {
        digest: prepared.digest,
        shape: prepared.shape,
        size: prepared.size,
    }
}

/// The image that names uploaded code.
fn digest_image(digest: &Digest) -> String {
    format!("sha256:{digest}")
}

/// The image that clients see of a function: what its author said, else its code.
fn shown_image(function: &Function) -> Option<String> {
    let said = function.active.spec.image.clone();
    said.or_else(|| match &function.active.code {
        Code::Wasm { digest, .. } => Some(digest_image(digest)),
        Code::Echo | Code::Endpoint { .. } => None,
    })
}

/// The spec of a function that gets wasm now, whatever ran before.
fn without_other_code(mut spec: Spec) -> Spec {
    spec.version.image = None;
    spec.version.endpoint_url = None;
    spec
}

fn names_same_code(new: &VersionSpec, old: &VersionSpec) -> bool {
    new.image == old.image
        && new.endpoint_url == old.endpoint_url
        && new.execution_mode == old.execution_mode
}

fn lost(name: &FunctionName) -> Error {
    let text = format!("{name} was created, but the store does not show its version");
    Error::Store(store::Error::Failed(text.into()))
}
