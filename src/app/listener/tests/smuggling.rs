//! Requests that somebody else may cut where this server does not. hyper sees to them; these say what is relied on.

use super::*;

/// What would be served if it were taken for a request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n";

fn post(lengths: &str, body: &str) -> String {
    format!("POST /up HTTP/1.1\r\nhost: x\r\n{lengths}\r\n\r\n{body}")
}

/// What two lengths let somebody hide: behind the chunks there is a request.
fn two_lengths() -> Vec<String> {
    let body = format!("0\r\n\r\n{HIDDEN}");
    let length = body.len();
    let stated = [
        format!("content-length: {length}\r\ntransfer-encoding: chunked"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}"),
        format!("Transfer-Encoding: Chunked\r\nCONTENT-LENGTH: {length}\r\nconnection: keep-alive"),
        format!(
            "content-length: {length}\r\ncontent-length: {length}\r\ntransfer-encoding: chunked"
        ),
        "transfer-encoding: chunked\r\ncontent-length: nonsense".to_owned(),
    ];
    stated.iter().map(|lengths| post(lengths, &body)).collect()
}

#[tokio::test]
async fn nothing_behind_two_lengths_is_a_request() {
    let world = World::new(BOUNDS).await;
    let honest = post("content-length: 14", "content-length");
    for request in two_lengths() {
        // Alone, byte by byte, and behind others in the same bytes.
        for before in ["", &post("content-length: 1", "x"), &honest.repeat(3)] {
            let calls = world.calls.load(Ordering::SeqCst);
            let answers = read_all(world.send(&format!("{before}{request}")).await).await;
            let expected = before.matches("POST").count() + 1;
            assert_eq!(
                answers.matches("HTTP/1.1 200").count(),
                expected,
                "{answers}"
            );
            assert!(answers.contains("connection: close"), "{answers}");
            assert_eq!(world.calls.load(Ordering::SeqCst), calls + expected);
        }
        let mut stream = world.send("").await;
        stream.set_nodelay(true).unwrap();
        for byte in request.bytes() {
            // The other end may have closed before the last of them.
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let answers = read_all(stream).await;
        assert!(answers.matches("HTTP/1.1 200").count() <= 1, "{answers}");
        assert!(!answers.contains("hello"), "{answers}");
    }
}

#[tokio::test]
async fn one_length_leaves_the_connection_open() {
    let world = World::new(BOUNDS).await;
    let chunked = post("transfer-encoding: chunked", "3\r\nabc\r\n0\r\n\r\n");
    let sized = post("content-length: 3", "abc");
    let mut stream = world.send("").await;
    let mut answers = Vec::new();
    for request in [&*chunked, &chunked, &sized, &chunked, GET] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        answers.extend_from_slice(&answer[..read]);
    }
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 5, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
}
