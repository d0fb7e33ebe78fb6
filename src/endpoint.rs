//! POOL: a function that is a service behind a URL. POSTs attempts to it and reads outcomes.
//!
//! **Invariant:** no connection is made to an address that was not checked; proxies of the environment are ignored.

use tokio_util::sync::CancellationToken;

use crate::execution::{Attempt, Ran};

/// A cheap handle on the HTTP client for all POOL functions.
#[derive(Clone)]
pub struct Endpoint {}

impl Endpoint {
    /// Checks what can be checked of a URL when a function is registered.
    ///
    /// # Errors
    /// A sentence for the author.
    pub fn check_url(&self, url: &str) -> Result<(), String> {
        let _ = url;
        unimplemented!("endpoint")
    }

    /// Runs one attempt: POSTs it and waits for the answer, the attempt's limit or `stop`.
    pub async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
        let _ = (attempt, stop);
        unimplemented!("endpoint")
    }
}
