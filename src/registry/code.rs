//! Where a function's code comes from: uploaded wasm, or a service behind a URL.
//!
//! **Invariant:** the registry asks one trait; what checks and compiles stands behind it.

use async_trait::async_trait;
use bytes::Bytes;

use crate::endpoint::Endpoint;
use crate::model::{Digest, FunctionName};
use crate::runtime::{Prepared, Refused, Runtime};

/// Checks code when it is deployed.
#[async_trait]
pub trait CodeSource: Send + Sync + 'static {
    /// Checks, compiles and keeps a wasm file; keeps nothing of one that is refused.
    async fn prepare(&self, wasm: Bytes) -> Result<Prepared, Refused>;

    /// What is known of an uploaded file.
    fn known(&self, digest: &Digest) -> Option<Prepared>;

    /// Checks what can be checked of a URL.
    ///
    /// # Errors
    /// A sentence for the author.
    fn check_url(&self, url: &str) -> Result<(), String>;

    /// A function has changed, or is gone: what was kept of it is to be let go.
    fn changed(&self, _function: &FunctionName) {}
}

/// The code of a real plane.
#[derive(Clone)]
pub struct PlaneCode {
    /// For wasm.
    pub runtime: Runtime,
    /// For services behind a URL.
    pub endpoint: Endpoint,
}

#[async_trait]
impl CodeSource for PlaneCode {
    async fn prepare(&self, wasm: Bytes) -> Result<Prepared, Refused> {
        self.runtime.prepare(wasm).await
    }

    fn known(&self, digest: &Digest) -> Option<Prepared> {
        self.runtime.known(digest)
    }

    fn check_url(&self, url: &str) -> Result<(), String> {
        self.endpoint.check_url(url)
    }

    fn changed(&self, function: &FunctionName) {
        self.runtime.retire(function);
    }
}
