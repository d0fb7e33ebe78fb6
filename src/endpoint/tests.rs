//! The endpoint against a tiny service on loopback that answers with whatever bytes a test gives it.
//!
//! **Invariant:** every row of the table of statuses is a row here, on a real connection.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::resolver::literal;
use super::{Endpoint, Loopback, Options};
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{
    Code, ContentType, ExecutionId, Failure, Fence, Input, JSON, Timestamp, Version, VersionNumber,
    VersionSpec,
};

/// What the service does with a connection once it has read the request.
#[derive(Clone)]
enum Then {
    Answer(String),
    Nothing,
    Endless,
    HangUp,
}

/// A service that treats every request alike and shows them to the test.
struct Service {
    address: SocketAddr,
    seen: mpsc::Receiver<String>,
    _running: JoinSet<()>,
}

impl Service {
    async fn that(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::channel(16);
        let mut running = JoinSet::new();
        running.spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                serve(connection, &then, &sender).await;
            }
        });
        Self {
            address,
            seen,
            _running: running,
        }
    }

    async fn answering(head: &str, body: &str) -> Self {
        let length = body.len();
        let head = head.replace('\n', "\r\n");
        let text = format!(
            "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        Self::that(Then::Answer(text)).await
    }

    fn url(&self) -> String {
        format!("http://{}/run", self.address)
    }
}

async fn serve(mut connection: TcpStream, then: &Then, seen: &mpsc::Sender<String>) {
    let request = read_request(&mut connection).await;
    let _ = seen.send(request).await;
    match then {
        Then::Answer(text) => {
            let _ = connection.write_all(text.as_bytes()).await;
            let _ = connection.shutdown().await;
        }
        Then::Nothing => std::future::pending().await,
        Then::Endless => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = connection.write_all(head).await;
            let chunk = format!("{:x}\r\n{}\r\n", 65_536, "m".repeat(65_536));
            while connection.write_all(chunk.as_bytes()).await.is_ok() {}
        }
        Then::HangUp => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntoo little";
            let _ = connection.write_all(head).await;
        }
    }
}

async fn read_request(connection: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |it| it.parse::<usize>().unwrap()) {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
}

fn endpoint(loopback: Loopback) -> Endpoint {
    Endpoint::new(Options {
        loopback,
        ..Options::default()
    })
}

fn attempt(url: &str) -> Attempt {
    let version = Version {
        number: VersionNumber(1),
        code: Code::Endpoint { url: url.into() },
        spec: VersionSpec::default(),
        created_at: Timestamp(0),
    };
    Attempt {
        execution_id: ExecutionId::from_bytes([7; 16]),
        function: "there".parse().unwrap(),
        version: Arc::new(version),
        number: 2,
        max_attempts: 3,
        requeues: 0,
        faults: 0,
        fence: Fence::new(1, 5),
        time_limit: Duration::from_secs(60),
        idempotency_key: None,
        trace_id: None,
        traceparent: None,
        metadata: Arc::new([]),
        input: json("{}"),
        secrets: Arc::default(),
    }
}

fn json(text: &'static str) -> Input {
    Input {
        content_type: JSON,
        body: Bytes::from_static(text.as_bytes()),
    }
}

async fn run(attempt: &Attempt) -> Ran {
    endpoint(Loopback::Allowed)
        .run(attempt, &CancellationToken::new())
        .await
}

async fn outcome_of(head: &str, body: &str) -> Outcome {
    let service = Service::answering(head, body).await;
    run(&attempt(&service.url())).await.outcome
}

fn failed(code: &'static str, message: &str) -> Failure {
    Failure::new(code, message)
}

