//! Functions share an origin with the console and with each other, unless they own a host name: what they may
//! set there, what they believe about their callers, and which names they may own.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::Request;
use pelton::api::Peer;
use serde_json::json;

use crate::support::web_guests::{http02, http03};
use crate::support::world::{Answer, World};

const BOTH: [&str; 2] = ["http02", "http03"];

async fn both() -> World {
    World::new()
        .background()
        .function("http02", http02())
        .function("http03", http03())
        .await
}

/// The answer to a GET for a host, from an address.
async fn ask(
    world: &World,
    host: &str,
    path: &str,
    from: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = Request::get(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let address: SocketAddr = from.parse().unwrap();
    request.extensions_mut().insert(Peer(address));
    world.send(request).await
}

const LOCAL: &str = "127.0.0.1:4000";
const FOREIGN: &str = "192.0.2.9:4000";

fn lines(answer: &Answer) -> Vec<&str> {
    std::str::from_utf8(&answer.body).unwrap().lines().collect()
}

#[tokio::test]
async fn documents_are_sandboxed_and_nothing_is_set_for_the_whole_origin() {
    let world = both().await;
    for name in BOTH {
        let path = format!(
            "/fn/{name}/with?body=x&h=content-type:text/html&h=set-cookie:a=b;Path=/&h=set-cookie:c=d;Domain=x\
             &h=service-worker-allowed:/&h=clear-site-data:*&h=strict-transport-security:max-age=1\
             &h=alt-svc:h2=x&h=nel:x&h=report-to:x&h=content-security-policy:default-src 'none'"
        )
        .replace(' ', "%20");
        let answer = ask(&world, "localhost", &path, LOCAL, &[]).await;
        let all = |header: &str| -> Vec<_> {
            let values = answer.headers.get_all(header).iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            all("content-security-policy"),
            ["default-src 'none'", "sandbox allow-scripts allow-forms"]
        );
        let prefix = format!("/fn/{name}");
        assert_eq!(
            all("set-cookie"),
            [format!("a=b; Path={prefix}"), format!("c=d; Path={prefix}")]
        );
        for header in [
            "service-worker-allowed",
            "clear-site-data",
            "strict-transport-security",
            "alt-svc",
            "nel",
            "report-to",
        ] {
            assert_eq!(all(header), [""; 0], "{header}");
        }
        let json = format!("/fn/{name}/with?body=1&h=content-type:application/json");
        let answer = ask(&world, "localhost", &json, LOCAL, &[]).await;
        assert_eq!(answer.header("content-security-policy"), "");
        // Errors of ours are no documents.
        let answer = ask(
            &world,
            "localhost",
            &format!("/fn/{name}/panic"),
            LOCAL,
            &[],
        )
        .await;
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn headers_of_one_connection_stay_with_it() {
    let world = both().await;
    for name in BOTH {
        let headers = [
            ("connection", "x-mine, keep-alive"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "secret"),
            ("expect", "100-continue"),
            ("x-kept", "1"),
        ];
        let answer = ask(
            &world,
            "localhost",
            &format!("/fn/{name}/headers"),
            LOCAL,
            &headers,
        )
        .await;
        let said = lines(&answer);
        assert!(said.contains(&"x-kept: 1"), "{said:?}");
        for gone in [
            "connection",
            "x-mine",
            "keep-alive",
            "te",
            "upgrade",
            "proxy-authorization",
            "expect",
        ] {
            let starts = format!("{gone}: ");
            assert!(
                !said.iter().any(|line| line.starts_with(&starts)),
                "{gone}: {said:?}"
            );
        }
        let answer = ask(
            &world,
            "localhost",
            &format!("/fn/{name}/with?h=te:x&h=x-own:1"),
            LOCAL,
            &[],
        )
        .await;
        assert_eq!((answer.header("te"), answer.header("x-own")), ("", "1"));
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed_about_its_callers() {
    let world = World::new()
        .background()
        .options(|options| options.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()])
        .function("http02", http02())
        .function("http03", http03())
        .await;
    for name in BOTH {
        let path = format!("/fn/{name}/headers");
        let claims = [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-prefix", "/apps/"),
            ("x-real-ip", "203.0.113.7"),
            ("forwarded", "for=203.0.113.7"),
        ];
        for proxy in [LOCAL, "10.1.2.3:4000", "[::ffff:127.0.0.1]:4000"] {
            let answer = ask(&world, "localhost", &path, proxy, &claims).await;
            let said = lines(&answer);
            let address = proxy.parse::<SocketAddr>().unwrap().ip().to_canonical();
            for line in [
                "scheme https".to_owned(),
                format!("x-forwarded-for: 203.0.113.7, {address}"),
                "x-forwarded-proto: https".to_owned(),
                "x-forwarded-host: shop.example".to_owned(),
                format!("x-forwarded-prefix: /apps/fn/{name}"),
                "forwarded: for=203.0.113.7".to_owned(),
            ] {
                assert!(said.contains(&&*line), "{line} is not in {said:#?}");
            }
        }
        let answer = ask(&world, "localhost:8080", &path, FOREIGN, &claims).await;
        let said = lines(&answer);
        for line in [
            "scheme http",
            "authority localhost:8080",
            "x-forwarded-for: 192.0.2.9",
            "x-forwarded-proto: http",
            "x-forwarded-host: localhost:8080",
            &format!("x-forwarded-prefix: /fn/{name}"),
        ] {
            assert!(said.contains(&line), "{line} is not in {said:#?}");
        }
        assert!(
            !said.iter().any(|line| line.contains("203.0.113.7")),
            "{said:#?}"
        );
    }
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused() {
    let world = both().await;
    let send = async |target: &str, hosts: &[&str]| {
        let mut request = Request::get(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        world.send(request.body(Body::empty()).unwrap()).await
    };
    let path = "/fn/http02/with";
    assert_eq!(send(path, &["any.example"]).await.status, 200);
    let absolute = format!("http://any.example{path}");
    assert_eq!(send(&absolute, &["any.example"]).await.status, 200);
    assert_eq!(send(&absolute, &[]).await.status, 200);
    for (target, hosts) in [
        (path, &["a.example", "a.example"][..]),
        (path, &[]),
        (path, &["user@a.example"]),
        (path, &["a b"]),
        (path, &[""]),
        (&*absolute, &["other.example"]),
        ("http://user@any.example/fn/http02/with", &[]),
    ] {
        send(target, hosts).await.refused(400, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn a_function_serves_the_host_names_that_it_owns() {
    let world = both().await;
    for name in BOTH {
        let host = format!("{name}.example");
        let owned = json!({"hosts": [host, format!("www.{host}")]});
        let patched = world
            .patch(&format!("/v1/functions/{name}"), owned.clone())
            .await;
        let shown = patched.expect(200);
        assert_eq!(shown["hosts"], owned["hosts"]);
        assert_eq!(shown["version"], 1, "settings make no version");
        for (host, path) in [
            (host.clone(), "/headers?q"),
            (format!("{}:8080", host.to_uppercase()), "/headers?q"),
            (format!("www.{host}."), "/headers?q"),
        ] {
            let answer = ask(&world, &host, path, LOCAL, &[]).await;
            let said = lines(&answer);
            assert_eq!(said[0], format!("Method::Get {path}"), "{host}");
            assert!(
                !said
                    .iter()
                    .any(|line| line.starts_with("x-forwarded-prefix")),
                "{said:?}"
            );
        }
        // Everything under the name is the function's: the API is not there.
        for path in [
            "/v1/functions",
            "/actuator/health",
            "/fn/other/x",
            "/console",
        ] {
            let answer = ask(&world, &host, path, LOCAL, &[]).await;
            assert_eq!(
                (answer.status, lines(&answer)),
                (404, vec!["there is nothing here"]),
                "{path}"
            );
        }
        // It has the origin to itself.
        let path = "/with?h=content-type:text/html&h=set-cookie:a=b;Path=/&h=strict-transport-security:max-age=1";
        let answer = ask(&world, &host, path, LOCAL, &[]).await;
        assert_eq!(answer.header("content-security-policy"), "");
        assert_eq!(answer.header("set-cookie"), "a=b;Path=/");
        assert_eq!(answer.header("strict-transport-security"), "max-age=1");
        assert!(!answer.header("x-execution-id").is_empty());
        // And is still found by its path, under any other name.
        assert_eq!(
            ask(&world, "localhost", &format!("/fn/{name}/with"), LOCAL, &[])
                .await
                .status,
            200
        );
    }
    ask(&world, "unowned.example", "/", LOCAL, &[])
        .await
        .refused(403, "HOST_REFUSED");
    ask(&world, "unowned.example", "/v1/functions", LOCAL, &[])
        .await
        .refused(403, "HOST_REFUSED");
}

#[tokio::test]
async fn a_host_name_is_one_functions_or_nobodys() {
    let world = World::new()
        .background()
        .options(|options| {
            options.allowed_hosts = vec!["plane.example".to_owned()];
            options.listen = vec!["192.0.2.1:80".parse().unwrap()];
        })
        .function("first", http02())
        .spec(json!({"hosts": ["a.example"]}))
        .function("second", http02())
        .await;
    let patch = async |name: &str, hosts: serde_json::Value| {
        world
            .patch(&format!("/v1/functions/{name}"), json!({"hosts": hosts}))
            .await
    };
    let refused = patch("second", json!(["b.example", "a.example"])).await;
    let message = refused.refused(409, "HOST_TAKEN");
    assert!(message.contains("a.example is first's"), "{message}");
    // Nothing was taken by what was refused.
    patch("first", json!(["a.example", "b.example"]))
        .await
        .expect(200);
    let new = json!({"name": "third", "image": "builtin:echo", "hosts": ["b.example"]});
    world
        .post("/v1/functions", new.clone())
        .await
        .refused(409, "HOST_TAKEN");
    patch("first", json!(["b.example"])).await.expect(200);
    patch("second", json!(["a.example"])).await.expect(200);
    world.delete("/v1/functions/first").await;
    world.post("/v1/functions", new).await.expect(201);
    assert_eq!(
        ask(&world, "a.example", "/with?body=second", LOCAL, &[])
            .await
            .body,
        "second"
    );

    for (host, word) in [
        ("localhost", "lower case"),
        ("127.0.0.1", "lower case"),
        ("A.example", "lower case"),
        ("a.example:80", "lower case"),
        ("http://a.example", "lower case"),
        ("plane.example", "own name"),
    ] {
        let message = patch("second", json!([host]))
            .await
            .refused(400, "VALIDATION_ERROR");
        assert!(message.contains(word), "{host}: {message}");
    }
    patch("second", json!("a.example"))
        .await
        .refused(400, "VALIDATION_ERROR");
    patch("second", json!(null)).await.expect(200);
    ask(&world, "a.example", "/", LOCAL, &[])
        .await
        .refused(403, "HOST_REFUSED");
}
