//! The body of a response on its way to a caller who speaks HTTP.
//!
//! **Invariant:** ends without an error only if the guest finished it. Nothing is buffered here: a caller who
//! does not read makes the guest wait.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

use super::reply::{Flow, Reply};

/// A response's body.
#[derive(Debug)]
pub struct Outflow(Kind);

#[derive(Debug)]
enum Kind {
    /// None, whatever the head says about one.
    None,
    /// All of it.
    Whole {
        body: Bytes,
        trailers: Option<HeaderMap>,
    },
    /// As it comes.
    Flowing(Arc<Reply>),
}

/// The function ended before its response's body did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the function ended before its response's body did")]
pub struct BrokenOff;

impl Outflow {
    /// A body that is complete.
    pub(super) fn whole(body: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self(Kind::Whole { body, trailers })
    }

    /// No body, where a client expects none.
    pub(super) fn none() -> Self {
        Self(Kind::None)
    }

    /// A body that its guest is still writing.
    pub(super) fn flowing(reply: Arc<Reply>) -> Self {
        Self(Kind::Flowing(reply))
    }

    /// Whether the caller has all of it. Else whoever drops it has left before the end.
    pub fn is_delivered(&self) -> bool {
        match &self.0 {
            Kind::None | Kind::Whole { .. } => true,
            Kind::Flowing(reply) => reply.has_flowed(),
        }
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        if let Kind::Flowing(reply) = &self.0 {
            reply.caller_gone();
        }
    }
}

impl Body for Outflow {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.0 {
            Kind::None => Poll::Ready(None),
            Kind::Whole { body, trailers } => Poll::Ready(if body.is_empty() {
                trailers.take().map(|it| Ok(Frame::trailers(it)))
            } else {
                Some(Ok(Frame::data(std::mem::take(body))))
            }),
            Kind::Flowing(reply) => reply.poll_flow(cx).map(|flow| match flow {
                Flow::Data(data) => Some(Ok(Frame::data(data))),
                Flow::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
                Flow::End => None,
                Flow::Broken => Some(Err(BrokenOff)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::None => true,
            Kind::Whole { body, trailers } => body.is_empty() && trailers.is_none(),
            Kind::Flowing(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole {
                body,
                trailers: None,
            } => SizeHint::with_exact(u64::try_from(body.len()).unwrap_or(u64::MAX)),
            // What states its length is sent without trailers.
            Kind::Whole {
                trailers: Some(_), ..
            } => SizeHint::default(),
            // Of none nothing is said, so that nothing is added to what the head says.
            Kind::None | Kind::Flowing(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_states_its_length_unless_trailers_follow() {
        let body = || Bytes::from_static(b"body");
        let alone = Outflow::whole(body(), None);
        assert_eq!(alone.size_hint().exact(), Some(4));
        let followed = Outflow::whole(body(), Some(HeaderMap::new()));
        assert_eq!(followed.size_hint().exact(), None);
    }
}
