//! The body of a function's response, on its way to the caller.
//!
//! **Invariant:** a caller who leaves before the end takes the function along; one who has everything does not.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::attention::Wanted;
use crate::runtime::{BrokenOff, Outflow};
use crate::scheduler::Serving;

/// A response's body and, while its function runs, the call.
pub(super) struct Flow {
    outflow: Outflow,
    serving: Option<Serving>,
    /// See [`Flow::with_length_of_none`].
    states_length_of_none: bool,
    /// A caller who leaves is noticed as long as this is held.
    _attention: Option<Wanted>,
}

impl Flow {
    /// A body that the function is still writing.
    pub(super) fn with(outflow: Outflow, serving: Serving, attention: Option<Wanted>) -> Self {
        Self {
            outflow,
            serving: Some(serving),
            states_length_of_none: false,
            _attention: attention,
        }
    }

    /// A body that is complete, of a call that has ended.
    pub(super) fn complete(outflow: Outflow) -> Self {
        Self {
            outflow,
            serving: None,
            states_length_of_none: false,
            _attention: None,
        }
    }

    /// The body of a 304 over HTTP/1.1 whose head states the length that a 200 would have: there is none, and to the
    /// connection it only ends once it is asked, else that would take the length out of the head.
    pub(super) fn with_length_of_none(mut self) -> Self {
        self.states_length_of_none = true;
        self
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take()
            && self.outflow.is_delivered()
        {
            serving.leave();
        }
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Pin::new(&mut self.outflow).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        !self.states_length_of_none && self.outflow.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.outflow.size_hint()
    }
}
