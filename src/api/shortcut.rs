//! The short way for calls: what a router does for a request costs more than all else that the API does for a call.
//!
//! **Invariant:** what is answered here is answered as its route would answer it; whatever is out of the ordinary
//! (another method, a name or verb that is none, a percent sign) is left to the routes.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use tower::Service;

use super::error::Error;
use super::wire::CallHeaders;
use super::{State, invocations, segment};
use crate::model::FunctionName;

/// Where functions are.
const FUNCTIONS: &str = "/v1/functions/";

/// Routes, with the short way in front of them.
#[derive(Clone)]
pub(super) struct Shortcut<S> {
    state: Arc<State>,
    routes: S,
}

impl<S> Shortcut<S> {
    /// `routes` are those of `state`.
    pub(super) fn new(state: Arc<State>, routes: S) -> Self {
        Self { state, routes }
    }
}

impl<S> Service<Request> for Shortcut<S>
where
    S: Service<Request, Response = Response>,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<BoxFuture<'static, Result<Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.routes.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some((name, verb)) = called(&request) else {
            return Either::Right(self.routes.call(request));
        };
        let state = Arc::clone(&self.state);
        let answering = match verb {
            Verb::Invoke => {
                let call = invocations::Unread::of(&state, name, request, CallHeaders::parse);
                answered(async move { invocations::invoke(&state, call?).await })
            }
            Verb::Enqueue => {
                let call =
                    invocations::Unread::of(&state, name, request, CallHeaders::parse_unwaited);
                answered(async move { invocations::enqueue(&state, call?).await })
            }
        };
        Either::Left(answering)
    }
}

/// What is to be done with a function.
fn answered<E: Send + 'static>(
    answering: impl Future<Output = Result<Response, Error>> + Send + 'static,
) -> BoxFuture<'static, Result<Response, E>> {
    answering
        .map(|answer| Ok(answer.unwrap_or_else(IntoResponse::into_response)))
        .boxed()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Invoke,
    Enqueue,
}

/// The function that a request calls, if it is a call that looks as all of them do.
fn called(request: &Request) -> Option<(FunctionName, Verb)> {
    if request.method() != Method::POST {
        return None;
    }
    let last = request.uri().path().strip_prefix(FUNCTIONS)?;
    let (name, verb) = segment::split(last);
    let verb = match verb? {
        "invoke" => Verb::Invoke,
        "enqueue" => Verb::Enqueue,
        _ => return None,
    };
    // Neither a slash nor a percent sign stands in a name.
    Some((name.parse().ok()?, verb))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn called_by(method: &str, target: &str) -> Option<(String, Verb)> {
        let request = Request::builder().method(method).uri(target);
        let (name, verb) = called(&request.body(Body::empty()).unwrap())?;
        Some((name.to_string(), verb))
    }

    #[test]
    fn plain_calls_are_seen_and_everything_else_is_left_to_the_routes() {
        let echo = |verb| Some(("echo".to_owned(), verb));
        for (target, verb) in [
            ("/v1/functions/echo:invoke", Verb::Invoke),
            ("/v1/functions/echo:enqueue", Verb::Enqueue),
            ("/v1/functions/echo:invoke?a=b", Verb::Invoke),
            ("http://localhost/v1/functions/echo:invoke", Verb::Invoke),
        ] {
            assert_eq!(called_by("POST", target), echo(verb), "{target}");
            assert_eq!(called_by("GET", target), None, "{target}");
        }
        for target in [
            "/v1/functions/echo",
            "/v1/functions/echo:rollback",
            "/v1/functions/echo:invoke/",
            "/v1/functions/a:b:invoke",
            "/v1/functions/a/b:invoke",
            "/v1/functions/%65cho:invoke",
            "/v1/functions/echo%3Ainvoke",
            "/v1/functions/:invoke",
            "/v1/functions//echo:invoke",
            "/v2/functions/echo:invoke",
        ] {
            assert_eq!(called_by("POST", target), None, "{target}");
        }
    }
}
