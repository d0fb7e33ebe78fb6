//! What a guest sees of the world: its spec, its execution, and nothing else.

use wasmtime_wasi::cli::WasiCliView as _;
use wasmtime_wasi::filesystem::WasiFilesystemView as _;
use wasmtime_wasi::p2::bindings::cli::environment::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::sockets::instance_network::Host as _;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::Host as _;
use wasmtime_wasi::p2::bindings::sockets::network::IpAddressFamily;
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket::Host as _;
use wasmtime_wasi::sockets::WasiSocketsView as _;

use super::super::Life;
use super::*;
use crate::net::Client;
use crate::runtime::host::Ctx;
use crate::runtime::output::Capture;
use crate::runtime::watch::Reins;

fn ctx_of(attempt: &Attempt) -> Ctx {
    let reins = Reins {
        stop: &CancellationToken::new(),
        lane: &Arc::default(),
        client: &Client::new(Default::default()),
    };
    let capture = Capture::logs_only(0);
    let life = Life::begin(
        &WORLD.engines.plain().engine,
        attempt,
        &reins,
        Bytes::new(),
        capture,
    );
    life.store.into_data()
}

/// Writes its environment to stdout, one variable behind a NUL.
const PRINT_ENVIRONMENT: &str = "
    (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
    (drop (call $environ_get (i32.const 1024) (i32.const 8192)))
    (call $write (i32.const 1) (i32.const 8192) (i32.load (i32.const 20)))";

const PRINT_ARGUMENTS: &str = "
    (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (drop (call $args_get (i32.const 1024) (i32.const 8192)))
    (call $write (i32.const 1) (i32.const 8192) (i32.load (i32.const 20)))";

fn split(printed: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(printed).unwrap();
    text.split_terminator('\0').collect()
}

#[tokio::test]
async fn the_environment_is_the_specs_and_ours_and_ours_wins() {
    let mut attempt = attempt(|spec| {
        spec.env = map([
            ("ATTEMPT", "99"),
            ("COLOUR", "grün"),
            ("TRACE_ID", "forged"),
        ]);
    });
    attempt.number = 2;
    let code = program("1", "", PRINT_ENVIRONMENT);
    let id = format!("EXECUTION_ID={}", attempt.execution_id);

    let ran = run(&code, &attempt).await;
    let mut seen = split(succeeded(&ran));
    seen.sort_unstable();
    let expected = ["ATTEMPT=2", "COLOUR=grün", &id, "FUNCTION_NAME=under-test"];
    assert_eq!(seen, expected);

    attempt.trace_id = Some("abc".into());
    let ran = run(&code, &attempt).await;
    assert!(split(succeeded(&ran)).contains(&"TRACE_ID=abc"));
}

#[tokio::test]
async fn the_arguments_are_the_name_and_the_specs() {
    let attempt = attempt(|spec| spec.args = vec!["--loud".to_owned(), "a b".to_owned()]);
    let ran = run(&program("1", "", PRINT_ARGUMENTS), &attempt).await;
    assert_eq!(split(succeeded(&ran)), ["under-test", "--loud", "a b"]);
}

#[tokio::test]
async fn a_program_finds_no_directory_and_cannot_open_a_file() {
    // Exits with the error numbers added up: 8 (bad descriptor) three times.
    let items = r#"(data (i32.const 100) "/etc/passwd")"#;
    let open = |fd: i32| {
        format!(
            "(call $path_open (i32.const {fd}) (i32.const 0) (i32.const 100) (i32.const 11) (i32.const 0)
                (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16))"
        )
    };
    let start = format!(
        "(call $exit (i32.add (call $fd_prestat_get (i32.const 3) (i32.const 16))
            (i32.add {} {})))",
        open(3),
        open(1)
    );
    let ran = run_plain(&program("1", items, &start)).await;
    assert_eq!(retried(&ran).code, "EXIT_24");
}

#[tokio::test]
async fn a_component_finds_no_directory_no_network_and_no_names() {
    let mut ctx = ctx_of(&attempt(|_| {}));
    assert!(ctx.filesystem().get_directories().unwrap().is_empty());
    assert_eq!(ctx.cli().initial_cwd().unwrap(), None);
    assert!(
        ctx.sockets()
            .create_tcp_socket(IpAddressFamily::Ipv4)
            .is_err()
    );
    assert!(
        ctx.sockets()
            .create_udp_socket(IpAddressFamily::Ipv6)
            .await
            .is_err()
    );
    let network = ctx.sockets().instance_network().unwrap();
    let lookup = ctx
        .sockets()
        .resolve_addresses(network, "localhost".to_owned());
    assert!(lookup.is_err());
}
