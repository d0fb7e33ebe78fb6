//! Certificates, and servers that speak no TLS.

use super::*;

/// A server under TLS with a certificate of its own for these names, and that certificate.
async fn tls_server(names: &[&str]) -> (Server, Vec<u8>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let server = Server::start(ok("under tls"), Some(TlsAcceptor::from(Arc::new(config)))).await;
    (server, made.cert.der().to_vec())
}

#[tokio::test]
async fn certificates_are_checked_against_the_name_that_was_asked_for() {
    let (mut server, root) = tls_server(&["right.example"]).await;
    let port = server.port();
    let names = Names::of(&[
        ("right.example", &[&["127.0.0.1"]]),
        ("wrong.example", &[&["127.0.0.1"]]),
    ]);
    let client = client(|options| {
        options.resolver = names;
        options.ranges_allowed = vec!["127.0.0.0/8".parse().unwrap()];
        options.roots = Some(vec![root]);
    });
    let guest = Guest::new(&client, rules(&[&format!("*:{port}")]));
    let response = guest
        .get(&format!("https://right.example:{port}/"))
        .await
        .unwrap();
    assert_eq!(response.body(), "under tls");
    let seen = server.request().await;
    assert!(
        seen.contains(&format!("host: right.example:{port}\r\n")),
        "{seen}"
    );
    for host in ["wrong.example", "127.0.0.1"] {
        let (error, note) = guest.refused(&format!("https://{host}:{port}/")).await;
        assert!(matches!(error, Error::Certificate(_)), "{error:?}");
        assert!(note.contains(host), "{note}");
    }
    // The connection is kept, and kept apart from one in the clear.
    guest
        .get(&format!("https://right.example:{port}/"))
        .await
        .unwrap();
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_accepted() {
    let (mut server, _) = tls_server(&["localhost"]).await;
    let (_, other) = tls_server(&["localhost"]).await;
    let port = server.port();
    let client = client(|options| options.roots = Some(vec![other]));
    let guest = Guest::new(&client, rules(&[&format!("localhost:{port}")]));
    let (error, _) = guest.refused(&format!("https://localhost:{port}/")).await;
    assert!(matches!(error, Error::Certificate(_)), "{error:?}");
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_is_waited_for_as_long_as_a_connection() {
    let server = Server::that(Then::Stall(Vec::new())).await;
    let (_, root) = tls_server(&["localhost"]).await;
    let port = server.port();
    let client = client(|options| {
        options.connect_timeout_ms = 50;
        options.roots = Some(vec![root]);
    });
    let guest = Guest::new(&client, rules(&[&format!("127.0.0.1:{port}")]));
    let error = guest
        .get(&format!("https://127.0.0.1:{port}/"))
        .await
        .unwrap_err();
    assert_eq!(error, Error::ConnectionTimeout);
    assert_eq!(client.connections(), (0, 0));
}
