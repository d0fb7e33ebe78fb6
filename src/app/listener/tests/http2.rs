//! Clients of HTTP/2 that mean no good: what one of them makes the server hold or do is bounded, and the callers on
//! other connections are answered.

use super::frames::{
    Client, END_HEADERS, END_STREAM, INITIAL_WINDOW, STREAMS_MAX, WIDE, frame, get, head, header,
    kind, open, reason, reset, streams,
};
use super::taken::STREAM_BYTES_MAX;
use super::*;

/// Streams of one connection.
const STREAMS: usize = 256;
/// A stall that is noticed while a test waits for it.
const SHORT: Bounds = Bounds {
    answer_stall_timeout_ms: 200,
    ..BOUNDS
};

impl World {
    async fn client(&self, window: u32) -> Client {
        Client::open(self.listener.addr(), window).await
    }

    /// Another caller is served.
    async fn serves_others(&self) {
        let answer = tokio::time::timeout(PATIENCE, read_all(self.send(GET).await));
        assert!(answer.await.expect("nobody is served").contains("hello"));
    }

    /// Returns what is held once so many calls have come and it does not change any more.
    async fn settled(&self, calls: usize) -> usize {
        let mut before = 0;
        let settled = async {
            loop {
                let now = self.held.load(Ordering::SeqCst);
                if now > 0 && now == before && self.calls.load(Ordering::SeqCst) == calls {
                    return now;
                }
                before = now;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, settled).await;
        settled.expect("it goes on and on")
    }

    /// Waits until nothing is held and no call is under way.
    async fn idle(&self) {
        let idle = async {
            while self.held.load(Ordering::SeqCst) + self.under_way.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, idle)
            .await
            .expect("something is kept");
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded() {
    let world = World::new(BOUNDS).await;
    let mut client = world.client(WIDE).await;
    let requests: Vec<_> = streams()
        .take(STREAMS)
        .flat_map(|stream| get(stream, "/endless"))
        .collect();
    client.send(&requests).await;
    let held = world.settled(STREAMS).await;
    // What is at hand for a stream comes from its answer's own memory.
    let bound = STREAMS * STREAM_BYTES_MAX;
    assert!(held <= bound, "{held} of {bound} bytes");
    world.serves_others().await;
    drop(client);
    world.idle().await;
}

#[tokio::test]
async fn an_answer_whose_window_never_opens_is_broken_off_alone() {
    let world = World::new(SHORT).await;
    let mut client = world.client(0).await;
    let paths = ["/endless", "/large", "/"];
    for (stream, path) in streams().zip(paths) {
        client.send(&get(stream, path)).await;
    }
    let mut given_up = Vec::new();
    while given_up.len() < paths.len() {
        let given = client
            .next_of(kind::RST_STREAM)
            .await
            .expect("the connection ended");
        assert_eq!(given.reason(), reason::CANCEL);
        given_up.push(given.stream);
    }
    given_up.sort_unstable();
    assert_eq!(given_up, [1, 3, 5]);
    world.idle().await;
    // Others of the same connection are answered.
    client.send(&[get(7, "/"), open(7, 100)].concat()).await;
    let data = client
        .next_of(kind::DATA)
        .await
        .expect("the connection ended");
    assert_eq!((data.stream, &*data.payload), (7, &b"hello"[..]));
}

#[tokio::test]
async fn a_window_that_closes_in_the_middle_is_noticed_and_a_slow_one_is_waited_for() {
    let world = World::new(SHORT).await;
    let mut client = world.client(100_000).await;
    client.send(&get(1, "/large")).await;
    let mut bytes = 0;
    while bytes < 100_000 {
        bytes += client.next_of(kind::DATA).await.unwrap().payload.len();
    }
    let given = client
        .next_of(kind::RST_STREAM)
        .await
        .expect("the connection ended");
    assert_eq!(given.reason(), reason::CANCEL);
    world.idle().await;
    // The other reads in small pieces, for longer than a client may take nothing.
    client.send(&get(3, "/large")).await;
    while bytes < 200_000 {
        bytes += client.next_of(kind::DATA).await.unwrap().payload.len();
    }
    for _ in 0..30 {
        client.send(&open(3, 10)).await;
        assert_eq!(client.next_of(kind::DATA).await.unwrap().payload.len(), 10);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_end_of_a_short_answer_is_not_kept_for_ever() {
    let world = World::new(SHORT).await;
    let mut client = world.client(1).await;
    client.send(&get(1, "/")).await;
    assert_eq!(client.next_of(kind::DATA).await.unwrap().payload, b"h");
    // The call is over and the rest lies in the connection: it ends.
    assert_eq!(client.next_of(kind::DATA).await, None);
}

#[tokio::test]
async fn a_long_answer_comes_whole_to_whoever_reads_it() {
    let world = World::new(BOUNDS).await;
    // A window that is as large as the answer: its end needs no more.
    for (stream, window) in streams().zip([WIDE, u32::try_from(LARGE).unwrap()]) {
        let mut client = Client::fast(world.listener.addr(), window).await;
        client.send(&get(stream, "/large")).await;
        let mut bytes = 0;
        loop {
            let data = client.next_of(kind::DATA).await.unwrap();
            bytes += data.payload.len();
            if data.flags & END_STREAM != 0 {
                break;
            }
        }
        assert_eq!(bytes, LARGE);
    }
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_pile_up_nowhere() {
    let world = World::new(BOUNDS).await;
    let mut client = world.client(WIDE).await;
    // In one go: the connection is ended.
    let pairs: Vec<_> = streams()
        .take(20_000)
        .flat_map(|stream| [get(stream, "/slow"), reset(stream)].concat())
        .collect();
    let _ = client.try_send(&pairs).await;
    if let Some(farewell) = client.next_of(kind::GOAWAY).await {
        assert_eq!(farewell.reason(), reason::ENHANCE_YOUR_CALM);
    }
    world.idle().await;
    assert!(
        world.calls.load(Ordering::SeqCst) < 2_000,
        "most were never begun"
    );
    world.serves_others().await;

    // One by one, each taken up before it is taken back: nothing is left of any.
    let mut client = world.client(WIDE).await;
    for stream in streams().take(500) {
        client.send(&get(stream, "/slow")).await;
        client.sync().await;
        client.send(&reset(stream)).await;
    }
    client.sync().await;
    world.idle().await;
    assert!(world.most_at_once.load(Ordering::SeqCst) <= STREAMS);
    world.serves_others().await;
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let world = World::new(BOUNDS).await;
    let mut client = world.client(WIDE).await;
    client
        .send(&frame(kind::HEADERS, END_STREAM, 1, &head("/")))
        .await;
    let more = frame(kind::CONTINUATION, 0, 1, &header(16_000));
    let flood = async { while client.try_send(&more).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood)
        .await
        .expect("taken for ever");
    // Empty ones take no room, and may not go on for ever either.
    let mut client = world.client(WIDE).await;
    client
        .send(&frame(kind::HEADERS, END_STREAM, 1, &head("/")))
        .await;
    let more = frame(kind::CONTINUATION, 0, 1, b"").repeat(100);
    let flood = async { while client.try_send(&more).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood)
        .await
        .expect("taken for ever");
    assert_eq!(world.calls.load(Ordering::SeqCst), 0);
    world.serves_others().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_reaches_nobody() {
    let world = World::new(BOUNDS).await;
    let mut client = world.client(WIDE).await;
    let parts = [
        frame(
            kind::HEADERS,
            END_STREAM,
            1,
            &[head("/"), header(5_000)].concat(),
        ),
        frame(kind::CONTINUATION, END_HEADERS, 1, &header(5_000)),
    ];
    client.send(&parts.concat()).await;
    let answer = client
        .next_of(kind::HEADERS)
        .await
        .expect("the connection ended");
    assert_eq!(answer.flags & END_STREAM, END_STREAM, "431 has no body");
    // The connection is as good as before.
    client.send(&get(3, "/")).await;
    assert_eq!(client.next_of(kind::DATA).await.unwrap().payload, b"hello");
    assert_eq!(world.calls.load(Ordering::SeqCst), 1);
    // One header, said once, that is meant a thousand times: the first puts it into the table, the others name it.
    let mut bomb = head("/");
    bomb.extend([vec![0x40], header(3_000)[1..].to_vec()].concat());
    bomb.extend([0xbe; 1_000]);
    client
        .send(&frame(kind::HEADERS, END_STREAM | END_HEADERS, 5, &bomb))
        .await;
    assert_eq!(client.next_of(kind::HEADERS).await, None);
    assert_eq!(world.calls.load(Ordering::SeqCst), 1);
    world.serves_others().await;
}

#[tokio::test]
async fn whoever_asks_for_answers_and_takes_none_is_not_listened_to() {
    for asking in [
        frame(kind::PING, 0, 0, b"anybody?"),
        frame(kind::SETTINGS, 0, 0, b""),
    ] {
        let world = World::new(SHORT).await;
        let mut client = world.client(WIDE).await;
        let asking = asking.repeat(1_000);
        let flood = async { while client.try_send(&asking).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, flood)
            .await
            .expect("taken for ever");
        world.serves_others().await;
    }
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let world = World::new(BOUNDS).await;
    let mut client = world.client(WIDE).await;
    let settings = client.next_of(kind::SETTINGS).await.unwrap();
    let said = |name: u16| {
        let mut all = settings.payload.chunks(6);
        let found = all.find(|setting| setting[..2] == name.to_be_bytes());
        u32::from_be_bytes(found.unwrap()[2..].try_into().unwrap())
    };
    assert_eq!(said(STREAMS_MAX), u32::try_from(STREAMS).unwrap());
    assert_eq!(said(INITIAL_WINDOW), UNREAD_BYTES_MAX);
    for stream in streams().take(STREAMS) {
        client.send(&get(stream, "/slow")).await;
    }
    client.sync().await;
    let beyond: Vec<_> = streams().skip(STREAMS).take(20).collect();
    for stream in &beyond {
        client.send(&get(*stream, "/slow")).await;
        let refused = client
            .next_of(kind::RST_STREAM)
            .await
            .expect("the connection ended");
        assert_eq!(
            (refused.stream, refused.reason()),
            (*stream, reason::REFUSED_STREAM)
        );
    }
    assert_eq!(world.calls.load(Ordering::SeqCst), STREAMS);
    // A place that becomes free is one.
    client
        .send(&[reset(1), get(beyond[19] + 2, "/")].concat())
        .await;
    assert_eq!(client.next_of(kind::DATA).await.unwrap().payload, b"hello");
}