#[tokio::test]
async fn a_2xx_is_a_success_with_the_bytes_and_type_of_the_answer() {
    for status in ["200 OK", "201 Created", "299 Fine"] {
        let head = format!("{status}\nContent-Type: application/json; charset=utf-8");
        let expected = Outcome::Success {
            content_type: Some(ContentType("application/json; charset=utf-8".into())),
            body: Bytes::from_static(b"{\"ok\":  \"pool\"}"),
        };
        assert_eq!(outcome_of(&head, "{\"ok\":  \"pool\"}").await, expected);
    }
    let bare = Outcome::Success {
        content_type: None,
        body: Bytes::new(),
    };
    assert_eq!(outcome_of("200 OK", "").await, bare);
}

#[tokio::test]
async fn every_status_means_what_the_table_says() {
    let said = |status: &str| failed("POOL_ERROR", &format!("the service answered {status}: why"));
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "422 Unprocessable Entity",
    ] {
        let outcome = outcome_of(status, "why").await;
        assert_eq!(outcome, Outcome::Error(said(status)));
    }
    for status in [
        "408 Request Timeout",
        "425 Too Early",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
    ] {
        let outcome = outcome_of(status, " why\n").await;
        assert_eq!(outcome, Outcome::Retry(said(status)));
    }
    for (head, delay_ms) in [
        ("429 Too Many Requests", None),
        ("429 Too Many Requests\nRetry-After: 7", Some(7_000)),
        ("503 Service Unavailable\nRetry-After: 0", Some(0)),
        (
            "503 Service Unavailable\nRetry-After: 99999999999999999999",
            None,
        ),
        ("503 Service Unavailable\nRetry-After: soon", None),
        (
            "503 Service Unavailable\nDate: Mon, 23 Nov 2026 08:59:30 GMT\nRetry-After: Mon, 23 Nov 2026 09:00:00 GMT",
            Some(30_000),
        ),
    ] {
        assert_eq!(
            outcome_of(head, "").await,
            Outcome::Requeue(delay_ms),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_an_error_and_is_not_followed() {
    let mut other = Service::answering("200 OK", "").await;
    let head = format!("302 Found\nLocation: {}", other.url());
    let Outcome::Error(failure) = outcome_of(&head, "").await else {
        panic!("a redirect is final");
    };
    assert_eq!(failure.code, "UNEXPECTED_STATUS");
    assert!(failure.message.contains(&other.url()), "{failure:?}");
    assert!(failure.message.contains("302 Found"), "{failure:?}");
    assert!(other.seen.try_recv().is_err(), "the redirect was followed");
}

#[tokio::test]
async fn a_service_keeps_its_own_code_and_message() {
    for (body, code, message) in [
        (
            r#"{"error":{"code":"NO_STOCK","message":"sold out"}}"#,
            "NO_STOCK",
            "sold out",
        ),
        (
            r#"{"error":"NO_STOCK","message":"sold out"}"#,
            "NO_STOCK",
            "sold out",
        ),
        (
            r#"{"error":"sold out, sorry"}"#,
            "POOL_ERROR",
            "sold out, sorry",
        ),
        (
            r#"{"error":{"message":"sold out"}}"#,
            "POOL_ERROR",
            "sold out",
        ),
        (
            r#"{"error":{"code":"two words","message":"sold out"}}"#,
            "POOL_ERROR",
            "sold out",
        ),
    ] {
        let outcome = outcome_of("400 Bad Request", body).await;
        assert_eq!(outcome, Outcome::Error(failed(code, message)), "{body}");
    }
    for body in [r#"{"error":7}"#, r#"{"error":{}}"#, "[]", "{\"error\":"] {
        let message = format!("the service answered 400 Bad Request: {body}");
        let outcome = outcome_of("400 Bad Request", body).await;
        assert_eq!(outcome, Outcome::Error(failed("POOL_ERROR", &message)));
    }
}

#[tokio::test]
async fn a_long_reason_is_cut_between_characters() {
    let body = "é".repeat(100_000);
    let Outcome::Retry(failure) = outcome_of("500 Internal Server Error", &body).await else {
        panic!("500 is a retry");
    };
    let text = failure
        .message
        .strip_prefix("the service answered 500 Internal Server Error: ");
    assert_eq!(text, Some(format!("{}…", "é".repeat(512)).as_str()));
}

#[tokio::test]
async fn a_cold_start_is_read_from_the_answer() {
    let ran = |head: &'static str| async move {
        let service = Service::answering(head, "").await;
        let ran = run(&attempt(&service.url())).await;
        (ran.cold_start, ran.init_duration)
    };
    let cold = "200 OK\nX-Cold-Start: TRUE\nX-Init-Duration-Ms: 12";
    assert_eq!(ran(cold).await, (true, Some(Duration::from_millis(12))));
    let failing = "500 Internal Server Error\nx-cold-start: true\nx-init-duration-ms: soon";
    assert_eq!(ran(failing).await, (true, None));
    assert_eq!(ran("200 OK\nX-Init-Duration-Ms: 12").await, (false, None));
}

#[tokio::test]
async fn the_request_carries_the_input_untouched_and_all_headers() {
    let mut service = Service::answering("200 OK", "").await;
    let sent = Attempt {
        input: json(r#"{"b": 1.50,  "a": "ü"}"#),
        metadata: Arc::new([("tier".to_owned(), "\"gold\"".to_owned())]),
        idempotency_key: Some("order-7".parse().unwrap()),
        trace_id: Some("trace-1".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        ..attempt(&service.url())
    };
    run(&sent).await;
    let request = service.seen.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body,
        r#"{"input":{"b": 1.50,  "a": "ü"},"metadata":{"tier":"\"gold\""}}"#
    );
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /run http/1.1\r\n"), "{head}");
    for line in [
        "content-type: application/json",
        "x-execution-id: 07070707-0707-0707-0707-070707070707",
        "x-trace-id: trace-1",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "idempotency-key: order-7",
        "x-dispatch-attempt: 1099511627781",
    ] {
        assert!(head.lines().any(|it| it == line), "{line} is not in {head}");
    }
}

#[tokio::test]
async fn input_that_is_not_json_becomes_a_string() {
    let body_of = |content_type: &'static str, body: &'static [u8]| async move {
        let mut service = Service::answering("200 OK", "").await;
        let input = Input {
            content_type: ContentType(content_type.into()),
            body: Bytes::from_static(body),
        };
        let sent = Attempt {
            input,
            ..attempt(&service.url())
        };
        run(&sent).await;
        let request = service.seen.recv().await.unwrap();
        request.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let forged = br#"1, "metadata": {"admin": "yes"}"#;
    for (content_type, body, expected) in [
        (
            "text/plain",
            &b"say \"hi\""[..],
            r#"{"input":"say \"hi\"","metadata":{}}"#,
        ),
        (
            "application/octet-stream",
            b"\x00\xff",
            r#"{"input":"AP8=","metadata":{}}"#,
        ),
        ("text/plain", b"\xff", r#"{"input":"/w==","metadata":{}}"#),
        (
            "application/json",
            forged,
            r#"{"input":"1, \"metadata\": {\"admin\": \"yes\"}","metadata":{}}"#,
        ),
    ] {
        assert_eq!(body_of(content_type, body).await, expected);
    }
}

#[tokio::test]
async fn a_header_that_http_cannot_carry_is_left_out() {
    let mut service = Service::answering("200 OK", "").await;
    let sent = Attempt {
        trace_id: Some("a\r\nX-Evil: 1".into()),
        traceparent: Some("zero\0".into()),
        ..attempt(&service.url())
    };
    let ran = run(&sent).await;
    assert!(matches!(ran.outcome, Outcome::Success { .. }), "{ran:?}");
    let request = service.seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(
        !request.contains("evil") && !request.contains("traceparent"),
        "{request}"
    );
}

#[tokio::test]
async fn an_unreachable_service_is_a_retry_with_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}/run?secret=1");
    let Outcome::Retry(failure) = run(&attempt(&url)).await.outcome else {
        panic!("unreachable is a retry");
    };
    assert_eq!(failure.code, "POOL_ERROR");
    let message = failure.message.to_ascii_lowercase();
    assert!(message.contains("connection refused"), "{message}");
    assert!(message.contains(&address.to_string()), "{message}");
    assert!(!message.contains("secret"), "{message}");

    // A name in .invalid never resolves; whatever the resolver says stands in the message.
    let ran = run(&attempt("http://nobody.invalid/run")).await;
    let Outcome::Retry(failure) = ran.outcome else {
        panic!("an unknown name is a retry: {ran:?}");
    };
    assert!(failure.message.contains("nobody.invalid"), "{failure:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_retry() {
    let service = Service::that(Then::HangUp).await;
    let ran = run(&attempt(&service.url())).await;
    let Outcome::Retry(failure) = ran.outcome else {
        panic!("half an answer is a retry: {ran:?}");
    };
    assert_eq!(failure.code, "POOL_ERROR");
    assert!(
        failure.message.contains("broke while the answer was read"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_slow_service_runs_into_the_limit() {
    let service = Service::that(Then::Nothing).await;
    let sent = Attempt {
        time_limit: Duration::from_millis(30),
        ..attempt(&service.url())
    };
    let Outcome::TimedOut(failure) = run(&sent).await.outcome else {
        panic!("the limit passed");
    };
    assert_eq!(failure.code, "POOL_TIMEOUT");
    assert!(failure.message.contains("after 30 ms"), "{failure:?}");
}

#[tokio::test]
async fn a_stop_interrupts() {
    let mut service = Service::that(Then::Nothing).await;
    let stop = CancellationToken::new();
    let sent = attempt(&service.url());
    let endpoint = endpoint(Loopback::Allowed);
    let stopping = async {
        service.seen.recv().await.unwrap();
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(endpoint.run(&sent, &stop), stopping);
    assert_eq!(ran, Ran::bare(Outcome::Interrupted));
}

#[tokio::test]
async fn an_answer_beyond_a_limit_is_not_read_on() {
    let announced = Service::that(Then::Answer(
        "HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n".to_owned(),
    ))
    .await;
    let endless = Service::that(Then::Endless).await;
    for service in [&announced, &endless] {
        let Outcome::Limit(failure) = run(&attempt(&service.url())).await.outcome else {
            panic!("the answer is too large");
        };
        assert_eq!(failure.code, "OUTPUT_TOO_LARGE");
        assert!(
            failure
                .message
                .contains("6291456 bytes that outputBytesMax"),
            "{failure:?}"
        );
    }
    let small = Endpoint::new(Options {
        loopback: Loopback::Allowed,
        response_bytes_max: 1_000,
        ..Options::default()
    });
    let ran = small
        .run(&attempt(&endless.url()), &CancellationToken::new())
        .await;
    let Outcome::Limit(failure) = ran.outcome else {
        panic!("the answer is too large");
    };
    assert!(
        failure
            .message
            .contains("1000 bytes that the server's limit"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn an_answer_of_exactly_the_limit_is_taken() {
    let service = Service::answering("200 OK", "12345").await;
    let with_limit = |output_bytes_max| {
        let mut sent = attempt(&service.url());
        Arc::make_mut(&mut sent.version).spec.output_bytes_max = output_bytes_max;
        sent
    };
    assert!(matches!(
        run(&with_limit(5)).await.outcome,
        Outcome::Success { .. }
    ));
    assert!(matches!(
        run(&with_limit(4)).await.outcome,
        Outcome::Limit(_)
    ));
}

/// Answers on kept connections, and counts those.
async fn keeping_service() -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            open.spawn(async move {
                while !read_request(&mut connection).await.is_empty() {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    connection.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (address, connections, running)
}

#[tokio::test]
async fn connections_are_kept_for_one_function_and_never_serve_another() {
    let (address, connections, _running) = keeping_service().await;
    let endpoint = Endpoint::new(Options {
        loopback: Loopback::Allowed,
        functions_kept_max: 1,
        ..Options::default()
    });
    let stop = CancellationToken::new();
    let call = async |function: &str| {
        let mut sent = attempt(&format!("http://{address}/run"));
        sent.function = function.parse().unwrap();
        let ran = endpoint.run(&sent, &stop).await;
        assert!(matches!(ran.outcome, Outcome::Success { .. }), "{ran:?}");
        connections.load(Ordering::SeqCst)
    };
    assert_eq!(call("one").await, 1);
    assert_eq!(call("one").await, 1);
    assert_eq!(call("other").await, 2);
}

#[tokio::test]
async fn loopback_is_called_only_where_it_is_allowed() {
    let mut service = Service::answering("200 OK", "").await;
    let port = service.address.port();
    let endpoint = endpoint(Loopback::Refused);
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
    ] {
        let url = format!("http://{host}:{port}/run");
        let ran = endpoint
            .run(&attempt(&url), &CancellationToken::new())
            .await;
        let Outcome::Error(failure) = ran.outcome else {
            panic!("{host} was not refused: {ran:?}");
        };
        assert_eq!(failure.code, "POOL_ERROR");
        assert!(failure.message.contains("loopback address"), "{failure:?}");
    }
    assert!(
        service.seen.try_recv().is_err(),
        "a refused address was called"
    );
    let url = format!("http://localhost:{port}/run");
    assert!(matches!(
        run(&attempt(&url)).await.outcome,
        Outcome::Success { .. }
    ));
}

#[test]
fn urls_are_checked_at_registration() {
    let endpoint = endpoint(Loopback::Refused);
    let long = format!("https://example.org/{}", "x".repeat(2048));
    for (url, complaint) in [
        ("/run", "not an absolute URL"),
        ("", "not an absolute URL"),
        ("http://", "not an absolute URL"),
        ("ftp://example.org/", "starts with ftp"),
        ("file:///etc/passwd", "starts with file"),
        ("https://user:word@example.org/", "contains credentials"),
        ("https://user@example.org/", "contains credentials"),
        (long.as_str(), "longer than 2048 bytes"),
        ("http://169.254.169.254/latest", "link-local"),
        ("http://0xa9fea9fe/latest", "link-local"),
        ("http://0300.0250.0.1/", "private"),
        ("http://[::ffff:10.0.0.1]/", "private"),
        ("http://127.1:8080/", "loopback"),
    ] {
        let error = endpoint.check_url(url).unwrap_err();
        assert!(error.contains(complaint), "{url}: {error}");
    }
    for url in [
        "https://example.org/run?x=1",
        "http://8.8.8.8:80/",
        "http://xn--bcher-kva.example/",
    ] {
        assert_eq!(endpoint.check_url(url), Ok(()), "{url}");
    }
    assert_eq!(literal(&"http://example.org/".parse().unwrap()), None);
}

/// Proves it in a process of its own, whose environment names a proxy that nobody serves.
#[test]
fn proxies_of_the_environment_are_ignored() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "endpoint::tests::a_cold_start_is_read_from_the_answer",
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
async fn services_behind_tls_are_asked_in_http_1_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/run", listener.local_addr().unwrap());
    let (endpoint, attempt) = (endpoint(Loopback::Allowed), attempt(&url));
    let never = CancellationToken::new();
    let hello = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = [0; 5];
        connection.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        connection.read_exact(&mut hello).await.unwrap();
        hello
    };
    let (ran, hello) = tokio::join!(endpoint.run(&attempt, &never), hello);
    assert!(matches!(ran.outcome, Outcome::Retry(_)), "{ran:?}");
    // The protocols that a client offers are in the clear, each behind its length.
    let offers = |protocol: &[u8]| hello.windows(protocol.len()).any(|at| at == protocol);
    assert!(!offers(b"\x02h2"), "HTTP/2 is offered");
}
