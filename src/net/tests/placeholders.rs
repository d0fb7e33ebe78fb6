//! Placeholders, and the secrets that they become.

use super::*;

fn placeholder(value: &str, hosts: &[&str]) -> Placeholder {
    let hosts: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    Placeholder::new("API_KEY".into(), SecretValue::new(value.to_owned()), hosts)
}

#[tokio::test]
async fn a_placeholder_becomes_the_secret_on_its_way_to_its_own_hosts_only() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let listed = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    ];
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let secret = placeholder("s3cret", &listed[..1]);
    let text = secret.text().to_owned();
    assert!(!format!("{secret:?}").contains("s3cret"));
    let rules = Rules {
        placeholders: Arc::new([secret]),
        ..rules(&listed)
    };
    let guest = Guest::new(&client(|_| {}), rules);
    let carrying = |host: &str| {
        Request::get(format!("http://{host}:{port}/?key={text}"))
            .header("authorization", format!("Bearer {text}"))
            .header("x-twice", format!("{text} {text}"))
            .header("x-other", "plain")
            .body(empty())
            .unwrap()
    };
    guest.send(carrying("127.0.0.1")).await.unwrap();
    let seen = server.request().await;
    assert!(seen.contains("authorization: Bearer s3cret\r\n"), "{seen}");
    assert!(seen.contains("x-twice: s3cret s3cret\r\n"), "{seen}");
    assert!(
        seen.starts_with(&format!("GET /?key={text} HTTP/1.1")),
        "{seen}"
    );
    assert!(guest.last_note().contains("stands in a URL"));

    assert_eq!(
        guest.send(carrying("localhost")).await.unwrap_err(),
        Error::Denied
    );
    let note = guest.last_note();
    assert!(
        note.contains("placeholder of API_KEY, which may go to http://127.0.0.1"),
        "{note}"
    );
    assert!(!note.contains("s3cret"), "{note}");
    assert!(server.saw_nothing());
    // Without the placeholder the other host may be called.
    guest
        .get(&format!("http://localhost:{port}/"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_secret_that_would_break_the_header_is_not_sent() {
    let mut server = Server::that(ok("")).await;
    let listed = format!("http://{}", server.address);
    let secret = placeholder("a\r\nX-Evil: 1", &[&listed]);
    let text = secret.text().to_owned();
    let rules = Rules {
        placeholders: Arc::new([secret]),
        ..rules(&[&listed])
    };
    let guest = Guest::new(&client(|_| {}), rules);
    let request = Request::get(server.url())
        .header("x", text)
        .body(empty())
        .unwrap();
    assert_eq!(guest.send(request).await.unwrap_err(), Error::Denied);
    assert!(!guest.last_note().contains("Evil"));
    assert!(server.saw_nothing());
}

#[test]
fn placeholders_cannot_be_guessed() {
    let texts: std::collections::HashSet<_> = (0..100)
        .map(|_| placeholder("s", &["a.example"]).text().to_owned())
        .collect();
    assert_eq!(texts.len(), 100);
    assert!(
        texts
            .iter()
            .all(|text| text.len() == "pelton-secret-".len() + 32)
    );
}
