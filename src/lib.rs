//! Pelton: upload a wasm function, call it or queue it, and never lose what was accepted.
//!
//! # Bird's view
//!
//! One process: HTTP in front, an embedded store behind, and in between a scheduler that gives every
//! attempt of every execution a fresh WebAssembly instance.
//!
//! ```text
//!   HTTP ──▶ api ──▶ registry ──────────────▶ runtime (compile, keep)
//!             │          │ functions, versions      ▲
//!             │          ▼                          │ run
//!             └───▶ scheduler ──▶ execution::step   ├─ runtime (wasm)
//!                        │  ▲      (pure decisions) │
//!                        │  └── outcome ◀───────────┴─ endpoint (a service behind a URL)
//!                        ▼
//!                      store (what is promised is on disk)
//! ```
//!
//! # A call on its way through
//!
//! `POST /v1/functions/word-stats:enqueue` with a body:
//!
//! 1. The listener in [`app`] took a place for the connection before it accepted it; [`api`] checks `Host`,
//!    `Origin` and the content type, splits the path at its last colon and reads the body up to its limit.
//! 2. [`registry`] knows the function and its active version, to which the execution is pinned from here on.
//! 3. [`scheduler`] admits the call (rates, room, idempotency key) and hands it to [`store`], which
//!    writes it with the next group commit. Only after the fsync is the caller answered: 202.
//! 4. The execution stands in its function's ready queue. A free slot claims it: a claim has a fence, a number
//!    that only grows, and the dispatch is a spawned task whose handle whoever waits can wait for.
//! 5. [`runtime`] finds the version's machine code (in memory, or mapped from disk), instantiates it afresh
//!    (unless the function lets an instance answer again) under the limits of its spec, and comes back with an outcome, whatever the guest does.
//! 6. `finalize_dispatch` turns the outcome into an event and asks [`execution::step`], the one place that
//!    decides: success, final error, another attempt later, back to the queue. The decision is written
//!    under a guard that names the fence, so a result that comes too late changes nothing.
//! 7. After the commit the effects happen: waiters wake, the slot goes to the next in line, [`observe`] counts.
//!
//! A request for a function itself (`/fn/word-stats/…`, or a host name that the function owns) is taken out in
//! front of the routes. Its call carries an exchange: the request on the way there, the response on the way back.
//! It is admitted, claimed, run and recorded like the others, once.
//!
//! A synchronous `:invoke` is the same way with somebody waiting at its end; without a key it lives in memory
//! and is written behind. A drain is step 4 to 7 by hand: it answers when the dispatch is recorded.
//!
//! # Modules
//!
//! Imports point downwards; a test reads them.
//!
//! | layer | module | does |
//! |---|---|---|
//! | 6 | [`cli`] | the command line: clients talk HTTP only, `run` has a harness of its own |
//! | 6 | [`testing`] | the harness: the real plane in process, with a clock moved by hand |
//! | 5 | [`app`] | the composition root: builds, serves, stops |
//! | 5 | [`config`] | what was typed, and what it means |
//! | 4 | [`api`] | HTTP: routes, bodies, errors |
//! | 3 | [`scheduler`] | admission, queues, claims, dispatch, drain |
//! | 3 | [`registry`] | functions and versions |
//! | 3 | [`secrets`] | secrets by name, encrypted |
//! | 2 | [`store`] | what is durable, stated as transitions |
//! | 2 | [`runtime`] | compiles and runs wasm |
//! | 2 | [`endpoint`] | runs attempts at a service behind a URL |
//! | 2 | [`observe`] | metrics |
//! | 2 | [`shutdown`] | tasks, and how they stop |
//! | 2 | [`guests`] | builds the functions of `guest-functions/` |
//! | 1 | [`net`] | which addresses may be called |
//! | 1 | [`answer`] | what an HTTP answer of a function means |
//! | 1 | [`execution`] | the life of an execution: pure |
//! | 0 | [`model`] | the words, as types that hold no wrong value |
//! | 0 | [`clock`] | time as a parameter |
//! | 0 | [`json`] | tells JSON from what is none |
//! | 0 | [`folder`] | makes folders that outlast a power loss |
//!
//! # Invariants
//!
//! **Invariant:** these hold everywhere; each module states its own.
//!
//! - What was accepted durably (a 202, or a call with a key) ends exactly once, after any crash.
//! - Only [`execution::step`] changes the state of an execution, and only the store's commit makes it known.
//! - Whoever answers that something was dispatched has waited for it to be recorded.
//! - Everything that can grow has a bound with a name: see [`config::Limits`] and [`model::limits`].
//! - A guest cannot panic, hang or starve the plane; a failure of the plane's is never counted as the guest's.

pub mod answer;
pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod endpoint;
pub mod execution;
pub mod folder;
pub mod guests;
pub mod json;
pub mod model;
pub mod net;
pub mod observe;
pub mod registry;
pub mod runtime;
pub mod scheduler;
pub mod secrets;
pub mod shutdown;
pub mod store;
pub mod testing;
