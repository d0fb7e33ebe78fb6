//! Catches panics of what answers requests.
//!
//! **Invariant:** a request whose answering panics is answered, and its connection goes on.

use std::any::Any;
use std::future::{Ready, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use futures_util::future::{CatchUnwind, Either, FutureExt as _, Map};
use tower::Service;

use super::error::Error;

/// A service whose panics are answered.
#[derive(Clone)]
pub(super) struct Caught<S>(pub(super) S);

type Answer<E> = Result<Response, E>;

type Polled<E> = Result<Answer<E>, Box<dyn Any + Send>>;

impl<S> Service<Request> for Caught<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<
        Map<CatchUnwind<AssertUnwindSafe<S::Future>>, fn(Polled<S::Error>) -> Answer<S::Error>>,
        Ready<Answer<S::Error>>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // Nothing of a request that panics is used again, and services keep nothing of requests.
        match catch_unwind(AssertUnwindSafe(|| self.0.call(request))) {
            Ok(answering) => Either::Left(AssertUnwindSafe(answering).catch_unwind().map(answered)),
            Err(panic) => Either::Right(ready(Ok(Error::from_panic(panic)))),
        }
    }
}

fn answered<E>(polled: Polled<E>) -> Answer<E> {
    polled.unwrap_or_else(|panic| Ok(Error::from_panic(panic)))
}
