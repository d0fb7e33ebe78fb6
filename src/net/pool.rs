//! Connections that may be used again, each by the function that made it and by no other.
//!
//! An idle connection is not driven by anybody: whether the other side closed it is found out when it is wanted
//! again. So a pool costs no task and no timer, only what it keeps, and that is bounded three times: in all, by
//! function, and in time.
//!
//! **Invariant:** a connection never leaves the function that made it, nor the origin that it was made to.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::RequestBody;
use super::connect::Stream;
use super::error::Error;
use crate::model::{Digest, FunctionName, Origin};

/// Look-ups that one function may have under way at once.
const LOOKUPS_PER_FUNCTION_MAX: usize = 8;

/// Whose connections: a function running this code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The function's name.
    pub function: FunctionName,
    /// What it runs.
    pub digest: Digest,
}

/// An open connection with both of its ends: what asks, and what does the work when it is polled.
pub(super) struct Link {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) connection: Connection<TokioIo<Box<dyn Stream>>, RequestBody>,
    pub(super) _places: Places,
}

impl Link {
    /// Whether it would take another request, as far as can be seen from here.
    fn is_alive(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.connection).poll(&mut cx).is_pending() && self.sender.is_ready()
    }

    /// Works until the last exchange is over, and says whether there can be a next one.
    fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if Pin::new(&mut self.connection).poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        self.sender.poll_ready(cx).map(|ready| ready.is_ok())
    }
}

/// A connection during one exchange: driven by whoever brings the answer, and given back to the pool by whoever
/// first sees that it is free, which may be the reader of the answer's last byte.
pub(super) struct Tether {
    pool: Arc<Pool>,
    scope: Scope,
    origin: Origin,
    held: Mutex<Held>,
}

struct Held {
    link: Option<Link>,
    /// Of whoever drives.
    driver: Waker,
}

impl Tether {
    pub(super) fn new(pool: &Arc<Pool>, scope: &Scope, origin: &Origin, link: Link) -> Arc<Self> {
        Arc::new(Self {
            pool: Arc::clone(pool),
            scope: scope.clone(),
            origin: origin.clone(),
            held: Mutex::new(Held {
                link: Some(link),
                driver: Waker::noop().clone(),
            }),
        })
    }

    /// Drives the connection until the exchange is over.
    pub(super) fn poll_driven(&self, cx: &Context<'_>) -> Poll<()> {
        let mut held = self.held();
        held.driver.clone_from(cx.waker());
        self.poll(held)
    }

    /// Gives the connection back if there is nothing left to do. Wakes nobody but the driver, so that the
    /// connection's own wishes are not lost on a reader who has gone.
    pub(super) fn settle(&self) {
        let _ = self.poll(self.held());
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, mut held: MutexGuard<'_, Held>) -> Poll<()> {
        let Held { link, driver } = &mut *held;
        let Some(busy) = link else {
            return Poll::Ready(());
        };
        let Poll::Ready(is_free) = busy.poll_free(&mut Context::from_waker(driver)) else {
            return Poll::Pending;
        };
        let over = link.take();
        drop(held);
        if let Some(link) = over
            && is_free
        {
            self.pool.give(&self.scope, self.origin.clone(), link);
        }
        Poll::Ready(())
    }
}

/// The places that one connection takes: among all, and among its function's.
pub(super) struct Places {
    _of_all: OwnedSemaphorePermit,
    _of_function: OwnedSemaphorePermit,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) open_max: usize,
    pub(super) open_per_function_max: usize,
    pub(super) idle_max: usize,
    pub(super) idle_per_function_max: usize,
    pub(super) idle_timeout: Duration,
}

pub(super) struct Pool {
    bounds: Bounds,
    open: Arc<Semaphore>,
    shared: Mutex<Shared>,
}

struct Shared {
    functions: HashMap<Scope, Share>,
    tidied: Instant,
}

/// What one function has.
struct Share {
    open: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    /// Oldest first.
    idle: VecDeque<Idle>,
}

struct Idle {
    origin: Origin,
    link: Link,
    since: Instant,
}

/// Semaphores end at this many permits.
fn capped(count: usize) -> usize {
    count.min(Semaphore::MAX_PERMITS)
}

