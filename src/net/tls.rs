//! TLS for connections that go out: the system's root certificates, read once for the whole process.
//!
//! **Invariant:** what is resumed is never shared: every configuration that is handed out has a memory of its own.

use std::sync::{Arc, OnceLock};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// Sessions that one configuration remembers, in order to resume them.
const SESSIONS_MAX: usize = 8;

/// The verifier over the system's roots; reading them takes time and memory that a plane without outgoing
/// calls does not owe.
static SYSTEM: OnceLock<Result<Arc<WebPkiServerVerifier>, String>> = OnceLock::new();

/// A client's configuration under the system's roots, for HTTP/1.1.
///
/// # Errors
/// There are none, or none that can be read: a sentence for the log.
pub fn client_config() -> Result<ClientConfig, String> {
    let verifier = SYSTEM.get_or_init(|| verifier(system_roots()?)).clone()?;
    under(verifier)
}

/// A client's configuration under these roots alone, in DER: for services with certificates of their own.
///
/// # Errors
/// One of them is no certificate.
pub fn client_config_under(roots: &[Vec<u8>]) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(CertificateDer::from(root.as_slice()))
            .map_err(|error| format!("a root certificate cannot be used: {error}"))?;
    }
    under(verifier(store)?)
}

fn under(verifier: Arc<WebPkiServerVerifier>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let mut config = builder.with_webpki_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(config)
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (_, unreadable) = store.add_parsable_certificates(found.certs);
    if unreadable > 0 {
        tracing::warn!(
            unreadable,
            "some of the system's root certificates cannot be read"
        );
    }
    if !store.is_empty() {
        return Ok(store);
    }
    let causes: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
    Err(format!(
        "the system has no root certificates that can be read ({}): install its package of CA certificates, \
         or name a file with SSL_CERT_FILE",
        causes.join("; ")
    ))
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| format!("TLS cannot be set up: {error}"))
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}
