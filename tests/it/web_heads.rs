//! Heads over real connections: what they say of a body's length and coding, and of the trace that a request belongs to.

use hyper::{Method, Request};
use serde_json::Value;

use crate::support::site::{Site, empty, full, id_of, raw, request, text};
use crate::support::world::within;

const BOTH: [&str; 2] = ["http02", "http03"];

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An answer of which the head is all.
struct HeadOnly {
    method: Method,
    path: &'static str,
    status: u16,
    /// What the head says over HTTP/1.1 and over HTTP/2.
    lengths: [Option<&'static str>; 2],
}

const fn head(path: &'static str, length: Option<&'static str>) -> HeadOnly {
    HeadOnly {
        method: Method::HEAD,
        path,
        status: 200,
        lengths: [length, length],
    }
}

const fn get(path: &'static str, status: u16, lengths: [Option<&'static str>; 2]) -> HeadOnly {
    HeadOnly {
        method: Method::GET,
        path,
        status,
        lengths,
    }
}

/// The function sends less than it says, more, gives the body up, or traps over it.
const HEADS: [HeadOnly; 12] = [
    head("/with?h=content-length:500", Some("500")),
    head("/with?h=content-length:500&body=text", Some("500")),
    head("/short", Some("10")),
    head("/long", Some("3")),
    head("/aborted", None),
    head("/panic-late", None),
    get(
        "/with?status=304&h=content-length:500",
        304,
        [Some("500"), Some("500")],
    ),
    get(
        "/with?status=304&h=content-length:4&body=text",
        304,
        [Some("4"), Some("4")],
    ),
    get("/with?status=304", 304, [None, None]),
    // Of these nothing has a length, and of a 205 HTTP/1.1 has to say that.
    get("/with?status=204&h=content-length:500", 204, [None, None]),
    get("/with?status=204&body=text", 204, [None, None]),
    get(
        "/with?status=205&h=content-length:500",
        205,
        [Some("0"), None],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_wants_a_body_the_head_is_the_answer() {
    let site = Site::start().await;
    for name in BOTH {
        let mut http1 = site.http1().await;
        let mut http2 = site.http2().await;
        for expected in &HEADS {
            let HeadOnly {
                method,
                path,
                status,
                lengths,
            } = expected;
            let path = format!("/fn/{name}{path}");
            // Over the one connection that all the others went over.
            http1.ready().await.unwrap();
            let asked = request(method.clone(), &path).body(empty()).unwrap();
            let over_1 = within("a head", http1.send_request(asked)).await.unwrap();
            let asked = Request::builder()
                .method(method)
                .uri(format!("http://localhost{path}"))
                .body(empty());
            let over_2 = within("a head", http2.send_request(asked.unwrap())).await;
            for (response, length) in [over_1, over_2.unwrap()].into_iter().zip(lengths) {
                let shown = format!("{method} {path} {:?}", response.version());
                assert_eq!(response.status(), *status, "{shown}");
                let stated = response.headers().get("content-length");
                let stated = stated.map(|stated| stated.to_str().unwrap());
                assert_eq!(stated, *length, "{shown}");
                let id = id_of(&response);
                assert_eq!(text(response).await, "", "{shown}");
                assert_eq!(site.ended(&id).await["status"], "success", "{shown}");
            }
        }
        // A length that is none is one for nobody.
        let path = format!("/fn/{name}/with?h=content-length:many");
        let asked = request(Method::HEAD, &path).body(empty()).unwrap();
        assert_eq!(site.once(asked).await.status(), 502, "{name}");
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_chunks_that_are_not_its_only_coding_is_read_by_nobody() {
    let site = Site::start().await;
    let owned = request(Method::PATCH, "/v1/functions/http03")
        .header("content-type", "application/json")
        .body(full(r#"{"hosts": ["shop.example"]}"#));
    assert_eq!(site.once(owned.unwrap()).await.status(), 200);
    for (host, target) in [
        ("localhost", "/fn/http02/up"),
        ("shop.example", "/up"),
        ("localhost", "/v1/functions/http02:invoke"),
        ("localhost", "/nowhere"),
    ] {
        for codings in [
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: xx\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked, chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        ] {
            let answer = raw(
                &site,
                format!(
                    "POST {target} HTTP/1.1\r\nhost: {host}\r\n{codings}\r\n\r\n0\r\n\r\n\
                     GET /fn/http02/with?body=hidden HTTP/1.1\r\nhost: localhost\r\n\r\n"
                )
                .as_bytes(),
            )
            .await;
            let shown = format!("{host}{target} {codings}: {answer}");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{shown}");
            assert!(answer.contains("connection: close\r\n"), "{shown}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).expect(&shown);
            assert_eq!(body["error"], "BAD_REQUEST", "{shown}");
            let message = body["message"].as_str().unwrap();
            assert!(message.contains("Transfer-Encoding"), "{shown}");
        }
    }
    let list = request(Method::GET, "/v1/executions").body(empty());
    let list: Value = serde_json::from_str(&text(site.once(list.unwrap()).await).await).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 0, "{list}");
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_told_the_trace_that_its_caller_is_in() {
    let site = Site::start().await;
    for name in BOTH {
        for (given, trace) in [
            (
                &[("traceparent", TRACEPARENT)][..],
                Some("0af7651916cd43dd8448eb211c80319c"),
            ),
            (
                &[("traceparent", TRACEPARENT), ("x-trace-id", "own")],
                Some("own"),
            ),
            (&[("traceparent", "00-0-0-00")], None),
            (&[], None),
        ] {
            let mut asked = request(Method::GET, &format!("/fn/{name}/headers"));
            for (header, value) in given {
                asked = asked.header(*header, *value);
            }
            let response = site.once(asked.body(empty()).unwrap()).await;
            let id = id_of(&response);
            let said = text(response).await;
            let told: Vec<_> = said
                .lines()
                .filter_map(|line| line.strip_prefix("x-trace-id: "))
                .collect();
            assert_eq!(told, Vec::from_iter(trace), "{name}: {said}");
            let recorded = &site.ended(&id).await["traceId"];
            assert_eq!(recorded.as_str(), trace, "{name}");
        }
    }
    site.app.stop().await.unwrap();
}
