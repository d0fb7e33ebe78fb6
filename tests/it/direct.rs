//! Functions as web servers, `/fn/{name}/…`: what passes through, what is recorded, what happens when it goes wrong.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::guests;
use crate::support::programs::{COPIES, SPINS, exits, program};
use crate::support::web_guests::{http02, http03};
use crate::support::world::{Answer, World, within};

const BOTH: [&str; 2] = ["http02", "http03"];

/// Both versions of the same function, in the background.
async fn both() -> World {
    World::new()
        .background()
        .function("http02", http02())
        .function("http03", http03())
        .await
}

/// The answer to a request without a body.
async fn get(world: &World, path: &str) -> Answer {
    within(path, world.get(path)).await
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

/// The execution that an answer was given by, once it has ended.
async fn execution_of(world: &World, answer: &Answer) -> Value {
    world.ended(answer.header("x-execution-id")).await
}

#[tokio::test]
async fn the_function_sees_the_request_as_it_was_sent_without_its_prefix() {
    let world = both().await;
    for name in BOTH {
        let headers = [
            ("x-own", "1"),
            ("content-type", "text/csv"),
            ("x-execution-id", "spoofed"),
        ];
        let path = format!("/fn/{name}/headers?a=%2F&b");
        let answer = world.ask("PUT", &path, &headers, "body").await;
        assert_eq!(answer.status, 200);
        let id = answer.header("x-execution-id");
        let said = text(&answer);
        for line in [
            "Method::Put /headers?a=%2F&b",
            "scheme http",
            "authority localhost",
            "x-own: 1",
            "content-type: text/csv",
            "x-forwarded-host: localhost",
            "x-forwarded-proto: http",
            &format!("x-forwarded-prefix: /fn/{name}"),
            &format!("x-execution-id: {id}"),
        ] {
            assert!(
                said.lines().any(|it| it == line),
                "{line} is not in:\n{said}"
            );
        }
        for (path, seen) in [
            ("", "/"),
            ("/", "/"),
            ("?q", "/?q"),
            ("//x/../y%20z", "//x/../y%20z"),
        ] {
            let echoed = world
                .ask("POST", &format!("/fn/{name}{path}"), &[], seen)
                .await;
            let status = if seen.starts_with("//") { 404 } else { 200 };
            assert_eq!(echoed.status, status, "{path}");
        }
        // The name may be written in other ways, the path is left as it is.
        let escaped = name.replacen('h', "%68", 1);
        let answer = get(&world, &format!("/fn/{escaped}/with?body=%252F")).await;
        assert_eq!(text(&answer), "%2F");
    }
}

#[tokio::test]
async fn status_headers_and_body_pass_through() {
    let world = both().await;
    for name in BOTH {
        for status in [200, 201, 302, 404, 429, 500, 503] {
            let path = format!(
                "/fn/{name}/with?status={status}&body=why&h=location:/x&h=x-own:a&h=x-own:b"
            );
            let answer = get(&world, &path).await;
            assert_eq!(answer.status, status);
            assert_eq!(text(&answer), "why");
            assert_eq!(answer.header("location"), "/x");
            let own: Vec<_> = answer.headers.get_all("x-own").iter().collect();
            assert_eq!(own, ["a", "b"]);
            let execution = execution_of(&world, &answer).await;
            let (expected, code) = match status {
                200..=399 => ("success", Value::Null),
                _ => ("error", json!(format!("HTTP_{status}"))),
            };
            assert_eq!(execution["status"], expected, "{status}");
            assert_eq!(execution["error"]["code"], code, "{status}");
            assert_eq!(execution["attempts"], 1, "{status}");
        }
        for status in [204, 304] {
            let path = format!("/fn/{name}/with?status={status}&body=none");
            let answer = get(&world, &path).await;
            assert_eq!((answer.status, text(&answer)), (status, ""));
        }
    }
}

#[tokio::test]
async fn of_an_exchange_only_a_summary_is_kept() {
    let world = both().await;
    for name in BOTH {
        let body = "x".repeat(100_000);
        let answer = world
            .ask("POST", &format!("/fn/{name}/echo"), &[], body.clone())
            .await;
        assert_eq!(text(&answer), body);
        let execution = execution_of(&world, &answer).await;
        assert_eq!(execution["status"], "success");
        assert_eq!(execution["inputKept"], false);
        assert_eq!(execution["output"], Value::Null);
        assert_eq!(execution["inputBytes"], 100_000);
        assert_eq!(execution["outputBytes"], 100_000);
        // What says more than that all went well is kept.
        let answer = get(&world, &format!("/fn/{name}/log")).await;
        let attempts = {
            let id = answer.header("x-execution-id").to_owned();
            world.ended(&id).await;
            world.attempts(&id).await
        };
        assert_eq!(attempts[0]["lines"][0]["text"], "to stdout");

        let failed = get(&world, &format!("/fn/{name}/panic")).await;
        let id = failed.header("x-execution-id");
        let redrive = world
            .post(&format!("/v1/executions/{id}:redrive"), json!({}))
            .await;
        redrive.refused(409, "INPUT_NOT_KEPT");
    }
}

#[tokio::test]
async fn a_function_that_gives_no_http_is_a_bad_gateway_and_the_cause_is_its_authors() {
    let world = both().await;
    for (path, code, names) in [
        ("/never", "NO_RESPONSE", &BOTH[..]),
        ("/error-code", "RESPONSE_ERROR", &BOTH),
        ("/twice", "RESPONSE_SET_TWICE", &BOTH),
        ("/short", "BODY_TOO_SHORT", &BOTH),
        ("/long", "BODY_TOO_LONG", &BOTH),
        ("/aborted", "BODY_ABORTED", &BOTH),
        ("/flood?count=101", "RESPONSE_HEADERS_TOO_LARGE", &BOTH),
        (
            "/flood?count=2&bytes=17000",
            "RESPONSE_HEADERS_TOO_LARGE",
            &BOTH,
        ),
        ("/with?status=103", "UNEXPECTED_STATUS", &BOTH),
        ("/with?status=601", "UNEXPECTED_STATUS", &["http02"]),
        ("/panic", "TRAP", &BOTH),
    ] {
        for name in names {
            let answer = get(&world, &format!("/fn/{name}{path}")).await;
            let message = answer.clone().refused(502, code);
            assert!(!message.contains("own words"), "{message}");
            let execution = execution_of(&world, &answer).await;
            assert_eq!(execution["status"], "error", "{name}{path}");
            assert_eq!(execution["error"]["code"], code);
            assert_eq!(execution["attempts"], 1);
            if code == "TRAP" {
                let told = execution["error"]["message"].as_str().unwrap();
                assert!(told.contains("own words"), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn a_length_that_is_none_never_reaches_a_client() {
    let world = both().await;
    for name in BOTH {
        for lengths in [
            "h=content-length:x",
            "h=content-length:1&h=content-length:2",
        ] {
            let answer = get(&world, &format!("/fn/{name}/with?{lengths}")).await;
            assert_eq!(answer.status, 502, "{name}: {}", text(&answer));
            let execution = execution_of(&world, &answer).await;
            let code = execution["error"]["code"].as_str().unwrap();
            // Their host calls know one of them, and trap this guest, which is sure of its body.
            assert!(
                ["CONTENT_LENGTH_INVALID", "BODY_TOO_SHORT", "TRAP"].contains(&code),
                "{execution}"
            );
        }
    }
}

#[tokio::test]
async fn limits_end_an_exchange() {
    let world = both().await;
    for name in BOTH {
        let limits = json!({"timeoutMs": 200, "memoryMb": 16});
        world
            .patch(&format!("/v1/functions/{name}"), limits)
            .await
            .expect(200);
        for path in ["/hang", "/spin"] {
            let answer = get(&world, &format!("/fn/{name}{path}")).await;
            answer.clone().refused(504, "TIMEOUT");
            assert_eq!(execution_of(&world, &answer).await["status"], "timeout");
        }
        let answer = get(&world, &format!("/fn/{name}/alloc")).await;
        answer.clone().refused(500, "MEMORY_LIMIT");
        // There is no limit to what flows but time.
        let patch = json!({"timeoutMs": 60_000, "outputBytesMax": 1});
        world
            .patch(&format!("/v1/functions/{name}"), patch)
            .await
            .expect(200);
        let answer = get(&world, &format!("/fn/{name}/down?bytes=1000000")).await;
        assert_eq!(answer.body.len(), 1_000_000);
    }
}

/// The response to a request whose body the test sends, and where it sends it.
async fn open(world: &World, path: &str) -> (Response<Body>, mpsc::Sender<Bytes>) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece: Bytes = mpsc::Receiver::recv(&mut receiver).await?;
        Some((Ok::<_, std::io::Error>(piece), receiver))
    });
    let request = Request::post(path)
        .header("host", "localhost")
        .body(Body::from_stream(pieces));
    let response = within("a head", world.open(request.unwrap())).await;
    (response, sender)
}

async fn next(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    let frame = within("a frame", body.frame()).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

#[tokio::test]
async fn bodies_flow_both_ways_at_once() {
    let world = both().await;
    for name in BOTH {
        // The head is there before the first byte of the body is sent.
        let (response, sender) = open(&world, &format!("/fn/{name}/echo")).await;
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        for part in ["one", "two", "three"] {
            sender
                .send(Bytes::from_static(part.as_bytes()))
                .await
                .unwrap();
            assert_eq!(next(&mut body).await.unwrap().unwrap(), part);
        }
        drop(sender);
        assert!(next(&mut body).await.is_none());
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_is_read() {
    let world = both().await;
    for name in BOTH {
        let (response, _sender) = open(&world, &format!("/fn/{name}/early")).await;
        assert_eq!(response.status(), 413);
        let body = within("the body", response.into_body().collect())
            .await
            .unwrap();
        assert_eq!(body.to_bytes(), "too much");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let world = both().await;
    for name in BOTH {
        let trailers = [("x-given".parse().unwrap(), "seven".parse().unwrap())];
        let frames = [
            Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from_static(b"body"))),
            Ok(hyper::body::Frame::trailers(trailers.into_iter().collect())),
        ];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post(format!("/fn/{name}/trailers"))
            .header("host", "localhost")
            .body(Body::new(body));
        let response = world.open(request.unwrap()).await;
        let collected = within("the body", response.into_body().collect())
            .await
            .unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(trailers["x-given"], "seven");
        assert_eq!(trailers["x-bytes"], "4");
        assert_eq!(collected.to_bytes(), "body");
    }
}

#[tokio::test]
async fn a_caller_who_does_not_read_makes_the_function_wait() {
    let world = both().await;
    for name in BOTH {
        world
            .patch(&format!("/v1/functions/{name}"), json!({"concurrency": 1}))
            .await
            .expect(200);
        let request = Request::get(format!("/fn/{name}/down?bytes=10000000"))
            .header("host", "localhost")
            .body(Body::empty());
        let response = within("a head", world.open(request.unwrap())).await;
        let id = response.headers()["x-execution-id"]
            .to_str()
            .unwrap()
            .to_owned();
        // It has the function's only slot as long as it is not read to its end.
        let path = format!("/fn/{name}/with?body=second");
        let mut second = std::pin::pin!(world.get(&path));
        for _ in 0..1_000 {
            assert!(second.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        assert_eq!(world.status(&id).await, "running");
        let body = within("the body", response.into_body().collect())
            .await
            .unwrap();
        assert_eq!(body.to_bytes().len(), 10_000_000);
        assert_eq!(text(&within("the second", second).await), "second");
        assert_eq!(world.ended(&id).await["status"], "success");
    }
}

#[tokio::test]
async fn a_caller_who_leaves_stops_the_function() {
    let world = both().await;
    for name in BOTH {
        for path in ["/stall", "/down?bytes=100000000"] {
            let request = Request::get(format!("/fn/{name}{path}"))
                .header("host", "localhost")
                .body(Body::empty());
            let response = within("a head", world.open(request.unwrap())).await;
            let id = response.headers()["x-execution-id"]
                .to_str()
                .unwrap()
                .to_owned();
            let mut body = response.into_body();
            assert!(next(&mut body).await.unwrap().is_ok());
            assert_eq!(world.status(&id).await, "running");
            drop(body);
            let execution = world.ended(&id).await;
            assert_eq!(execution["status"], "timeout", "{execution}");
            assert_eq!(execution["error"]["code"], "CALLER_GONE");
        }
        // One who leaves before there is a head.
        let path = format!("/fn/{name}/hang");
        let waiting = world.get(&path);
        let gone = tokio::time::timeout(Duration::from_millis(50), waiting).await;
        assert!(gone.is_err());
        within("an empty plane", async {
            while world.plane.scheduler.load().running > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let last = &world.executions_of(name).await[0];
        assert_eq!(last["error"]["code"], "CALLER_GONE", "{last}");
    }
}

#[tokio::test]
async fn what_goes_wrong_after_the_head_breaks_the_body_off() {
    let world = both().await;
    for name in BOTH {
        world
            .patch(&format!("/v1/functions/{name}"), json!({"timeoutMs": 300}))
            .await
            .expect(200);
        for (path, status, code) in [
            ("/panic-late", "error", "TRAP"),
            ("/stall", "timeout", "TIMEOUT"),
        ] {
            let request = Request::get(format!("/fn/{name}{path}"))
                .header("host", "localhost")
                .body(Body::empty());
            let response = within("a head", world.open(request.unwrap())).await;
            assert_eq!(response.status(), 200);
            let id = response.headers()["x-execution-id"]
                .to_str()
                .unwrap()
                .to_owned();
            let mut body = response.into_body();
            assert_eq!(next(&mut body).await.unwrap().unwrap(), "the beginning");
            assert!(next(&mut body).await.unwrap().is_err(), "{path}");
            let execution = world.ended(&id).await;
            assert_eq!(execution["status"], status, "{name}{path}");
            assert_eq!(execution["error"]["code"], code, "{name}{path}");
        }
    }
}

#[tokio::test]
async fn a_function_may_work_on_after_its_answer() {
    let world = both().await;
    let answer = get(&world, "/fn/http03/after").await;
    assert_eq!(text(&answer), "complete");
    let id = answer.header("x-execution-id");
    assert_eq!(world.ended(id).await["status"], "success");
    assert_eq!(world.attempts(id).await[0]["lines"][0]["text"], "worked on");

    let answer = get(&world, "/fn/http02/panic-after").await;
    assert_eq!(text(&answer), "complete");
    let execution = execution_of(&world, &answer).await;
    assert_eq!(execution["status"], "success");
}

#[tokio::test]
async fn a_head_needs_no_body() {
    let world = both().await;
    for name in BOTH {
        for path in [
            "/with?body=text&h=content-length:4&h=x-own:1",
            "/down?bytes=100000000",
            "/stall",
        ] {
            let answer = world
                .ask("HEAD", &format!("/fn/{name}{path}"), &[], "")
                .await;
            assert_eq!((answer.status, text(&answer)), (200, ""));
            if path.starts_with("/with") {
                assert_eq!(answer.header("content-length"), "4");
                assert_eq!(answer.header("x-own"), "1");
            } else {
                assert_eq!(answer.header("content-length"), "", "nobody knows it");
            }
            assert_eq!(execution_of(&world, &answer).await["status"], "success");
        }
    }
}

#[tokio::test]
async fn exchanges_are_admitted_like_calls() {
    let world = World::new()
        .function("slow", http02())
        .spec(json!({"concurrency": 1, "queueSize": 1}))
        .function("rare", http02())
        .spec(json!({"ratePerSecond": 1}))
        .background()
        .await;
    let hanging = world.get("/fn/slow/hang");
    let waiting = world.get("/fn/slow/");
    let (mut hanging, mut waiting) = (std::pin::pin!(hanging), std::pin::pin!(waiting));
    assert!(hanging.as_mut().now_or_never().is_none());
    within("a running one", async {
        while world.plane.scheduler.load().running == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(waiting.as_mut().now_or_never().is_none());
    get(&world, "/fn/slow/").await.refused(429, "QUEUE_FULL");

    assert_eq!(get(&world, "/fn/rare/with").await.status, 200);
    let limited = get(&world, "/fn/rare/with").await;
    assert_eq!(limited.header("x-queue-reject-reason"), "rate");
    limited.refused(429, "RATE_LIMITED");

    get(&world, "/fn/nobody/x")
        .await
        .refused(404, "FUNCTION_NOT_FOUND");
    get(&world, "/fn/%ff/x").await.refused(400, "BAD_REQUEST");
    get(&world, "/fn").await.refused(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_queued_exchange_is_given_up_when_its_time_is_over() {
    let world = World::new()
        .function("slow", http02())
        .spec(json!({"timeoutMs": 100}))
        .await;
    // Nothing moves here unless it is drained.
    let answer = get(&world, "/fn/slow/with").await;
    answer.clone().refused(504, "TIMEOUT");
    assert_eq!(execution_of(&world, &answer).await["attempts"], 0);
    let mut waiting = std::pin::pin!(world.get("/fn/slow/with?body=drained"));
    assert!(waiting.as_mut().now_or_never().is_none());
    let (answer, drained) = futures_util::join!(waiting, world.drain("slow"));
    assert_eq!((text(&answer), &*drained), ("drained", "success"));
}

#[tokio::test]
async fn other_shapes_take_the_body_and_give_their_output() {
    let world = World::new()
        .background()
        .function("echo", guests::wasm("echo"))
        .function("copies", program(COPIES))
        .echo("builtin")
        .function("refuses", exits(65, "bad data"))
        .function("fails", exits(1, "own words"))
        .function("later", exits(75, ""))
        .function("traps", program("unreachable"))
        .function("large", program(COPIES))
        .spec(json!({"outputBytesMax": 3}))
        .function("spins", program(SPINS))
        .spec(json!({"timeoutMs": 100}))
        .await;
    let post = async |name: &str, body: &'static str| {
        let headers = [("content-type", "application/json")];
        world
            .ask("POST", &format!("/fn/{name}/any/path"), &headers, body)
            .await
    };
    let answer = post("echo", r#"{"a": 1}"#).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(text(&answer), r#"{"a": 1}"#);
    let execution = execution_of(&world, &answer).await;
    assert_eq!(execution["inputKept"], false, "{execution}");
    assert_eq!(
        (&execution["inputBytes"], &execution["outputBytes"]),
        (&json!(8), &json!(8))
    );
    let answer = post("copies", r#""a text""#).await;
    assert_eq!(
        (text(&answer), answer.header("content-type")),
        ("a text", "text/plain; charset=utf-8")
    );
    let html = [("content-type", "text/html")];
    let answer = world.ask("POST", "/fn/builtin", &html, "<b>").await;
    assert_eq!(
        (text(&answer), answer.header("content-type")),
        ("<b>", "text/html")
    );
    assert!(
        answer
            .header("content-security-policy")
            .starts_with("sandbox")
    );

    assert!(
        post("refuses", "1")
            .await
            .refused(422, "EXIT_65")
            .contains("bad data")
    );
    let failed = post("fails", "1").await;
    assert_eq!(execution_of(&world, &failed).await["attempts"], 1);
    assert!(failed.refused(503, "EXIT_1").contains("own words"));
    let later = post("later", "1").await;
    assert_eq!(later.header("retry-after"), "1");
    assert_eq!(execution_of(&world, &later).await["requeues"], 0);
    later.refused(503, "REQUEUE");
    post("traps", "1").await.refused(502, "TRAP");
    post("large", "12345")
        .await
        .refused(500, "OUTPUT_TOO_LARGE");
    post("spins", "1").await.refused(504, "TIMEOUT");
}

#[tokio::test]
async fn a_body_that_goes_in_whole_is_bounded() {
    let world = World::new()
        .background()
        .options(|options| options.body_bytes_max = 100)
        .echo("builtin")
        .await;
    let answer = world.ask("POST", "/fn/builtin", &[], "x".repeat(101)).await;
    answer.refused(413, "PAYLOAD_TOO_LARGE");
}
