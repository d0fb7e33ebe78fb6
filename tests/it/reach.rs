//! What functions reach: whom they may call and how, proved with guests that try.

use std::path::Path;
use std::sync::Arc;

use pelton::net::Loopback;
use pelton::runtime::{InProcessCompiler, Options, Runtime};
use serde_json::{Value, json};

use crate::support::guests;
use crate::support::origin::{Origin, Reply, ok};
use crate::support::web_guests::{http02, http03, probe_calls};
use crate::support::world::World;

/// A plane with the probe, which may call these.
async fn probing(allow_hosts: &[String]) -> World {
    World::new()
        .background()
        .function("probe", probe_calls())
        .spec(json!({"maxRetries": 1, "allowHosts": allow_hosts}))
        .await
}

/// What the probe printed of a script, and what the plane wrote into its log.
async fn probed(world: &World, script: &str) -> (String, String) {
    let answer = world.invoke("probe", json!(script)).await;
    let notes = notes(world, &answer.id()).await;
    let answer = answer.expect(200);
    assert_eq!(answer["status"], "success", "{answer}");
    let printed = answer["output"].as_str();
    let printed = printed.unwrap_or_else(|| panic!("{answer}"));
    (printed.trim_end().to_owned(), notes)
}

/// What the probe printed of a script.
async fn probe(world: &World, script: &str) -> String {
    probed(world, script).await.0
}

