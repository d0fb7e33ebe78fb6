//! What becomes of an error beside its answer: it is counted by its code, and one that is the server's own fault
//! has a line in the log.
//!
//! **Invariant:** an error is logged here or where it happened, never at both places; what is logged of a request
//! is its method and its path.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures_util::future::{FutureExt as _, Join, Map, join};
use tower::{Layer, Service};

use crate::observe::Metrics;

/// What an error leaves in its answer for this layer.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) code: &'static str,
    /// What no client is told.
    pub(super) inside: Option<Arc<str>>,
}

/// Counts and logs errors.
#[derive(Clone)]
pub(super) struct ToldLayer(pub(super) Metrics);

impl<S> Layer<S> for ToldLayer {
    type Service = Telling<S>;

    fn layer(&self, inner: S) -> Telling<S> {
        Telling {
            inner,
            metrics: self.0.clone(),
        }
    }
}

/// A service whose errors are counted and logged.
#[derive(Clone)]
pub(super) struct Telling<S> {
    inner: S,
    metrics: Metrics,
}

/// What is remembered of a request until its answer is there.
pub(super) struct Asked {
    method: Method,
    /// A copy: the request's own is a piece of the buffer that it was read into, which would be kept for as long.
    path: Box<str>,
    metrics: Metrics,
}

type Answered<B, E> = (Result<Response<B>, E>, Asked);

impl<S, B> Service<Request> for Telling<S>
where
    S: Service<Request, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Map<
        Join<S::Future, Ready<Asked>>,
        fn(Answered<B, S::Error>) -> Result<Response<B>, S::Error>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let asked = Asked {
            method: request.method().clone(),
            path: request.uri().path().into(),
            metrics: self.metrics.clone(),
        };
        join(self.inner.call(request), ready(asked)).map(tell)
    }
}

fn tell<B, E>((answer, asked): Answered<B, E>) -> Result<Response<B>, E> {
    if let Ok(response) = &answer
        && let Some(told) = response.extensions().get::<Told>()
    {
        asked.metrics.refused(told.code);
        // Only what no other place has a line of: that the store fails or the plane stops is said once, where
        // it happens, and not by every request that comes to feel it.
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(
                error.code = told.code,
                error.inside = told.inside.as_deref(),
                http.method = %asked.method,
                http.path = &*asked.path,
                "a request failed through a fault of ours"
            );
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use axum::body::Body;
    use axum::http::Uri;
    use bytes::Bytes;
    use futures_util::poll;
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn a_request_that_waits_for_its_answer_does_not_keep_what_it_was_read_into() {
        let buffer = Bytes::from(b"/v1/functions/echo:invoke".to_vec());
        let uri = Uri::from_maybe_shared(buffer.clone()).unwrap();
        let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        let waiting = service_fn(|request: Request| {
            drop(request);
            pending::<Result<Response, Infallible>>()
        });
        let mut answer = ToldLayer(Metrics::default()).layer(waiting).call(request);
        assert!(poll!(&mut answer).is_pending());
        assert!(buffer.is_unique());
    }
}
