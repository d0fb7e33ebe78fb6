//! Connections: whose they are, and how many.

use super::*;

#[tokio::test]
async fn connections_are_used_again_by_the_function_that_made_them_and_by_no_other() {
    let server = Server::that(ok("hello")).await;
    let client = client(|_| {});
    let one = Guest::on_loopback(&client, &server);
    for _ in 0..5 {
        one.get(&server.url()).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    // Another attempt of the same function.
    Guest::on_loopback(&client, &server)
        .get(&server.url())
        .await
        .unwrap();
    assert_eq!(server.connections(), 1);
    assert_eq!(client.connections(), (1, 1));
    let listed = format!("http://127.0.0.1:{}", server.port());
    let with_scope = |function: &str, digest: u8| Rules {
        scope: Scope {
            function: function.parse().unwrap(),
            digest: Digest::from_bytes([digest; 32]),
        },
        ..rules(&[&listed])
    };
    for (made, (function, digest)) in [(2, ("other", 7)), (3, ("caller", 8))] {
        let guest = Guest::new(&client, with_scope(function, digest));
        guest.get(&server.url()).await.unwrap();
        assert_eq!(server.connections(), made);
    }
    assert_eq!(client.connections(), (3, 3));
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_again() {
    let once = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    let server = Server::that(Then::AnswerAndClose(once)).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    for made in 1..4 {
        guest.get(&server.url()).await.unwrap();
        assert_eq!(server.connections(), made);
    }
}

#[tokio::test]
async fn kept_connections_are_bounded_in_all_by_function_and_in_time() {
    let servers = [
        Server::that(ok("")).await,
        Server::that(ok("")).await,
        Server::that(ok("")).await,
    ];
    let listed: Vec<_> = servers
        .iter()
        .map(|server| format!("http://{}", server.address))
        .collect();
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let call_all = async |client: &Client, function: &str| {
        let mut rules = rules(&listed);
        rules.scope.function = function.parse().unwrap();
        let guest = Guest::new(client, rules);
        for server in &servers {
            guest.get(&server.url()).await.unwrap();
        }
        client.connections()
    };
    let by_function = client(|options| options.idle_connections_per_function_max = 2);
    assert_eq!(call_all(&by_function, "one").await, (2, 2));
    assert_eq!(call_all(&by_function, "two").await, (4, 4));
    let in_all = client(|options| options.idle_connections_max = 4);
    assert_eq!(call_all(&in_all, "one").await, (3, 3));
    assert_eq!(call_all(&in_all, "two").await, (4, 4));
    let in_time = client(|options| options.idle_timeout_ms = 0);
    assert_eq!(call_all(&in_time, "one").await, (0, 0));
    let in_time = client(|options| options.idle_timeout_ms = 30);
    assert_eq!(call_all(&in_time, "one").await, (3, 3));
    tokio::time::sleep(Duration::from_millis(50)).await;
    in_time.tidy();
    assert_eq!(in_time.connections(), (0, 0));
}

#[tokio::test]
async fn open_connections_are_bounded_and_idle_ones_make_way() {
    let stalled = Server::that(Then::Stall(Vec::new())).await;
    let server = Server::that(ok("")).await;
    let other = Server::that(ok("")).await;
    let listed: Vec<_> = [&stalled, &server, &other]
        .map(|server| format!("http://{}", server.address))
        .into();
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    for change in [
        (|options: &mut Options| options.connections_max = 2) as fn(&mut Options),
        |options| options.connections_per_function_max = 2,
    ] {
        let client = client(|options| {
            options.connect_timeout_ms = 50;
            change(options);
        });
        let guest = Guest::new(&client, rules(&listed));
        guest.get(&server.url()).await.unwrap();
        // The idle one makes way for this one, and for the next.
        guest.get(&other.url()).await.unwrap();
        guest.get(&server.url()).await.unwrap();
        let two = [get(&stalled.url()), get(&stalled.url())];
        let mut held: Vec<_> = two
            .into_iter()
            .map(|request| Box::pin(guest.session.send(request, Timeouts::default())))
            .collect();
        let full = async {
            while client.connections().0 < 2 || client.connections().1 > 0 {
                for held in &mut held {
                    assert!(futures_util::poll!(held).is_pending());
                }
                tokio::task::yield_now().await;
            }
        };
        full.await;
        assert_eq!(
            guest.get(&server.url()).await.unwrap_err(),
            Error::ConnectionLimit
        );
        assert!(guest.last_note().contains("--outgoing-connections-max"));
        drop(held);
        guest.get(&server.url()).await.unwrap();
    }
}
