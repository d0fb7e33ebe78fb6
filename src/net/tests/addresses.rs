//! Which addresses are called: hostile names, and addresses inside of addresses.

use super::*;

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_by_number_and_by_name() {
    let names = Names::of(&[
        ("private.example", &[&["10.0.0.1"]]),
        ("metadata.example", &[&["169.254.169.254"]]),
        ("mapped.example", &[&["::ffff:10.0.0.1"]]),
        ("translated.example", &[&["64:ff9b::7f00:1"]]),
        ("here.example", &[&["127.0.0.1"]]),
        ("here6.example", &[&["::1"]]),
        ("nowhere.example", &[&["0.0.0.0"]]),
    ]);
    let client = client(|options| options.resolver = names);
    let guest = Guest::new(&client, rules(&["http://*", "http://*:8080"]));
    for url in [
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[fd00::1]/",
        "http://0.0.0.0/",
        "http://private.example/",
        "http://private.example:8080/",
        "http://metadata.example/",
        "http://mapped.example/",
        "http://translated.example/",
        "http://nowhere.example/",
        // Loopback may be called here, but only by those who say so.
        "http://here.example/",
        "http://here6.example/",
    ] {
        let (error, note) = guest.refused(url).await;
        assert_eq!(error, Error::AddressProhibited, "{url}");
        assert!(note.contains("--allow-private-range"), "{url}: {note}");
    }
}

#[tokio::test]
async fn loopback_is_refused_unless_the_plane_allows_it() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let listed = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    ];
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let closed = client(|options| options.loopback = Loopback::Refused);
    let guest = Guest::new(&closed, rules(&listed));
    for host in ["127.0.0.1", "localhost"] {
        let (error, _) = guest.refused(&format!("http://{host}:{port}/")).await;
        assert_eq!(error, Error::AddressProhibited);
    }
    assert!(server.saw_nothing());
    let guest = Guest::new(&client(|_| {}), rules(&listed));
    for host in ["127.0.0.1", "localhost"] {
        guest.get(&format!("http://{host}:{port}/")).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_checked_each_time_and_the_checked_address_is_called() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    // First an address that may be called, then one that may not: it is never asked in between.
    let names = Names::of(&[("turncoat.example", &[&["127.0.0.1"], &["10.0.0.1"]])]);
    let client = client(|options| {
        options.resolver = names;
        options.ranges_allowed = vec!["127.0.0.0/8".parse().unwrap()];
        options.idle_connections_per_function_max = 0;
    });
    let guest = Guest::new(
        &client,
        rules(&[&format!("http://turncoat.example:{port}")]),
    );
    let url = format!("http://turncoat.example:{port}/");
    guest.get(&url).await.unwrap();
    let seen = server.request().await.to_ascii_lowercase();
    assert!(
        seen.contains(&format!("host: turncoat.example:{port}\r\n")),
        "{seen}"
    );
    let (error, note) = guest.refused(&url).await;
    assert_eq!(error, Error::AddressProhibited);
    assert!(note.contains("10.0.0.1 is a private address"), "{note}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn of_several_addresses_those_that_may_not_be_called_are_left_out() {
    let server = Server::that(ok("")).await;
    let port = server.port();
    let names = Names::of(&[("both.example", &[&["10.0.0.1", "127.0.0.1"]])]);
    let client = client(|options| {
        options.resolver = names;
        options.ranges_allowed = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let guest = Guest::new(&client, rules(&[&format!("http://both.example:{port}")]));
    guest
        .get(&format!("http://both.example:{port}/"))
        .await
        .unwrap();
}

#[tokio::test]
async fn who_cannot_be_reached_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let names = Names::of(&[("empty.example", &[&[]])]);
    let client = client(|options| options.resolver = names);
    let listed = format!("http://127.0.0.1:{port}");
    let guest = Guest::new(&client, rules(&[&listed, "http://*"]));
    assert_eq!(
        guest.get(&listed).await.unwrap_err(),
        Error::ConnectionRefused
    );
    for url in ["http://unknown.example/", "http://empty.example/"] {
        let error = guest.get(url).await.unwrap_err();
        assert!(matches!(error, Error::Dns(_)), "{url}: {error:?}");
    }
}

/// Knows every name, and never says so.
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _name: &str, turn: OwnedSemaphorePermit) -> Lookup {
        Box::pin(async move {
            let _turn = turn;
            std::future::pending().await
        })
    }
}

#[tokio::test]
async fn a_name_that_nobody_answers_for_is_waited_for_as_long_as_a_connection() {
    let client = client(|options| {
        options.resolver = Arc::new(Silent);
        options.connect_timeout_ms = 30;
    });
    let guest = Guest::new(&client, rules(&["http://*"]));
    // More often than names are looked up at once, for each wait ends with its request.
    for _ in 0..40 {
        let error = guest.get("http://silent.example/").await.unwrap_err();
        assert_eq!(error, Error::DnsTimeout);
    }
    // An address needs nobody's answer.
    let server = Server::that(ok("")).await;
    let listed = format!("http://{}", server.address);
    let guest = Guest::new(&client, rules(&[&listed]));
    guest.get(&server.url()).await.unwrap();
}

#[tokio::test]
async fn an_address_inside_another_is_called_as_little_as_by_itself() {
    let inside = [
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::",
        "::ffff:0:127.0.0.1",
    ];
    let names: Vec<String> = (0..inside.len()).map(|n| format!("n{n}.example")).collect();
    let answers: Vec<[&[&str]; 1]> = inside.iter().map(|ip| [std::slice::from_ref(ip)]).collect();
    let names: Vec<(&str, &[&[&str]])> = names
        .iter()
        .zip(&answers)
        .map(|(name, answer)| (name.as_str(), &answer[..]))
        .collect();
    let client = client(|options| options.resolver = Names::of(&names));
    let guest = Guest::new(&client, rules(&["http://*"]));
    for (name, _) in names {
        let (error, _) = guest.refused(&format!("http://{name}/")).await;
        assert_eq!(error, Error::AddressProhibited, "{name}");
    }
}
