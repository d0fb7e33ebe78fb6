//! Names and addresses as the HTTP client asks for them, checked.
//!
//! **Invariant:** the client gets no address that was not checked.

use std::net::IpAddr;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::net::Addresses;

/// The address that stands in a URL in place of a name. The parser has turned its odd spellings
/// (decimal, octal, shortened) into the usual one.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// Resolves names at every connect and gives the client only addresses that were checked, so that what
/// was checked is what is connected to.
#[derive(Debug, Clone)]
pub(super) struct CheckedResolver {
    addresses: Addresses,
}

impl CheckedResolver {
    pub(super) fn new(addresses: Addresses) -> Self {
        Self { addresses }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.addresses.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let checked: Addrs = Box::new(addresses.filter(found)?.into_iter());
            Ok(checked)
        })
    }
}
