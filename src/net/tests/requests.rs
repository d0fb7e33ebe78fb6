//! What a request may ask for, and what it leaves with.

use super::*;

#[tokio::test]
async fn what_is_listed_is_called_and_its_answer_comes_whole() {
    let mut server = Server::that(ok("hello")).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let request = Request::post(format!("{}?b=c%20d", server.url()))
        .header("x-one", "1")
        .body(full("input"))
        .unwrap();
    let response = guest.send(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.body()[..]),
        (200, &b"hello"[..])
    );
    let seen = server.request().await;
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let lines: Vec<_> = head.lines().collect();
    assert_eq!(lines[0], "POST /a?b=c%20d HTTP/1.1");
    assert!(lines.contains(&"x-one: 1"), "{head}");
    assert!(lines.contains(&"content-length: 5"), "{head}");
    assert_eq!(body, "input");
    assert!(guest.notes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_is_as_long_as_its_head_says_or_the_request_fails_for_that() {
    let server = Server::that(ok("hello")).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let stating = |length: &str, body: GuestBody| {
        let request = Request::post(server.url()).header("content-length", length);
        request.body(body).unwrap()
    };
    // Pieces, whose number nobody knows beforehand: 4 bytes in all.
    for (stated, said) in [("5", 4), ("3", 4)] {
        let error = guest.send(stating(stated, pieces(2, 2))).await.unwrap_err();
        assert_eq!(error, Error::RequestLength(said), "{stated}");
        let note = guest.last_note();
        assert!(
            note.contains("is not as long as its Content-Length says"),
            "{note}"
        );
    }
    // The other side would wait for a body that there is not.
    let error = guest.send(stating("5", empty())).await.unwrap_err();
    assert_eq!(error, Error::RequestLength(0));
    guest.send(stating("4", pieces(2, 2))).await.unwrap();
    guest.send(stating("0", empty())).await.unwrap();
}

#[tokio::test]
async fn whatever_is_not_listed_is_refused_and_the_log_says_what_would_allow_it() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let client = client(|_| {});
    let guest = Guest::on_loopback(&client, &server);
    let (error, note) = guest.refused("https://example.org/secret?x").await;
    assert_eq!(error, Error::Denied);
    assert_eq!(
        note,
        "a request was refused: allowHosts does not list https://example.org"
    );
    let (error, note) = guest.refused(&format!("https://127.0.0.1:{port}/")).await;
    assert_eq!(error, Error::Denied);
    assert!(
        note.ends_with(&format!("does not list https://127.0.0.1:{port}")),
        "{note}"
    );
    let (error, _) = guest.refused(&format!("http://localhost:{port}/")).await;
    assert_eq!(error, Error::Denied);
    let (error, _) = guest.refused("http://127.0.0.1/").await;
    assert_eq!(error, Error::Denied);

    let without = Guest::new(
        &client,
        Rules {
            allow_hosts: None,
            ..rules(&[])
        },
    );
    let (error, note) = without.refused(&server.url()).await;
    assert_eq!(error, Error::Denied);
    assert!(
        note.contains("has no allowHosts: add \"http://127.0.0.1:"),
        "{note}"
    );
    let (error, _) = Guest::new(&client, rules(&[])).refused(&server.url()).await;
    assert_eq!(error, Error::Denied);
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn odd_spellings_of_hosts_are_no_hosts() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let guest = Guest::new(
        &client(|_| {}),
        rules(&[&format!("http://*:{port}"), "http://*"]),
    );
    for host in [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "127.0.0.0x1",
        "user@127.0.0.1",
        "user:word@127.0.0.1",
        "127.0.0.1.",
        "localhost.",
        "a..b",
        "[::1%25lo]",
        "127.0.0.1:",
        "%6cocalhost",
    ] {
        let url = format!("http://{host}:{port}/");
        let Ok(request) = Request::get(&url).body(empty()) else {
            // Not even a URL.
            continue;
        };
        let error = guest.send(request).await.expect_err(&url);
        assert_eq!(error, Error::UriInvalid, "{url}");
    }
    for url in [
        "ftp://127.0.0.1/",
        "/a",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
    ] {
        let Ok(request) = Request::get(url).body(empty()) else {
            continue;
        };
        assert_eq!(
            guest.send(request).await.err(),
            Some(Error::UriInvalid),
            "{url}"
        );
    }
    let (_, note) = guest.refused("http://user:word@127.0.0.1/").await;
    assert!(
        note.contains("credentials") && !note.contains("word@"),
        "{note}"
    );
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn tunnels_are_refused() {
    let mut server = Server::that(ok("")).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let request = Request::connect(server.url()).body(empty()).unwrap();
    assert_eq!(guest.send(request).await.err(), Some(Error::MethodInvalid));
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn the_host_header_is_the_urls_and_nobody_elses() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let listed = format!("http://localhost:{port}");
    let guest = Guest::new(&client(|_| {}), rules(&[&listed]));
    let request = Request::get(format!("http://LOCALHOST:{port}/"))
        .header("host", "internal.example")
        .header("host", "other.example")
        .header("connection", "upgrade, x-one")
        .header("upgrade", "websocket")
        .header("transfer-encoding", "chunked")
        .header("proxy-authorization", "Basic eA==")
        .header("keep-alive", "timeout=100")
        .body(empty())
        .unwrap();
    guest.send(request).await.unwrap();
    let seen = server.request().await.to_ascii_lowercase();
    let head = seen.split("\r\n\r\n").next().unwrap();
    let lines: Vec<_> = head.lines().collect();
    assert_eq!(
        lines,
        ["get / http/1.1", &format!("host: localhost:{port}")],
        "{head}"
    );
}

#[tokio::test]
async fn a_request_cannot_be_smuggled_in_another() {
    let mut server = Server::that(ok("")).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    // A length that is too short: what is beyond it must not become the next request on the connection.
    let stating = |length: &str, body: &'static str| {
        let request = Request::post(server.url())
            .header("content-length", length)
            .header("transfer-encoding", "chunked");
        request.body(full(body)).unwrap()
    };
    let evil = stating("4", "bodyGET /evil HTTP/1.1\r\nHost: x\r\n\r\n");
    let good = stating("4", "body");
    let error = guest.send(evil).await.unwrap_err();
    assert!(matches!(error, Error::RequestLength(_)), "{error}");
    guest.send(good).await.unwrap();
    guest.get(&server.url()).await.unwrap();
    loop {
        let seen = server.request().await.to_ascii_lowercase();
        assert!(
            !seen.contains("transfer-encoding") && !seen.contains("evil"),
            "{seen}"
        );
        if seen.starts_with("get /a http/1.1") {
            break;
        }
    }
}

#[tokio::test]
async fn the_trace_goes_on_unless_the_guest_has_one_of_its_own() {
    const OURS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut server = Server::that(ok("")).await;
    let listed = format!("http://{}", server.address);
    let traced = Rules {
        traceparent: Some(OURS.into()),
        ..rules(&[&listed])
    };
    let guest = Guest::new(&client(|_| {}), traced);
    guest.get(&server.url()).await.unwrap();
    assert!(
        server
            .request()
            .await
            .contains(&format!("traceparent: {OURS}\r\n"))
    );
    let mut own = get(&server.url());
    own.headers_mut()
        .insert("traceparent", "00-own".parse().unwrap());
    guest.send(own).await.unwrap();
    let seen = server.request().await;
    assert!(
        seen.contains("traceparent: 00-own\r\n") && !seen.contains(OURS),
        "{seen}"
    );
}
