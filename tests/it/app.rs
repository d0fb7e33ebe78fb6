//! A whole plane in process, on real sockets: how it starts, what its limits reach, how it stops.

use std::path::{Path, PathBuf};

use pelton::app::{App, CompilerProgram};
use pelton::config::{Config, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::guests;
use crate::support::world::within;

fn options(folder: &Path) -> Options {
    Options {
        listen: "127.0.0.1:0".to_owned(),
        management_listen: "127.0.0.1:0".to_owned(),
        data_dir: folder.to_owned(),
        ..Options::default()
    }
}

async fn start(options: Options) -> anyhow::Result<App> {
    let compiler = CompilerProgram::At(PathBuf::from(env!("CARGO_BIN_EXE_pelton")));
    App::start_with(Config::try_from(options).unwrap(), compiler).await
}

/// Sends bytes and reads whatever comes until the other side closes.
async fn exchange(addr: std::net::SocketAddr, request: Vec<u8>) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // Whoever refuses a long request may close before all of it is sent.
    let _ = stream.write_all(&request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    request("POST", path, "content-type: application/json\r\n", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_the_folder_free() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = start(Options {
        management_listen: address.clone(),
        ..options(folder.path())
    })
    .await
    .err()
    .expect("two cannot listen on one address");
    assert!(format!("{error:#}").contains(&address), "{error:#}");

    let app = start(options(folder.path())).await.unwrap();
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_reach_the_parts_that_keep_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.limits.headers_max = 10;
    options.limits.body_bytes_max = 1024;
    options.limits.upload_bytes_max = 1024;
    options.limits.functions_max = 1;
    let app = start(options).await.unwrap();
    let addr = app.addr();

    let headers = "x-filler: 1\r\n".repeat(10);
    let answer = exchange(addr, request("GET", "/v1/functions", &headers, b"")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    let echo = |name: &str| format!(r#"{{"name": "{name}", "image": "builtin:echo"}}"#);
    let answer = exchange(addr, post("/v1/functions", echo("one").as_bytes())).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let answer = exchange(addr, post("/v1/functions", echo("two").as_bytes())).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");

    let long = format!(r#"{{"input": "{}"}}"#, "x".repeat(1024));
    let answer = exchange(addr, post("/v1/functions/one:invoke", long.as_bytes())).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let wasm = "content-type: application/wasm\r\n";
    let upload = request("PUT", "/v1/functions/one", wasm, &[0; 1025]);
    let answer = exchange(addr, upload).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_the_plane_on_both_ports() {
    let folder = tempfile::tempdir().unwrap();
    let app = start(options(folder.path())).await.unwrap();
    let upload = request(
        "PUT",
        "/v1/functions/echo",
        "content-type: application/wasm\r\n",
        &guests::wasm("echo"),
    );
    let answer = exchange(app.addr(), upload).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let answer = exchange(
        app.addr(),
        post("/v1/functions/echo:invoke", br#"{"input": 1}"#),
    )
    .await;
    assert!(answer.contains(r#""status":"success""#), "{answer}");
    for addr in [app.addr(), app.management_addr()] {
        let metrics = exchange(addr, request("GET", "/actuator/prometheus", "", b"")).await;
        for line in [
            "\npelton_functions 1\n",
            "\npelton_guests_max 256\n",
            "\nfunction_success_total{function=\"echo\"} 1\n",
        ] {
            assert!(metrics.contains(line), "{line:?} is missing in {metrics}");
        }
        assert!(
            !metrics.contains("\npelton_loaded_code_bytes 0\n"),
            "{metrics}"
        );
        assert!(
            !metrics.contains("\npelton_store_commits_total 0\n"),
            "{metrics}"
        );
    }
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_stops_says_so_and_finishes_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let app = start(options(folder.path())).await.unwrap();
    let (addr, management) = (app.addr(), app.management_addr());
    // A service that is called, and answers when it is told to.
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", service.local_addr().unwrap());
    let spec = format!(r#"{{"name": "slow", "image": "x", "endpointUrl": "{url}"}}"#);
    let answer = exchange(addr, post("/v1/functions", spec.as_bytes())).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");

    let mut tasks = JoinSet::new();
    tasks.spawn(exchange(
        addr,
        post("/v1/functions/slow:invoke", br#"{"input": 1}"#),
    ));
    let (mut call, _) = service.accept().await.unwrap();
    // An answer before the request is an error to its client, so the request is read.
    let mut sent = Vec::new();
    while !sent.ends_with(br#""metadata":{}}"#) {
        assert_ne!(call.read_buf(&mut sent).await.unwrap(), 0);
    }
    let mut stopping = JoinSet::new();
    stopping.spawn(app.stop());
    let health = request("GET", "/actuator/health/readiness", "", b"");
    let down = loop {
        let answer = exchange(management, health.clone()).await;
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
    };
    assert!(down.starts_with("HTTP/1.1 503"), "{down}");
    assert!(down.contains("stopping"), "{down}");
    // The task that accepts closes its socket when it has its turn, which may be after the answer above.
    within("calls to be refused", async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    call.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n\"ok\"",
    )
    .await
    .unwrap();
    let answer = tasks.join_next().await.unwrap().unwrap();
    assert!(answer.contains(r#""status":"success""#), "{answer}");
    stopping.join_next().await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(management).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_ask_and_what_may_be_asked_follows_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let app = start(Options {
        listen: "0.0.0.0:0".to_owned(),
        insecure: true,
        allow_host: vec!["plane.example".to_owned()],
        allow_private_range: vec!["10.0.0.0/8".to_owned()],
        ..options(folder.path())
    })
    .await
    .unwrap();
    let api = (std::net::Ipv4Addr::LOCALHOST, app.addr().port()).into();
    for addr in [api, app.management_addr()] {
        for (host, status) in [
            ("plane.example", 200),
            ("0.0.0.0", 200),
            ("other.example", 403),
        ] {
            let request = format!(
                "GET /actuator/health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
            );
            let answer = exchange(addr, request.into_bytes()).await;
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{host}: {answer}");
        }
    }
    let services = [("10.1.2.3", 201), ("192.168.1.2", 400), ("127.0.0.1", 400)];
    for (n, (address, status)) in services.into_iter().enumerate() {
        let spec = format!(r#"{{"name": "f{n}", "endpointUrl": "http://{address}/"}}"#);
        let answer = exchange(api, post("/v1/functions", spec.as_bytes())).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{address}: {answer}");
    }
    app.stop().await.unwrap();
}
