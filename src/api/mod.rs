//! HTTP: nanofaas's API, completed (`docs/api.md` is its reference).
//!
//! A handler translates and calls; what happens is decided by the registry and the scheduler. Bodies are in
//! `wire`, the words for what went wrong in `error`, the list of routes in [`router()`].
//!
//! **Invariant:** the only folder that names axum. Every answer with a status of 400 or more has the one
//! shape `{"error", "message", "details"?}`, and one of 500 or more never says what went wrong inside.

mod admin;
mod caught;
mod drain;
mod error;
mod executions;
mod export;
mod functions;
mod guard;
mod health;
mod invocations;
pub mod local;
mod options;
mod raw;
mod router;
mod secrets;
mod segment;
mod shortcut;
mod told;
mod upload;
mod wire;

pub use options::{Options, RuntimeConfigApi};
pub use raw::{Attention, Peer};
pub use router::{management_router, router};

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::observe::Metrics;
use crate::registry::Registry;
use crate::scheduler::Scheduler;
use crate::store::Store;

/// What the bodies of all requests but calls may take together, as a part of what calls may.
const ORDERS_PART: usize = 8;

/// What handlers work with: handles on the parts of the plane, and the API's own limits.
pub struct State {
    registry: Registry,
    scheduler: Scheduler,
    metrics: Metrics,
    /// Asked for one thing only: whether it still takes writes.
    store: Arc<dyn Store>,
    uploads: guard::Budget,
    /// For calls.
    bodies: guard::Budget,
    /// Under which names this server answers.
    hosts: Arc<guard::Hosts>,
    /// Places for exports under way.
    exports: Arc<Semaphore>,
    /// For everything else, so that calls that wait keep nobody from draining, completing and deploying.
    orders: guard::Budget,
    /// For answers on their way out.
    answers: Arc<guard::Budget>,
    options: Options,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    /// The state of one plane's API, shared by [`router()`] and [`management_router`].
    pub fn new(
        registry: Registry,
        scheduler: Scheduler,
        metrics: Metrics,
        store: Arc<dyn Store>,
        options: Options,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            scheduler,
            metrics,
            store,
            uploads: upload::budget(&options),
            bodies: guard::Budget::new(options.body_bytes_in_flight_max, options.body_bytes_max),
            hosts: Arc::new(guard::Hosts::new(&options.listen, &options.allowed_hosts)),
            exports: Arc::new(Semaphore::new(options.exports_max)),
            orders: guard::Budget::new(
                options.body_bytes_in_flight_max / ORDERS_PART,
                options.body_bytes_max,
            ),
            answers: Arc::new(guard::Budget::new(options.answer_bytes_in_flight_max, 0)),
            options,
        })
    }
}

/// The state as handlers take it.
type Shared = axum::extract::State<Arc<State>>;
