//! The HTTP clients of POOL functions: one for each, so that no connection ever serves two functions.
//!
//! **Invariant:** clients share the system's root certificates and nothing else; how many there are is bounded,
//! and whoever is called least recently gives way.

use std::time::Duration;

use moka::sync::Cache;
use reqwest::{Client, ClientBuilder};

use super::Options;
use super::resolver::CheckedResolver;
use crate::model::FunctionName;
use crate::net::{self, Addresses};

/// The clients, each made at its function's first call.
pub(super) struct Clients {
    addresses: Addresses,
    connect_timeout: Duration,
    idle_connections_max: usize,
    idle_timeout: Duration,
    kept: Cache<FunctionName, Client>,
}

impl Clients {
    pub(super) fn new(options: &Options, addresses: Addresses) -> Self {
        let idle_timeout = Duration::from_millis(options.idle_timeout_ms);
        Self {
            addresses,
            connect_timeout: Duration::from_millis(options.connect_timeout_ms),
            idle_connections_max: options.idle_connections_max,
            idle_timeout,
            kept: Cache::builder()
                .max_capacity(options.functions_kept_max)
                .build(),
        }
    }

    /// The client of one function.
    ///
    /// # Errors
    /// It could not be made, which is nothing that a function can cause.
    pub(super) fn of(&self, function: &FunctionName) -> Result<Client, String> {
        if let Some(client) = self.kept.get(function) {
            return Ok(client);
        }
        let made = self.kept.try_get_with(function.clone(), || self.make());
        made.map_err(|cause| String::clone(&cause))
    }

    fn make(&self) -> Result<Client, String> {
        let builder = self.builder();
        let builder = match net::client_config() {
            Ok(config) => builder.tls_backend_preconfigured(config),
            Err(cause) => {
                tracing::warn!(
                    error = cause,
                    "https services cannot be verified, http ones can be called"
                );
                builder.tls_certs_only([])
            }
        };
        builder.build().map_err(|error| {
            format!(
                "the HTTP client could not be made: {}",
                super::chain(&error)
            )
        })
    }

    fn builder(&self) -> ClientBuilder {
        // An error says that somebody else installed a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .http1_only()
            .user_agent(concat!("pelton/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(CheckedResolver::new(self.addresses.clone()))
            .connect_timeout(self.connect_timeout)
            .pool_max_idle_per_host(self.idle_connections_max)
            .pool_idle_timeout(self.idle_timeout)
    }
}
