//! Names become addresses: the system's resolver, bounded, behind a trait that tests can answer for.
//!
//! **Invariant:** a look-up that nobody waits for any more still counts until the system has answered it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Look-ups of all functions together that wait for the system at once. Each has a thread of its own.
const LOOKUPS_MAX: usize = 64;

/// A look-up under way.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Who knows the addresses of names.
pub trait Resolve: Send + Sync {
    /// All addresses of a name, in the order in which they are to be tried. `turn` is the caller's share of the
    /// look-ups that it may have under way, and is held until the system has answered.
    fn resolve(&self, name: &str, turn: OwnedSemaphorePermit) -> Lookup;
}

/// The system's resolver: `/etc/hosts`, DNS, and whatever else it is set up to ask.
#[derive(Debug)]
pub struct SystemResolver {
    turns: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str, turn: OwnedSemaphorePermit) -> Lookup {
        let (name, turns) = (name.to_owned(), Arc::clone(&self.turns));
        Box::pin(async move {
            let ours = turns.acquire_owned().await.map_err(io::Error::other)?;
            let look_up = move || {
                let _held = (turn, ours);
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            };
            tokio::task::spawn_blocking(look_up)
                .await
                .map_err(io::Error::other)?
        })
    }
}
