//! Answers of hostile and clumsy servers.

use super::*;

#[tokio::test]
async fn redirects_come_back_and_are_not_followed() {
    let answer =
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
    let server = Server::that(Then::Answer(answer.into())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let response = guest.get(&server.url()).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(response.headers()["location"], "http://169.254.169.254/");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_changes_the_protocol_is_none() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let server = Server::that(Then::Answer(answer.into())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    assert!(guest.get(&server.url()).await.is_err());
}

#[tokio::test]
async fn answers_that_break_off_or_are_no_http_say_so() {
    let broken = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec();
    let server = Server::that(Then::AnswerAndClose(broken)).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    assert!(guest.get(&server.url()).await.is_err());
    let server = Server::that(Then::AnswerAndClose(b"SSH-2.0-x\r\n".to_vec())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let error = guest.get(&server.url()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
    let server = Server::that(Then::AnswerAndClose(Vec::new())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    assert_eq!(
        guest.get(&server.url()).await.unwrap_err(),
        Error::ResponseIncomplete
    );
}

#[tokio::test]
async fn a_body_streams_both_ways_at_once() {
    const PIECES: usize = 2_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mirror = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.write_all(answer).await.unwrap();
        // The chunks come back as they are while more are on their way.
        let (mut reader, mut writer) = connection.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    };
    let listed = format!("http://{address}");
    let guest = Guest::new(&client(|_| {}), rules(&[&listed]));
    let request = Request::post(format!("{listed}/"))
        .body(pieces(PIECES, 10_000))
        .unwrap();
    let sending = async {
        let answer = guest
            .session
            .send(request, Timeouts::default())
            .await
            .unwrap();
        let mut body = answer.response.into_body();
        let mut received = 0;
        let reading = async {
            while let Some(frame) = body.frame().await {
                received += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
        };
        let (_, ()) = tokio::join!(answer.rest, reading);
        received
    };
    let received = tokio::select! {
        received = sending => received,
        () = async { mirror.await; std::future::pending().await } => 0,
    };
    assert_eq!(received, PIECES * 10_000);
}

#[tokio::test]
async fn trailers_come_through() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n";
    let server = Server::that(Then::Answer(answer.into())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let answer = guest
        .session
        .send(get(&server.url()), Timeouts::default())
        .await
        .unwrap();
    assert!(!answer.response.headers().contains_key("transfer-encoding"));
    let body = answer.response.into_body().collect();
    let (body, ()) = tokio::join!(body, answer.rest);
    let trailers: HeaderMap = body.unwrap().trailers().cloned().unwrap();
    assert_eq!(trailers["x-sum"], "7");
}

/// Proves it in a process of its own, whose environment names a proxy that nobody serves.
#[test]
fn proxies_of_the_environment_are_ignored() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "net::tests::answers::redirects_come_back_and_are_not_followed",
    ]);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = again
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_packed_stays_packed() {
    // A few bytes that would become very many are the guest's to unpack.
    let answer = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\npacked";
    let mut server = Server::that(Then::Answer(answer.into())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let response = guest.get(&server.url()).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(response.body(), "packed");
    let asked = server.request().await.to_ascii_lowercase();
    assert!(!asked.contains("accept-encoding"), "{asked}");
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_none() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nevil";
    let server = Server::that(Then::Answer(answer.into())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let error = guest.get(&server.url()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
}
