use std::convert::Infallible;

use futures_util::stream;
use http::HeaderMap;
use http_body_util::{Full, StreamBody};

use super::*;

const PATIENCE: Duration = Duration::from_secs(8);

type Polled = Poll<Option<Frame<Piece>>>;

fn poll<B: Body<Data = Bytes, Error = Infallible> + Unpin>(body: &mut Handed<B>) -> Polled {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let polled = Pin::new(body).poll_frame(&mut cx);
    polled.map(|frame| frame.map(|frame| frame.unwrap()))
}

#[track_caller]
fn piece(polled: Polled) -> Piece {
    let Poll::Ready(Some(frame)) = polled else {
        panic!("no frame")
    };
    frame.into_data().unwrap()
}

#[test]
fn a_long_body_ends_once_its_last_byte_is_taken() {
    let answer = Answers::default().announce();
    let body = Bytes::from(vec![1; 2 * PIECE_BYTES + 1]);
    let mut body = Handed::new(Full::new(body), Some(Arc::clone(&answer)));
    assert_eq!(body.size_hint().exact(), Some(2 * PIECE_BYTES as u64 + 1));
    let mut pieces = Vec::new();
    for length in [PIECE_BYTES, PIECE_BYTES, 1] {
        pieces.push(piece(poll(&mut body)));
        assert_eq!(pieces.last().unwrap().remaining(), length);
        assert!(!body.is_end_stream());
    }
    assert_eq!(body.size_hint().exact(), Some(0));
    pieces[0].advance(PIECE_BYTES);
    pieces[1].advance(PIECE_BYTES);
    assert!(poll(&mut body).is_pending());
    pieces[2].advance(1);
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
}

#[test]
fn a_short_body_ends_with_its_only_piece() {
    let answer = Answers::default().announce();
    let mut body = Handed::new(Full::new(Bytes::from_static(b"hello")), Some(answer));
    assert!(!body.is_end_stream());
    let piece = piece(poll(&mut body));
    assert_eq!(piece.chunk(), b"hello");
    assert!(body.is_end_stream());
    assert!(Handed::new(Full::new(Bytes::new()), None).is_end_stream());
}

#[test]
fn trailers_come_last_and_come() {
    let answer = Answers::default().announce();
    let frames = [
        Frame::data(Bytes::from(vec![1; PIECE_BYTES + 1])),
        Frame::trailers(HeaderMap::new()),
    ];
    let frames = stream::iter(frames.map(Ok::<_, Infallible>));
    let mut body = Handed::new(StreamBody::new(frames), Some(answer));
    let pieces = [piece(poll(&mut body)), piece(poll(&mut body))];
    assert!(poll(&mut body).is_pending());
    // Dropped is as good as taken.
    drop(pieces);
    let Poll::Ready(Some(frame)) = poll(&mut body) else {
        panic!("no trailers")
    };
    assert!(frame.is_trailers());
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
}

#[test]
fn a_body_of_http_1_is_as_it_is() {
    let mut body = Handed::new(Full::new(Bytes::from(vec![1; 3 * PIECE_BYTES])), None);
    assert_eq!(piece(poll(&mut body)).remaining(), 3 * PIECE_BYTES);
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_nothing_is_given_up_and_whoever_takes_a_little_is_not() {
    let answers = Answers::default();
    let answer = answers.announce();
    assert!(Arc::ptr_eq(&answer, &answers.announced().unwrap()));
    assert!(answers.announced().is_none());
    let attended = Arc::clone(&answer).attend(Box::pin(std::future::pending()), PATIENCE);
    let mut attended = std::pin::pin!(attended);
    let mut stalled = std::pin::pin!(answers.stalled(PATIENCE));
    let mut waits = async |time: Duration| {
        tokio::select! {
            () = &mut attended => panic!("given up"),
            () = &mut stalled => panic!("given up"),
            () = tokio::time::sleep(time) => {}
        }
    };
    // Nothing is held.
    waits(PATIENCE * 3).await;
    let mut piece = answer.piece(Bytes::from(vec![1; 100]));
    for _ in 0..20 {
        waits(PATIENCE / 2).await;
        piece.advance(1);
    }
    let last = tokio::time::Instant::now();
    attended.await;
    assert!(last.elapsed() >= PATIENCE && last.elapsed() <= PATIENCE * 3 / 2);
    stalled.await;
}
