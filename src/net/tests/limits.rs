//! Limits on size, time and number.

use super::*;

#[tokio::test]
async fn an_answer_beyond_the_limit_is_not_read_on() {
    let announced = Then::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n".to_vec());
    for then in [announced, Then::Endless] {
        let server = Server::that(then).await;
        let small = client(|options| options.response_bytes_max = 100_000);
        let guest = Guest::on_loopback(&small, &server);
        let error = guest.get(&server.url()).await.unwrap_err();
        assert_eq!(error, Error::ResponseBody(100_000));
        let note = guest.last_note();
        assert!(note.contains("--outgoing-response-bytes-max"), "{note}");
    }
    let server = Server::that(ok("12345")).await;
    let exact = client(|options| options.response_bytes_max = 5);
    let guest = Guest::on_loopback(&exact, &server);
    assert_eq!(guest.get(&server.url()).await.unwrap().body(), "12345");
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_not_sent_on() {
    let server = Server::that(ok("")).await;
    let small = client(|options| options.request_bytes_max = 1000);
    let guest = Guest::on_loopback(&small, &server);
    let post = |body| Request::post(server.url()).body(body).unwrap();
    let error = guest.send(post(pieces(11, 100))).await.unwrap_err();
    assert_eq!(error, Error::RequestBody(1000));
    assert!(guest.last_note().contains("--outgoing-request-bytes-max"));
    let announced = Full::from("x".repeat(1001))
        .map_err(Into::into)
        .boxed_unsync();
    assert_eq!(
        guest.send(post(announced)).await.unwrap_err(),
        Error::RequestBody(1000)
    );
    guest.send(post(pieces(10, 100))).await.unwrap();
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_neither_sent_nor_read() {
    let server = Server::that(ok("")).await;
    let small = client(|options| {
        options.headers_max = 10;
        options.header_bytes_max = 8192;
    });
    let guest = Guest::on_loopback(&small, &server);
    let mut many = get(&server.url());
    for number in 0..10 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        many.headers_mut().insert(name, "1".parse().unwrap());
    }
    let mut long = get(&server.url());
    long.headers_mut()
        .insert("x", "y".repeat(8192).parse().unwrap());
    for request in [many, long] {
        assert_eq!(guest.send(request).await.unwrap_err(), Error::RequestHeader);
        assert!(guest.last_note().contains("--outgoing-headers-max"));
    }
    let lines = "x: y\r\n".repeat(11);
    let long = format!("x: {}\r\n", "y".repeat(20_000));
    for fields in [lines, long] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
        let server = Server::that(Then::Answer(answer.into_bytes())).await;
        let guest = Guest::on_loopback(&small, &server);
        assert_eq!(
            guest.get(&server.url()).await.unwrap_err(),
            Error::ResponseHeader
        );
        assert!(guest.last_note().contains("--outgoing-header-bytes-max"));
    }
}

#[tokio::test]
async fn silence_ends_a_request_before_and_within_the_answer() {
    let impatient = client(|options| options.silence_timeout_ms = 30);
    let nothing = Server::that(Then::Stall(Vec::new())).await;
    let guest = Guest::on_loopback(&impatient, &nothing);
    assert_eq!(
        guest.get(&nothing.url()).await.unwrap_err(),
        Error::ReadTimeout
    );
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec();
    let half = Server::that(Then::Stall(half)).await;
    let guest = Guest::on_loopback(&impatient, &half);
    assert_eq!(
        guest.get(&half.url()).await.unwrap_err(),
        Error::ReadTimeout
    );

    // A guest may be less patient than the server, never more.
    let patient = client(|_| {});
    let guest = Guest::on_loopback(&patient, &nothing);
    let timeouts = Timeouts {
        first_byte: Some(Duration::from_millis(10)),
        ..Timeouts::default()
    };
    let sent = guest.session.send(get(&nothing.url()), timeouts).await;
    assert_eq!(sent.err(), Some(Error::ReadTimeout));
    let guest = Guest::on_loopback(&impatient, &nothing);
    let timeouts = Timeouts {
        first_byte: Some(Duration::from_secs(600)),
        ..Timeouts::default()
    };
    let sent = guest.session.send(get(&nothing.url()), timeouts).await;
    assert_eq!(sent.err(), Some(Error::ReadTimeout));
}

#[tokio::test]
async fn a_guest_that_writes_slowly_is_not_cut_for_silence() {
    let mut server = Server::that(ok("")).await;
    let impatient = client(|options| options.silence_timeout_ms = 40);
    let guest = Guest::on_loopback(&impatient, &server);
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok(Frame::data(piece)), receiver))
    });
    let body: GuestBody = StreamBody::new(frames).boxed_unsync();
    let request = Request::post(server.url()).body(body).unwrap();
    let slow = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            sender.send(Bytes::from_static(b"p")).await.unwrap();
        }
        drop(sender);
    };
    let (sent, ()) = tokio::join!(guest.send(request), slow);
    assert_eq!(sent.unwrap().status(), 200);
    assert!(server.request().await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn an_attempt_sends_so_many_requests_and_so_many_at_once() {
    let server = Server::that(ok("")).await;
    let few = client(|options| options.requests_max = 3);
    let guest = Guest::on_loopback(&few, &server);
    for _ in 0..3 {
        guest.get(&server.url()).await.unwrap();
    }
    let (error, note) = guest.refused(&server.url()).await;
    assert_eq!(error, Error::Denied);
    assert!(
        note.contains("may send 3 (the server's --outgoing-requests-max)"),
        "{note}"
    );
    // The next attempt begins anew.
    Guest::on_loopback(&few, &server)
        .get(&server.url())
        .await
        .unwrap();

    let server = Server::that(ok("unread")).await;
    let narrow = client(|options| {
        options.requests_at_once_max = 2;
        options.connect_timeout_ms = 50;
    });
    let guest = Guest::on_loopback(&narrow, &server);
    let send = || guest.session.send(get(&server.url()), Timeouts::default());
    let (first, second) = (send().await.unwrap(), send().await.unwrap());
    let third = send().await;
    assert_eq!(third.err(), Some(Error::ConnectionLimit));
    assert!(
        guest
            .last_note()
            .contains("--outgoing-requests-at-once-max")
    );
    drop(first);
    send().await.unwrap();
    drop(second);
}

#[tokio::test]
async fn trailers_beyond_the_limit_are_not_read_on() {
    let fields = "x: y\r\n".repeat(5_000);
    let answer =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{fields}\r\n");
    let server = Server::that(Then::Answer(answer.into_bytes())).await;
    let small = client(|options| {
        options.headers_max = 10;
        options.header_bytes_max = 8192;
    });
    let guest = Guest::on_loopback(&small, &server);
    assert!(guest.get(&server.url()).await.is_err());
}
