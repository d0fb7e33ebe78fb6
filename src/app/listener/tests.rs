mod frames;
mod http2;
mod smuggling;

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::*;

const BOUNDS: Bounds = Bounds {
    connections_max: 2,
    headers_max: 10,
    header_bytes_max: 8192,
    header_read_timeout: Duration::from_secs(60),
    answer_stall_timeout_ms: 60_000,
};

/// More than the system takes off a server for a client that does not read.
const LARGE: usize = 64 << 20;

/// A part of an answer without end.
const PART: [u8; 16 << 10] = [b'x'; 16 << 10];

/// A server whose routes say when a request is in and answer when they are told to.
struct World {
    tasks: Tasks,
    listener: Listener,
    entered: Arc<Notify>,
    release: Arc<Notify>,
    calls: Arc<AtomicUsize>,
    /// Calls that wait to be released.
    under_way: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    /// Bytes of answers without end.
    held: Arc<AtomicUsize>,
}

/// Adds to a count for as long as it lives.
struct Counted(Arc<AtomicUsize>, usize);

impl Counted {
    fn new(count: &Arc<AtomicUsize>, more: usize) -> Self {
        count.fetch_add(more, Ordering::SeqCst);
        Self(Arc::clone(count), more)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &PART
    }
}

/// An answer that goes on for as long as anybody takes it.
fn endless(held: &Arc<AtomicUsize>) -> BoxBody<Bytes, Infallible> {
    let held = Arc::clone(held);
    let parts = std::iter::repeat_with(move || {
        Ok(Frame::data(Bytes::from_owner(Counted::new(
            &held,
            PART.len(),
        ))))
    });
    BodyExt::boxed(StreamBody::new(futures_util::stream::iter(parts)))
}

