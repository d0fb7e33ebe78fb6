//! Functions that take all that they get, beside a small one: what `cargo bench --bench neighbours` measures, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pelton::execution::Status;
use pelton::model::Spec;
use pelton::testing::{Execution, Harness, Movement, Setup};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::site::{self, Site};
use crate::support::world::within;

#[path = "../../bench/neighbours/guests.rs"]
mod guests;

/// Callers of each neighbour, and calls of the small function beside them.
const CALLERS: usize = 4;
const CALLS: usize = 20;
/// Callers that are slow themselves, of each of two kinds.
const SLOW_CALLERS: usize = 6;
/// Executions of the hot function, and functions beside it.
const QUEUED: usize = 400;
const COLD: usize = 20;

fn setup() -> Setup {
    Setup {
        movement: Movement::Background,
        ..Setup::default()
    }
}

fn code(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// Calls a neighbour by several callers, again and again, for as long as the small function is called beside it.
async fn beside(text: &str, spec: fn(&mut Spec), check: fn(&Execution)) {
    let plane = Arc::new(Harness::with(setup()).await.unwrap());
    let small = crate::support::guests::wasm("echo");
    plane.deploy("small", small).await.unwrap();
    plane
        .deploy_with("neighbour", code(text), spec)
        .await
        .unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (plane, enough) = (Arc::clone(&plane), Arc::clone(&enough));
        callers.spawn(async move {
            while !enough.load(Ordering::SeqCst) {
                check(&plane.invoke("neighbour", "1").await.unwrap());
            }
        });
    }
    within("all of them to run at once", async {
        while plane.scheduler.load().running < CALLERS {
            assert_eq!(callers.try_join_next().map(Result::unwrap), None);
            tokio::task::yield_now().await;
        }
    })
    .await;
    for number in 0..CALLS {
        let input = number.to_string();
        let called = within("a small call", plane.invoke("small", &input)).await;
        let called = called.unwrap();
        called.assert_success();
        assert_eq!(called.output_json(), json!(number));
    }
    enough.store(true, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_function_is_called_beside_guests_that_spin() {
    let spec = |spec: &mut Spec| {
        spec.version.timeout_ms = 200;
        spec.version.max_retries = 1;
    };
    let timed_out = |execution: &Execution| {
        execution.assert_status(Status::Timeout);
    };
    beside(guests::SPINS, spec, timed_out).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_function_is_called_beside_guests_that_touch_much_memory() {
    let spec = |spec: &mut Spec| spec.version.memory_mb = guests::TOUCHED_MIB.into();
    let succeeded = |execution: &Execution| {
        execution.assert_success();
    };
    beside(guests::TOUCHES, spec, succeeded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_function_is_called_beside_guests_that_log_without_end() {
    let spec = |spec: &mut Spec| {
        spec.version.timeout_ms = 200;
        spec.version.max_retries = 1;
    };
    let timed_out = |execution: &Execution| {
        execution.assert_status(Status::Timeout);
        let kept: usize = execution.logs().iter().map(|line| line.len()).sum();
        assert_eq!(kept, 64 * 1024);
    };
    beside(guests::BABBLES, spec, timed_out).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_function_is_called_beside_guests_that_fill_their_logs() {
    let full = |execution: &Execution| {
        execution.assert_success();
        let kept: usize = execution.logs().iter().map(|line| line.len()).sum();
        assert_eq!(kept, 64 * 1024);
    };
    beside(guests::CHATS, |_| {}, full).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_function_is_called_beside_guests_that_compute_for_a_moment() {
    let succeeded = |execution: &Execution| {
        execution.assert_success();
    };
    beside(guests::COMPUTES, |_| {}, succeeded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_function_does_not_wait_for_a_hot_ones_backlog() {
    // The hot one takes every slot of the plane, and all of its backlog would take twenty seconds.
    let mut setup = setup();
    setup.scheduler.guests_max = 4;
    let plane = Harness::with(setup).await.unwrap();
    let spec = |spec: &mut Spec| {
        spec.settings.queue_size = u32::try_from(QUEUED).unwrap();
        spec.settings.concurrency = 64;
        spec.version.timeout_ms = 200;
        spec.version.max_retries = 1;
    };
    let hot = plane.deploy_with("hot", code(guests::SPINS), spec);
    hot.await.unwrap();
    let small = crate::support::guests::wasm("echo");
    for number in 0..COLD {
        let name = format!("cold-{number}");
        plane.deploy(&name, small.clone()).await.unwrap();
    }
    let mut first = None;
    for _ in 0..QUEUED {
        let id = plane.enqueue("hot", "1").await.unwrap();
        first.get_or_insert(id);
    }
    for number in 0..COLD {
        let name = format!("cold-{number}");
        let id = plane.enqueue(&name, &number.to_string()).await.unwrap();
        let execution = ended(&plane, id).await;
        execution.assert_success();
        assert_eq!(execution.output_json(), json!(number));
    }
    let queued = plane.scheduler.load().queued;
    assert!(queued > 0, "the cold ones waited for all of the backlog");
    let first = ended(&plane, first.unwrap()).await;
    first.assert_status(Status::Timeout);
    plane.stop(Duration::ZERO).await.unwrap();
}

async fn ended(plane: &Harness, id: pelton::model::ExecutionId) -> Execution {
    within("an execution to end", async {
        loop {
            let execution = plane.execution(id).await.unwrap();
            if execution.status().is_terminal() {
                return execution;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_function_is_called_beside_callers_who_take_or_send_slowly() {
    let site = Site::start().await;
    let addr = site.addr();
    let patch = site::request(hyper::Method::PATCH, "/v1/functions/http02")
        .header("content-type", "application/json")
        .body(site::full(json!({"concurrency": 64}).to_string()));
    assert_eq!(site.once(patch.unwrap()).await.status(), 200);
    // Streamed to the guest, and gathered for it.
    let streamed = format!("/fn/http02/up HTTP/1.1\r\nContent-Length: {}", 1_u64 << 40);
    let gathered = "/v1/functions/http02:invoke HTTP/1.1\r\nContent-Length: 4000000";
    let mut slow = Vec::new();
    for number in 0..SLOW_CALLERS {
        let mut taking = asked(addr, "GET /fn/http02/down?bytes=2000000000 HTTP/1.1").await;
        site::read_until(&mut taking, "HTTP/1.1 200").await;
        let to = [streamed.as_str(), gathered][number % 2];
        let head = format!("POST {to}\r\nContent-Type: application/json");
        slow.push((taking, asked(addr, &head).await));
    }
    site::running(&site, "http02").await;
    for round in 0..20 {
        for (number, (taking, sending)) in slow.iter_mut().enumerate() {
            // Every second one takes nothing more at all.
            if number % 2 == 0 {
                let read = within("some bytes", taking.read(&mut [0; 4096])).await;
                assert!(read.unwrap() > 0, "an answer ended early");
            }
            sending.write_all(b"1").await.unwrap();
        }
        let request = site::request(hyper::Method::POST, "/fn/http03/echo");
        let words = format!("round {round}");
        let answer = site.once(request.body(site::full(words.clone())).unwrap());
        let answer = answer.await;
        assert_eq!(answer.status(), 200);
        assert_eq!(site::text(answer).await, words);
    }
    drop(slow);
    site.app.stop().await.unwrap();
}

/// A connection on which this head was sent.
async fn asked(addr: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!("{head}\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}
