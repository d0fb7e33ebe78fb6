//! Functions over real connections: HTTP/1.1 and HTTP/2, bodies without end, clients that leave, heads that no
//! server should take.
#![expect(
    clippy::disallowed_methods,
    reason = "what a test starts beside itself ends with its runtime"
)]

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::site::{
    Site, empty, full, id_of, raw, read_until, request, running, sent, text,
};
use crate::support::world::within;

const BOTH: [&str; 2] = ["http02", "http03"];

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_one_request_after_the_other() {
    let site = Site::start().await;
    for name in BOTH {
        let mut sender = site.http1().await;
        for i in 0..5 {
            sender.ready().await.unwrap();
            let request =
                request(Method::POST, &format!("/fn/{name}/echo")).body(full(format!("{i}")));
            let response = within("a head", sender.send_request(request.unwrap()))
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(text(response).await, i.to_string());
        }
        // A HEAD leaves the connection in order, whatever the function says about a body.
        for path in [
            "/with?body=text&h=content-length:4",
            "/with?body=text",
            "/with?status=204",
            "/stall",
        ] {
            sender.ready().await.unwrap();
            let request = request(Method::HEAD, &format!("/fn/{name}{path}")).body(empty());
            let response = within("a head", sender.send_request(request.unwrap()))
                .await
                .unwrap();
            let length = response.headers().get("content-length");
            let length = length.map(|length| length.to_str().unwrap().to_owned());
            let expected = path.contains("content-length").then(|| "4".to_owned());
            assert_eq!(length, expected, "{name}{path}");
            assert_eq!(text(response).await, "");
        }
        sender.ready().await.unwrap();
        let request = request(Method::GET, &format!("/fn/{name}/headers")).body(empty());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let said = text(response).await;
        assert!(said.contains("x-forwarded-for: 127.0.0.1\n"), "{said}");
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_carries_many_requests_at_once_and_trailers() {
    let site = Site::start().await;
    for name in BOTH {
        let sender = site.http2().await;
        let path = |path: &str| format!("http://localhost/fn/{name}{path}");
        let ask = |i: usize| {
            let mut sender = sender.clone();
            let request = Request::post(path("/echo")).body(full(format!("{i}")));
            async move {
                let response = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(text(response).await, i.to_string());
            }
        };
        within("all", futures_util::future::join_all((0..20).map(ask))).await;

        let trailers = [("x-given".parse().unwrap(), "seven".parse().unwrap())];
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"body"))),
            Ok(Frame::trailers(trailers.into_iter().collect())),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
        let request = Request::post(path("/trailers")).body(body);
        let response = sender.clone().send_request(request.unwrap()).await.unwrap();
        let collected = within("a body", response.into_body().collect())
            .await
            .unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(
            (&trailers["x-given"], &trailers["x-bytes"]),
            (&"seven".parse().unwrap(), &"4".parse().unwrap())
        );

        let request = Request::get(path("/stall")).body(empty());
        let response = sender.clone().send_request(request.unwrap()).await.unwrap();
        let id = id_of(&response);
        drop(response);
        assert_eq!(
            site.ended(&id).await["error"]["code"],
            "CALLER_GONE",
            "a stream that is reset"
        );
        let request = Request::get(path("/panic-late")).body(empty());
        // The reset may overtake the head on its way through the client.
        let broken_off = match within("a head", sender.clone().send_request(request.unwrap())).await
        {
            Ok(response) => within("a body", response.into_body().collect())
                .await
                .is_err(),
            Err(error) => !error.is_closed() && !error.is_timeout(),
        };
        assert!(broken_off);
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_http_2_flow_and_whoever_does_not_read_waits() {
    const BYTES: u64 = 32 << 20;
    let site = Site::start().await;
    for name in BOTH {
        let mut sender = site.http2().await;
        let uri = |path: &str| format!("http://localhost/fn/{name}{path}");
        let request = Request::get(uri(&format!("/down?bytes={BYTES}"))).body(empty());
        let waiting = sender.send_request(request.unwrap()).await.unwrap();
        let id = id_of(&waiting);
        // Beside a stream that nobody reads another goes on.
        let piece = Bytes::from(vec![1_u8; 64 << 10]);
        let frames = (0..BYTES / (64 << 10)).map(move |_| Ok(Frame::data(piece.clone())));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
        let request = Request::post(uri("/up")).body(body);
        let response = within("a head", sender.send_request(request.unwrap())).await;
        assert_eq!(text(response.unwrap()).await, format!("{BYTES} {BYTES}"));
        assert_eq!(site.execution(&id).await["status"], "running");
        assert_eq!(text(waiting).await.len() as u64, BYTES);
        let execution = site.ended(&id).await;
        assert_eq!(execution["status"], "success");
        assert_eq!(execution["outputBytes"], BYTES);
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_trailers_come_to_who_asks_for_them() {
    let site = Site::start().await;
    for name in BOTH {
        let head = format!(
            "POST /fn/{name}/trailers HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\nconnection: te, close\r\n\
             transfer-encoding: chunked\r\ntrailer: x-given\r\n\r\n4\r\nbody\r\n0\r\nx-given: seven\r\n\r\n"
        );
        let answer = raw(&site, head.as_bytes()).await;
        assert!(
            answer.ends_with("4\r\nbody\r\n0\r\nx-given: seven\r\nx-bytes: 4\r\n\r\n"),
            "{answer}"
        );
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_owns_its_host_names_after_a_restart_too() {
    let site = Site::start().await;
    let patch = async |site: &Site, name: &str| {
        let body = full(r#"{"hosts": ["shop.example"]}"#);
        let request = request(Method::PATCH, &format!("/v1/functions/{name}"))
            .header("content-type", "application/json")
            .body(body);
        site.once(request.unwrap()).await.status()
    };
    assert_eq!(patch(&site, "http03").await, 200);
    let site = site.restarted().await;
    let request = Request::get("/with?body=open")
        .header("host", "shop.example")
        .body(empty());
    assert_eq!(text(site.once(request.unwrap()).await).await, "open");
    assert_eq!(patch(&site, "http02").await, 409);
    site.app.stop().await.unwrap();
}

/// This process's memory in use, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_size_takes_the_same_memory() {
    const BYTES: u64 = 256 << 20;
    const PIECE: usize = 64 << 10;
    let site = Site::start().await;
    for name in BOTH {
        let before = resident_mib();
        let mut most = before;
        let request = request(Method::GET, &format!("/fn/{name}/down?bytes={BYTES}")).body(empty());
        let mut body = site.once(request.unwrap()).await.into_body();
        let mut bytes = 0;
        while let Some(frame) = within("a frame", body.frame()).await {
            bytes += frame.unwrap().into_data().unwrap().len() as u64;
            most = most.max(resident_mib());
        }
        assert_eq!(bytes, BYTES);
        assert!(
            most < before + 64,
            "down: {before} MiB before, {most} MiB at most"
        );

        let piece = Bytes::from(vec![1_u8; PIECE]);
        let frames = (0..BYTES / PIECE as u64).map(move |_| Ok(Frame::data(piece.clone())));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
        let request = self::request(Method::POST, &format!("/fn/{name}/up")).body(body);
        let mut sender = site.http1().await;
        let sent = sender.send_request(request.unwrap());
        let mut sent = std::pin::pin!(sent);
        let response = loop {
            tokio::select! {
                response = &mut sent => break response.unwrap(),
                () = tokio::task::yield_now() => most = most.max(resident_mib()),
            }
        };
        assert_eq!(text(response).await, format!("{BYTES} {BYTES}"));
        assert!(
            most < before + 64,
            "up: {before} MiB before, {most} MiB at most"
        );
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_stops_the_function() {
    let site = Site::start().await;
    for name in BOTH {
        for path in ["/stall", "/down?bytes=1000000000"] {
            let request = request(Method::GET, &format!("/fn/{name}{path}")).body(empty());
            let response = site.once(request.unwrap()).await;
            let id = id_of(&response);
            let mut body = response.into_body();
            assert!(within("a frame", body.frame()).await.unwrap().is_ok());
            drop(body);
            let execution = site.ended(&id).await;
            assert_eq!(
                execution["error"]["code"], "CALLER_GONE",
                "{name}{path}: {execution}"
            );
        }
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_is_noticed_while_the_function_neither_reads_nor_writes() {
    let site = Site::start().await;
    let head =
        |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for name in BOTH {
        let (hang, stall) = (format!("/fn/{name}/hang"), format!("/fn/{name}/stall"));
        let post = |path: &str| {
            let head = head("POST", path);
            format!(
                "{head}content-length: 100000000\r\n\r\n{}",
                "x".repeat(30_000)
            )
        };
        let get = |path: &str| format!("{}\r\n", head("GET", path));
        for (bytes, has_head) in [
            (get(&hang), false),
            // A body that nobody reads, and a request that nobody takes up yet: the end is behind them.
            (post(&hang), false),
            (format!("{}{}", get(&hang), get("/fn/http02/with")), false),
            (post(&stall), true),
        ] {
            let mut stream = sent(&site, bytes.as_bytes()).await;
            if has_head {
                read_until(&mut stream, "the beginning").await;
            }
            let id = running(&site, name).await;
            drop(stream);
            let execution = site.ended(&id).await;
            let shown: String = bytes.chars().take(60).collect();
            assert_eq!(
                execution["error"]["code"], "CALLER_GONE",
                "{shown}: {execution}"
            );
            assert_eq!(execution["status"], "timeout", "{shown}");
        }
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_when_the_function_reads_it() {
    let site = Site::start().await;
    for name in BOTH {
        let head = |path: &str| {
            format!(
                "POST /fn/{name}{path} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
            )
        };
        let mut stream = sent(&site, head("/up").as_bytes()).await;
        let first = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"body").await.unwrap();
        let answer = read_until(&mut stream, "4 430").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // One that answers without it never asks.
        let mut stream = sent(&site, head("/early").as_bytes()).await;
        let answer = read_until(&mut stream, "too much").await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_not_the_functions_failure() {
    let site = Site::start().await;
    for name in BOTH {
        let head = format!(
            "POST /fn/{name}/up HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n"
        );
        // Chunks that are none, and a client that leaves in the middle of one.
        for rest in [Some("zz\r\n"), Some("-1\r\n"), None] {
            let mut stream = sent(&site, head.as_bytes()).await;
            let id = running(&site, name).await;
            if let Some(rest) = rest {
                stream.write_all(rest.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                let _ = within("an end", stream.read_to_end(&mut answer)).await;
                let answer = String::from_utf8_lossy(&answer);
                assert!(
                    answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
                    "{answer}"
                );
            }
            drop(stream);
            let execution = site.ended(&id).await;
            assert_eq!(execution["error"]["code"], "CALLER_GONE", "{execution}");
        }
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_stalls_costs_another_nothing() {
    let site = Site::start().await;
    let mut stalled = Vec::new();
    for _ in 0..12 {
        let request = request(Method::GET, "/fn/http02/stall").body(empty());
        let mut sender = site.http1().await;
        stalled.push(tokio::spawn(async move {
            // Kept: a client that drops the head of an answer hangs up.
            let _head = sender.send_request(request.unwrap()).await;
            std::future::pending::<()>().await;
        }));
    }
    running(&site, "http02").await;
    for path in [
        "/panic",
        "/never-there",
        "/flood?count=101",
        "/with?body=fine",
    ] {
        let request = request(Method::GET, &format!("/fn/http03{path}")).body(empty());
        let response = site.once(request.unwrap()).await;
        assert!(
            [200, 404, 502].contains(&response.status().as_u16()),
            "{path}"
        );
        let whole = text(response).await;
        assert!(!whole.is_empty());
    }
    for task in stalled {
        task.abort();
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_without_a_host_is_answered() {
    let site = Site::start().await;
    for name in BOTH {
        let answer = raw(
            &site,
            format!("GET /fn/{name}/headers HTTP/1.0\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        assert!(answer.contains("\nauthority localhost\n"), "{answer}");
        assert!(!answer.contains("chunked"), "{answer}");
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let site = Site::start().await;
    for name in BOTH {
        let head = format!(
            "POST /fn/{name}/early HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\nand more"
        );
        let answer = raw(&site, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("too much"), "{answer}");
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_no_server_should_take_are_refused() {
    let site = Site::start().await;
    let get = |target: &str, rest: &str| {
        format!("GET {target} HTTP/1.1\r\nconnection: close\r\n{rest}\r\n")
    };
    let host = "host: localhost\r\n";
    let many = "x-filler: 1\r\n".repeat(1_000);
    let large = format!("x-filler: {}\r\n", "x".repeat(1 << 20));
    for (head, status) in [
        (get("/fn/http02/with", &format!("{host}{many}")), "431"),
        (get("/fn/http02/with", &format!("{host}{large}")), "431"),
        (
            get("/fn/http02/with", &format!("{host}bad header: 1\r\n")),
            "400",
        ),
        (get("/fn/http02/with", &format!("{host}x\0y: 1\r\n")), "400"),
        (
            get("/fn/http02/with", &format!("{host}x: 1\r\n folded\r\n")),
            "400",
        ),
        (get("/fn/http02/with", &format!("{host}{host}")), "400"),
        (get("/fn/http02/with", ""), "400"),
        (get("/fn/http02/with", "host: a@b\r\n"), "400"),
        (get("/fn/http02/with\u{7f}", host), "400"),
        (
            get(
                "/fn/http02/up",
                &format!("{host}content-length: 1\r\ncontent-length: 2\r\n"),
            ),
            "400",
        ),
        (
            get("/fn/http02/up", &format!("{host}content-length: +1\r\n")),
            "400",
        ),
        (
            get(
                "/fn/http02/up",
                &format!("{host}transfer-encoding: chunked, identity\r\n"),
            ),
            "400",
        ),
    ] {
        let answer = raw(&site, head.as_bytes()).await;
        let shown = answer.chars().take(200).collect::<String>();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head:.200?}: {shown}"
        );
    }
    // Two lengths of which one is chunked: the chunks count, and nothing behind them is another request.
    let both = format!(
        "POST /fn/http02/up HTTP/1.1\r\n{host}connection: close\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /fn/http02/with?body=smuggled HTTP/1.1\r\n{host}\r\n"
    );
    let answer = raw(&site, both.as_bytes()).await;
    assert!(!answer.contains("smuggled"), "{answer}");
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_flows_end_and_breaks_off_what_does_not() {
    let site = Site::start().await;
    let request = request(Method::GET, "/fn/http02/later?ms=200").body(empty());
    let mut sender = site.http1().await;
    let mut waiting = std::pin::pin!(sender.send_request(request.unwrap()));
    tokio::select! {
        _ = &mut waiting => panic!("it sleeps"),
        _ = running(&site, "http02") => {}
    }
    let (response, stopped) = futures_util::join!(waiting, site.app.stop());
    stopped.unwrap();
    assert_eq!(text(response.unwrap()).await, "later");
}