impl Pool {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            open: Arc::new(Semaphore::new(capped(bounds.open_max))),
            shared: Mutex::new(Shared {
                functions: HashMap::new(),
                tidied: Instant::now(),
            }),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection of this function to this origin that still lives.
    pub(super) fn take(&self, scope: &Scope, origin: &Origin) -> Option<Link> {
        loop {
            // The look at the connection is a system call: not under the lock.
            let mut link = self
                .shared()
                .take(scope, origin, self.bounds.idle_timeout)?;
            if link.is_alive() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection that is free again.
    pub(super) fn give(&self, scope: &Scope, origin: Origin, link: Link) {
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut shared = self.shared();
        let share = shared.share(scope, &self.bounds);
        share.idle.push_back(Idle {
            origin,
            link,
            since: now,
        });
        if share.idle.len() > self.bounds.idle_per_function_max {
            closed.extend(share.idle.pop_front());
        }
        while shared.idle() > self.bounds.idle_max {
            closed.extend(shared.take_oldest());
        }
        if now.duration_since(shared.tidied) > self.bounds.idle_timeout {
            closed.extend(shared.tidy(now, &self.bounds));
        }
        drop(shared);
        // Closing is a system call too.
        drop(closed);
    }

    /// Places for one more connection of this function. Idle ones make way.
    pub(super) async fn places(&self, scope: &Scope) -> Result<Places, Error> {
        let open = Arc::clone(&self.shared().share(scope, &self.bounds).open);
        if open.available_permits() == 0 {
            let oldest = self.shared().share(scope, &self.bounds).idle.pop_front();
            drop(oldest);
        }
        let of_function = acquire(open).await?;
        if self.open.available_permits() == 0 {
            let oldest = self.shared().take_oldest();
            drop(oldest);
        }
        let of_all = acquire(Arc::clone(&self.open)).await?;
        Ok(Places {
            _of_all: of_all,
            _of_function: of_function,
        })
    }

    /// A turn for one look-up of this function.
    pub(super) async fn lookup(&self, scope: &Scope) -> Result<OwnedSemaphorePermit, Error> {
        let lookups = Arc::clone(&self.shared().share(scope, &self.bounds).lookups);
        acquire(lookups).await
    }

    /// Closes what was idle for too long, and forgets functions that have nothing any more.
    pub(super) fn tidy(&self) {
        let closed = self.shared().tidy(Instant::now(), &self.bounds);
        drop(closed);
    }

    /// Open connections and, among them, idle ones.
    pub(super) fn counts(&self) -> (usize, usize) {
        let open = capped(self.bounds.open_max) - self.open.available_permits();
        (open, self.shared().idle())
    }
}

async fn acquire(semaphore: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    let acquired = semaphore.acquire_owned().await;
    acquired.map_err(|_| Error::Internal("the plane is closed".to_owned()))
}

impl Shared {
    fn share(&mut self, scope: &Scope, bounds: &Bounds) -> &mut Share {
        self.functions
            .entry(scope.clone())
            .or_insert_with(|| Share {
                open: Arc::new(Semaphore::new(capped(bounds.open_per_function_max))),
                lookups: Arc::new(Semaphore::new(LOOKUPS_PER_FUNCTION_MAX)),
                idle: VecDeque::new(),
            })
    }

    fn take(&mut self, scope: &Scope, origin: &Origin, idle_timeout: Duration) -> Option<Link> {
        let idle = &mut self.functions.get_mut(scope)?.idle;
        // The latest one is the likeliest to live.
        let at = idle.iter().rposition(|idle| idle.origin == *origin)?;
        let found = idle.remove(at)?;
        (found.since.elapsed() < idle_timeout).then_some(found.link)
    }

    fn idle(&self) -> usize {
        self.functions.values().map(|share| share.idle.len()).sum()
    }

    fn take_oldest(&mut self) -> Option<Idle> {
        let since = |share: &Share| share.idle.front().map(|idle| idle.since);
        let shares = self.functions.values_mut();
        let oldest = shares
            .filter(|share| !share.idle.is_empty())
            .min_by_key(|share| since(share))?;
        oldest.idle.pop_front()
    }

    fn tidy(&mut self, now: Instant, bounds: &Bounds) -> Vec<Idle> {
        self.tidied = now;
        let mut closed = Vec::new();
        self.functions.retain(|_, share| {
            let is_old = |idle: &Idle| now.duration_since(idle.since) >= bounds.idle_timeout;
            while share.idle.front().is_some_and(is_old) {
                closed.extend(share.idle.pop_front());
            }
            // Whoever holds or waits for a place has a handle on the semaphore.
            let is_used =
                Arc::strong_count(&share.open) > 1 || Arc::strong_count(&share.lookups) > 1;
            is_used || !share.idle.is_empty()
        });
        closed
    }
}