/// The lines of the plane's own in the log of an execution.
async fn notes(world: &World, id: &str) -> String {
    let attempts = world.attempts(id).await;
    let lines = attempts
        .iter()
        .flat_map(|attempt| attempt["lines"].as_array().unwrap().clone());
    let notes = lines
        .filter(|line| line["stream"] == "pelton")
        .map(|line| line["text"].as_str().unwrap().to_owned());
    notes.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn code_that_may_call_out_is_deployed_only_with_a_grant() {
    let world = World::new().background().await;
    let message = world
        .upload("probe", probe_calls())
        .await
        .refused(422, "NOT_GRANTED");
    assert!(
        message.contains("wasi:http/outgoing-handler@0.2"),
        "{message}"
    );
    assert!(message.contains("set allowHosts"), "{message}");
    world
        .get("/v1/functions/probe")
        .await
        .refused(404, "FUNCTION_NOT_FOUND");

    // Granted to call nobody, it runs, and each call is refused with what would allow it.
    let spec = json!({"allowHosts": []});
    world
        .upload_with("probe", &spec, &probe_calls())
        .await
        .expect(201);
    let (printed, notes) = probed(&world, "GET https://example.org/").await;
    assert_eq!(printed, "error ErrorCode::HttpRequestDenied");
    assert_eq!(
        notes,
        "a request was refused: allowHosts does not list https://example.org"
    );
    // What was granted is not taken away from under the code.
    let patch = json!({"allowHosts": null});
    world
        .patch("/v1/functions/probe", patch)
        .await
        .refused(422, "NOT_GRANTED");
    let deployed = world.upload_with("probe", &json!({}), &probe_calls()).await;
    deployed.refused(422, "NOT_GRANTED");
    assert_eq!(
        world.get("/v1/functions/probe").await.expect(200)["version"],
        1
    );
    let shown = world
        .patch("/v1/functions/probe", json!({"allowHosts": ["a.example"]}))
        .await;
    assert_eq!(
        shown.expect(200)["allowHosts"],
        json!(["https://a.example"])
    );
}

#[tokio::test]
async fn functions_of_wasi_http_are_deployed_without_a_grant_and_call_nobody_until_they_have_one() {
    let origin = Origin::answering(|_| ok("hello")).await;
    let world = World::new().background().await;
    for (name, wasm) in [("http02", http02()), ("http03", http03())] {
        let target = origin.url();
        let spec = json!({"maxRetries": 1, "invokePath": format!("/send?to={target}/")});
        world.upload_with(name, &spec, &wasm).await.expect(201);
        let answer = world.invoke(name, json!(1)).await;
        let notes = notes(&world, &answer.id()).await;
        let answer = answer.expect(200);
        assert_eq!(answer["output"], "ErrorCode::HttpRequestDenied", "{name}");
        assert!(
            notes.contains("has no allowHosts: add \"http://127.0.0.1"),
            "{notes}"
        );
        let seen = origin.seen().len();

        let path = format!("/v1/functions/{name}");
        world
            .patch(&path, json!({"allowHosts": [target]}))
            .await
            .expect(200);
        let answer = world.invoke(name, json!(1)).await.expect(200);
        assert_eq!(answer["output"], "status 200", "{name}: {answer}");
        assert!(
            origin
                .last()
                .contains(&format!("host: {}\r\n", origin.address))
        );
        world
            .patch(&path, json!({"allowHosts": null}))
            .await
            .expect(200);
        let answer = world.invoke(name, json!(1)).await.expect(200);
        assert_eq!(answer["output"], "ErrorCode::HttpRequestDenied", "{name}");
        assert_eq!(origin.seen().len(), seen + 1);
    }
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn the_link_check_asks_a_server_of_this_machine() {
    let origin = Origin::answering(|request| match request {
        request if request.starts_with("HEAD /gone") => {
            Reply::Send("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n".to_owned())
        }
        request if request.starts_with("HEAD /moved") => Reply::Send(
            "HTTP/1.1 301 Moved Permanently\r\nlocation: /new\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
        ),
        request if request.starts_with("HEAD /no-head") => Reply::Send(
            "HTTP/1.1 405 Method Not Allowed\r\nallow: GET\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        request if request.starts_with("HEAD") => {
            Reply::Send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_owned())
        }
        _ => ok("hello"),
    })
    .await;
    let url = origin.url();
    let spec = json!({"maxRetries": 1, "allowHosts": [url]});
    let world = World::new()
        .background()
        .function("links", guests::wasm("link-check"))
        .spec(spec)
        .await;
    let at = |path: &str| format!("{url}{path}");
    let elsewhere = format!("http://localhost:{}/", origin.port());
    let urls = [
        at("/fine"),
        at("/gone"),
        at("/moved"),
        at("/no-head"),
        elsewhere.clone(),
    ];
    let answer = world.invoke("links", json!({"urls": urls})).await;
    let notes = notes(&world, &answer.id()).await;
    let report = answer.expect(200)["output"].clone();
    assert_eq!(
        report,
        json!({"checked": 5, "broken": 2, "links": [
            {"url": at("/fine"), "ok": true, "status": 200},
            {"url": at("/gone"), "ok": false, "status": 410},
            {"url": at("/moved"), "ok": true, "status": 301, "location": "/new"},
            {"url": at("/no-head"), "ok": true, "status": 200},
            {"url": elsewhere, "ok": false, "error": report["links"][4]["error"]},
        ]})
    );
    let error = report["links"][4]["error"].as_str().unwrap();
    assert!(error.contains("HttpRequestDenied"), "{error}");
    assert!(notes.contains("allowHosts does not list http://localhost"));
    assert_eq!(origin.seen().len(), 5, "four with HEAD and one with GET");
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_and_its_answer_comes_back_whole() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let origin = Origin::answering(|_| {
        Reply::Send("HTTP/1.1 201 Created\r\nx-back: 1\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned())
    })
    .await;
    let world = probing(&[format!("http://localhost:{}", origin.port())]).await;
    let script = format!(
        "POST http://localhost:{}/a/b?c=d%20e\nx-one: 1\ncontent-type: text/plain\n\nthe body",
        origin.port()
    );
    let headers = [("traceparent", TRACE)];
    let answer = world
        .invoke_with("probe", &headers, json!(script))
        .await
        .expect(200);
    let printed = answer["output"].as_str().unwrap();
    assert_eq!(
        printed, "status 201\nx-back: 1\nbody 5: hello\n",
        "{answer}"
    );
    let seen = origin.last();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().collect();
    assert_eq!(lines.remove(0), "POST /a/b?c=d%20e HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "content-type: text/plain",
            &format!("host: localhost:{}", origin.port()),
            &format!("traceparent: {TRACE}"),
            "transfer-encoding: chunked",
            "x-one: 1",
        ]
    );
    assert_eq!(body, "8\r\nthe body\r\n0\r\n\r\n");
}

#[tokio::test]
async fn hosts_have_one_spelling_and_headers_of_the_connection_are_nobodys() {
    let origin = Origin::answering(|_| ok("")).await;
    let port = origin.port();
    let world = probing(&[format!("http://*:{port}"), format!("https://*:{port}")]).await;
    for host in [
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "user:word@127.0.0.1",
        "127.0.0.1.",
    ] {
        let (printed, notes) = probed(&world, &format!("GET http://{host}:{port}/")).await;
        assert_eq!(printed, "error ErrorCode::HttpRequestUriInvalid", "{host}");
        assert!(
            notes.contains("a request was refused:") && !notes.contains("word@"),
            "{notes}"
        );
    }
    let printed = probe(&world, &format!("CONNECT http://127.0.0.1:{port}/")).await;
    assert_eq!(printed, "error ErrorCode::HttpRequestMethodInvalid");
    let printed = probe(&world, &format!("GET ftp://127.0.0.1:{port}/")).await;
    assert_eq!(printed, "error ErrorCode::HttpProtocolError");
    assert_eq!(origin.seen(), [""; 0]);

    let forged = "host: internal\nHost: other\ntransfer-encoding: chunked\nconnection: x\nupgrade: websocket";
    let printed = probe(&world, &format!("GET http://127.0.0.1:{port}/\n{forged}")).await;
    assert!(
        printed.contains("header host: ")
            && printed.ends_with("status 200\ncontent-length: 0\nbody 0:"),
        "{printed}"
    );
    let seen = origin.last();
    assert_eq!(seen.matches("host: ").count(), 1, "{seen}");
    assert!(
        !seen.contains("internal") && !seen.contains("websocket"),
        "{seen}"
    );
    // A line end in a path or a host is none of a URL's characters.
    let printed = probe(&world, &format!("GET http://127.0.0.1:{port}/a b")).await;
    assert!(printed.starts_with("path refused"), "{printed}");
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_whoever_lists_them() {
    let world = probing(&["http://*".to_owned()]).await;
    for host in [
        "10.0.0.1",
        "169.254.169.254",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00::1]",
        "0.0.0.0",
    ] {
        let (printed, notes) = probed(&world, &format!("GET http://{host}/latest")).await;
        assert_eq!(
            printed, "error ErrorCode::DestinationIpProhibited",
            "{host}"
        );
        assert!(notes.contains("--allow-private-range"), "{notes}");
    }
    let printed = probe(&world, "GET http://nobody.invalid/").await;
    assert!(
        printed.starts_with("error ErrorCode::DnsError"),
        "{printed}"
    );
}

#[tokio::test]
async fn redirects_are_the_functions_own_affair() {
    let origin = Origin::answering(|_| {
        Reply::Send(
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
        )
    })
    .await;
    let world = probing(&[origin.url()]).await;
    let printed = probe(&world, &format!("GET {}/", origin.url())).await;
    assert!(
        printed.starts_with("status 302\nlocation: http://169.254.169.254/"),
        "{printed}"
    );
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn connections_are_kept_from_attempt_to_attempt_and_never_given_to_another_function() {
    let origin = Origin::answering(|_| ok("hello")).await;
    let world = probing(&[origin.url()]).await;
    let script = format!("!times 20\nGET {}/", origin.url());
    for _ in 0..3 {
        let printed = probe(&world, &script).await;
        assert_eq!(printed.matches("body 5: hello").count(), 20);
    }
    assert_eq!((origin.connections(), origin.seen().len()), (1, 60));
    let spec = json!({"allowHosts": [origin.url()]});
    world
        .upload_with("other", &spec, &probe_calls())
        .await
        .expect(201);
    world.invoke("other", json!(script)).await.expect(200);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_request_under_way_ends_with_its_attempt() {
    let origin = Origin::answering(|request| match request {
        request if request.starts_with("GET /trickle") => Reply::Trickle,
        _ => Reply::Stall(String::new()),
    })
    .await;
    let world = probing(&[origin.url()]).await;
    world
        .patch("/v1/functions/probe", json!({"timeoutMs": 300}))
        .await
        .expect(200);
    for path in ["/", "/trickle"] {
        let script = format!("GET {}{path}", origin.url());
        let answer = world.invoke("probe", json!(script)).await;
        assert_eq!(answer.expect(200)["status"], "timeout");
        origin.left_alone().await;
    }

    // The guest's own patience may be shorter.
    world
        .patch("/v1/functions/probe", json!({"timeoutMs": null}))
        .await
        .expect(200);
    let printed = probe(&world, &format!("!first-byte-ms 20\nGET {}/", origin.url())).await;
    assert_eq!(printed, "error ErrorCode::ConnectionReadTimeout");
    origin.left_alone().await;
}

#[tokio::test]
async fn a_placeholder_leaves_as_the_secret_and_the_function_never_has_it() {
    let origin = Origin::answering(|_| ok("")).await;
    let port = origin.port();
    let (here, elsewhere) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    );
    let key = "0101010101010101010101010101010101010101010101010101010101010101";
    let world = World::new()
        .background()
        .setup(|setup| setup.registry.secrets.key = Some(key.parse().unwrap()))
        .await;
    let json_type = [("content-type", "application/json")];
    let value = json!({"value": "sk_live_hunter2"}).to_string();
    world
        .ask("PUT", "/v1/secrets/stripe", &json_type, value)
        .await
        .expect(201);
    let spec = json!({
        "maxRetries": 1, "allowHosts": [here, elsewhere],
        "secrets": {"KEY": {"secret": "stripe", "as": "placeholder", "hosts": [here]}},
    });
    world
        .upload_with("probe", &spec, &probe_calls())
        .await
        .expect(201);
    let request = |to: &str| format!("POST {to}/\nauthorization: Bearer ${{KEY}}\n\n${{KEY}}");
    let printed = probe(&world, &request(&here)).await;
    assert!(printed.starts_with("status 200"), "{printed}");
    assert!(
        origin
            .last()
            .contains("authorization: Bearer sk_live_hunter2\r\n")
    );
    let (printed, notes) = probed(&world, &request(&elsewhere)).await;
    assert_eq!(printed, "error ErrorCode::HttpRequestDenied");
    assert!(
        notes.contains("placeholder of KEY, which may go to http://127.0.0.1"),
        "{notes}"
    );
    assert_eq!(origin.seen().len(), 1);
    // Nothing that the plane shows has it.
    for path in [
        "/v1/functions/probe",
        "/v1/functions/probe/versions",
        "/v1/executions",
        "/v1/secrets",
    ] {
        let shown = world.get(path).await;
        assert!(
            !String::from_utf8_lossy(&shown.body).contains("hunter2"),
            "{path}"
        );
    }
    for execution in world.executions_of("probe").await {
        let id = execution["executionId"].as_str().unwrap();
        let whole = world.execution(id).await.to_string();
        let logs = Value::from(world.attempts(id).await).to_string();
        assert!(
            !whole.contains("hunter2") && !logs.contains("hunter2"),
            "{whole} {logs}"
        );
    }
}

/// A runtime with small limits, in a folder of its own.
fn narrow(folder: &Path) -> Runtime {
    let mut options = Options::new(folder);
    options.guests_max = 4;
    options.outgoing.loopback = Loopback::Allowed;
    options.outgoing.requests_max = 5;
    options.outgoing.requests_at_once_max = 2;
    options.outgoing.request_bytes_max = 10_000;
    options.outgoing.response_bytes_max = 100_000;
    options.outgoing.connect_timeout_ms = 200;
    options.outgoing.silence_timeout_ms = 200;
    let compiler = Arc::new(InProcessCompiler::new().unwrap());
    Runtime::open(&options, compiler).unwrap()
}

#[tokio::test]
async fn each_limit_ends_the_request_with_its_own_code_and_is_named_in_the_log() {
    let origin = Origin::answering(|request| match request {
        request if request.starts_with("GET /endless") => Reply::Endless,
        request if request.starts_with("GET /half") => {
            Reply::Stall("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned())
        }
        request if request.starts_with("GET /head") => {
            let fields = "x: y\r\n".repeat(200);
            Reply::Send(format!(
                "HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n"
            ))
        }
        _ => ok("body"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let runtime = narrow(folder.path());
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("probe", probe_calls())
        .spec(json!({"maxRetries": 1, "allowHosts": [origin.url()]}))
        .await;
    let url = origin.url();
    for (script, printed, noted) in [
        (
            format!("GET {url}/endless"),
            "broken HTTP response body size exceeds limit: 100000 bytes",
            "--outgoing-response-bytes-max",
        ),
        (
            format!("!body-bytes 20000\nPOST {url}/"),
            "error ErrorCode::HttpRequestBodySize(Some(10000))",
            "--outgoing-request-bytes-max",
        ),
        (
            format!("GET {url}/half"),
            "broken connection read timeout",
            "",
        ),
        (
            format!("GET {url}/head"),
            "error ErrorCode::HttpResponseHeaderSectionSize",
            "--outgoing-headers-max",
        ),
        (
            format!("!times 6\nGET {url}/"),
            "body 4: body\nerror ErrorCode::HttpRequestDenied",
            "--outgoing-requests-max",
        ),
        (
            format!("!hold\n!times 3\nGET {url}/"),
            "held 200\nheld 200\nerror ErrorCode::ConnectionLimitReached",
            "--outgoing-requests-at-once-max",
        ),
    ] {
        let (told, notes) = probed(&world, &script).await;
        assert!(told.contains(printed), "{script}: {told}");
        assert!(notes.contains(noted), "{script}: {notes}");
    }
    // None of it has worn anything out.
    let told = probe(&world, &format!("GET {url}/")).await;
    assert!(told.ends_with("body 4: body"), "{told}");
}
