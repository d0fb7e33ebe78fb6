//! The API's own limits, each named with its unit.
//!
//! **Invariant:** every bound on what a request may make the server hold stands here.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Whether `/v1/admin/runtime-config` is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeConfigApi {
    /// It is.
    On,
    /// It is answered 404.
    Off,
}

/// Settings of the API.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest JSON body, in bytes.
    pub body_bytes_max: usize,
    /// Bytes of all JSON bodies that are received or wait with their calls; one more is asked to come back.
    pub body_bytes_in_flight_max: usize,
    /// Bytes of all answers that clients have not taken yet; one more is asked for again.
    pub answer_bytes_in_flight_max: usize,
    /// Largest wasm file, in bytes.
    pub upload_bytes_max: usize,
    /// Bytes of all uploads under way together; one more is asked to come back.
    pub upload_bytes_in_flight_max: usize,
    /// Time for a request's body to arrive.
    pub body_timeout: Duration,
    /// Entries of a call's `metadata`.
    pub metadata_entries_max: usize,
    /// Bytes of all names and values of a call's `metadata`.
    pub metadata_bytes_max: usize,
    /// Executions on a page of a list unless the request says otherwise.
    pub list_limit_default: u32,
    /// Executions on a page of a list, at most.
    pub list_limit_max: u32,
    /// Exports under way at once; one more is asked to come back.
    pub exports_max: usize,
    /// Where the server listens: a `Host` that is one of these addresses is answered, on any port.
    pub listen: Vec<SocketAddr>,
    /// Reverse proxies whose `X-Forwarded-…` headers are believed, beside those on this machine.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the runtime config can be seen and changed.
    pub runtime_config: RuntimeConfigApi,
    /// Further hosts that are answered, as `name` or `name:port`. Pages from these may call the API too.
    pub allowed_hosts: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 * 1024 * 1024,
            body_bytes_in_flight_max: 256 * 1024 * 1024,
            answer_bytes_in_flight_max: 256 * 1024 * 1024,
            upload_bytes_max: 64 * 1024 * 1024,
            upload_bytes_in_flight_max: 256 * 1024 * 1024,
            body_timeout: Duration::from_secs(120),
            metadata_entries_max: 64,
            metadata_bytes_max: 16 * 1024,
            list_limit_default: 50,
            list_limit_max: 500,
            exports_max: 8,
            listen: Vec::new(),
            trusted_proxies: Vec::new(),
            runtime_config: RuntimeConfigApi::On,
            allowed_hosts: Vec::new(),
        }
    }
}