impl World {
    async fn new(bounds: Bounds) -> Self {
        let tasks = Tasks::default();
        let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let [calls, under_way, most_at_once, held]: [Arc<AtomicUsize>; 4] = Default::default();
        let (enter, wait) = (Arc::clone(&entered), Arc::clone(&release));
        let (count, waiting, most, bytes) = (
            Arc::clone(&calls),
            Arc::clone(&under_way),
            Arc::clone(&most_at_once),
            Arc::clone(&held),
        );
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let (enter, wait) = (Arc::clone(&enter), Arc::clone(&wait));
            let (waiting, most, bytes) =
                (Arc::clone(&waiting), Arc::clone(&most), Arc::clone(&bytes));
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                if request.uri().path() == "/slow" {
                    let _waits = Counted::new(&waiting, 1);
                    most.fetch_max(waiting.load(Ordering::SeqCst), Ordering::SeqCst);
                    enter.notify_one();
                    wait.notified().await;
                }
                let body = match request.uri().path() {
                    "/endless" => return Ok(Response::new(endless(&bytes))),
                    "/large" => Bytes::from(vec![b'x'; LARGE]),
                    "/up" => request.into_body().collect().await.unwrap().to_bytes(),
                    _ => Bytes::from_static(b"hello"),
                };
                Ok(Response::new(BodyExt::boxed(Full::new(body))))
            }
        });
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::open(addr, bounds, service, &tasks).await.unwrap();
        Self {
            tasks,
            listener,
            entered,
            release,
            calls,
            under_way,
            most_at_once,
            held,
        }
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.listener.addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset instead of an end is an end too.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const GET_LARGE: &str = "GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
/// How long what has to happen is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const GET_SLOW: &str = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn speaks_both_versions_of_http() {
    let world = World::new(BOUNDS).await;
    let answer = read_all(world.send(GET).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let stream = world.send("").await;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    drop(world.tasks.spawn(connection));
    let request = Request::get("http://x/")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn too_many_headers_and_too_long_ones_are_431() {
    let world = World::new(BOUNDS).await;
    let many = "a: b\r\n".repeat(11);
    let answer = read_all(world.send(&format!("GET / HTTP/1.1\r\n{many}\r\n")).await).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    let long = "b".repeat(9000);
    let answer = read_all(
        world
            .send(&format!("GET / HTTP/1.1\r\na: {long}\r\n\r\n"))
            .await,
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(world.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn too_many_headers_of_http_2_are_431_too() {
    let world = World::new(BOUNDS).await;
    let stream = world.send("").await;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    drop(world.tasks.spawn(connection));
    for (count, bytes, status) in [(10, 1, 200), (11, 1, 431), (1, 9000, 431)] {
        let mut request = Request::get("http://x/");
        for i in 0..count {
            request = request.header(format!("a-{i}"), "b".repeat(bytes));
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{count} of {bytes} bytes");
    }
    assert_eq!(world.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let bounds = Bounds {
        header_read_timeout: Duration::from_millis(100),
        ..BOUNDS
    };
    let world = World::new(bounds).await;
    // Nothing at all, a byte that may begin either version, and half a head: each ends by itself.
    for start in ["", "P", "GET / HTTP/1.1\r\nhost:"] {
        let answer = read_all(world.send(start).await).await;
        assert!(!answer.contains("hello"), "{answer}");
    }
    // A call that is under way is not cut off by it.
    let stream = world.send(GET_SLOW).await;
    world.entered.notified().await;
    read_all(world.send("").await).await;
    world.release.notify_one();
    assert!(read_all(stream).await.contains("hello"));
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_a_place() {
    let world = World::new(BOUNDS).await;
    let slow = world.send(GET_SLOW).await;
    world.entered.notified().await;
    let idle = world.send("").await;
    let third = world.send(GET).await;
    let third = read_all(third);
    tokio::pin!(third);
    // The two places are taken, so the third connection gets no answer however long the others take.
    tokio::select! {
        answer = &mut third => panic!("served beyond the limit: {answer}"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(world.listener.places.available_permits(), 0);
    assert_eq!(world.calls.load(Ordering::SeqCst), 1);
    drop(idle);
    assert!(third.await.contains("hello"));
    drop(slow);
}

#[tokio::test]
async fn closing_lets_requests_finish_and_turns_new_ones_away() {
    let world = World::new(BOUNDS).await;
    let slow = world.send(GET_SLOW).await;
    world.entered.notified().await;
    let idle = world.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    world.listener.close();
    read_all(idle).await;
    world.release.notify_one();
    assert!(read_all(slow).await.contains("hello"));
    world.listener.closed().await;
    assert!(TcpStream::connect(world.listener.addr()).await.is_err());
    world.tasks.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_cannot_keep_a_stop_from_ending() {
    let world = World::new(BOUNDS).await;
    let hanging = world.send(GET_SLOW).await;
    world.entered.notified().await;
    world.listener.close();
    world.tasks.stop().await;
    world.listener.closed().await;
    assert!(!read_all(hanging).await.contains("hello"));
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_loses_its_connection() {
    let bounds = Bounds {
        answer_stall_timeout_ms: 200,
        ..BOUNDS
    };
    let world = World::new(bounds).await;
    let idle = [world.send(GET_LARGE).await, world.send(GET_LARGE).await];
    // Both places are taken until the server gives the two up.
    let answer = tokio::time::timeout(PATIENCE, read_all(world.send(GET).await)).await;
    assert!(answer.expect("they are served for ever").contains("hello"));
    drop(idle);
    // One that reads gets everything.
    let answer = read_all(world.send(GET_LARGE).await).await;
    assert!(answer.len() > LARGE, "{} bytes", answer.len());
}

#[tokio::test]
async fn a_crowd_that_knocks_at_once_is_let_in_without_knocking_again() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const CROWD: u32 = 1_500;
    let files = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            ..files
        },
    )
    .unwrap();
    let room = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let crowd = CROWD.min(room.trim().parse().unwrap());
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = listen(addr, crowd).unwrap();
    let addr = listener.local_addr().unwrap();
    // Nobody accepts: what there is no room for would knock for ever.
    let knocking = (0..crowd).map(|_| TcpStream::connect(addr));
    let inside = tokio::time::timeout(
        Duration::from_secs(60),
        futures_util::future::try_join_all(knocking),
    );
    let inside = inside.await.expect("some were not let in").unwrap();
    assert_eq!(inside.len(), usize::try_from(crowd).unwrap());
}
