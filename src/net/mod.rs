//! What goes out: which addresses may be called, whoever asks; and the requests of guests, under the rules of
//! their function.
//!
//! **Invariant:** knows no wasm, no queue and no store; whoever connects to an address had it checked here.

mod address;
mod body;
mod client;
mod connect;
mod error;
mod placeholder;
mod pool;
mod resolve;
mod session;
mod tls;

#[cfg(test)]
mod tests;

pub use address::{Addresses, Loopback, Refused};
pub use body::{GuestBody, ResponseBody};
pub use client::{Client, Options};
pub use error::Error;
pub use placeholder::Placeholder;
pub use pool::Scope;
pub use resolve::{Lookup, Resolve, SystemResolver};
pub use session::{Answer, Note, Rest, Rules, Session, Timeouts};
pub use tls::{client_config, client_config_under};
