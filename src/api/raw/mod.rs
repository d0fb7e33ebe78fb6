//! Functions as web servers: `/fn/{name}/…`, and everything under the host names that functions own.
//!
//! Stands in front of the routes: what is a function's is taken out here, with its body unread and its target
//! as it was sent. One request is one execution with one attempt; the response is the function's own.
//!
//! **Invariant:** a request for a function never reaches a handler of the API, and one for the API never a function.

mod attention;
mod flow;
mod inbound;
mod outbound;
mod plain;
mod target;

pub use attention::Attention;
pub use inbound::Peer;

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use tower::{Layer, Service};

use self::flow::Flow;
use self::target::Target;
use super::State;
use super::error::Error;
use super::wire::CallHeaders;
use crate::model::{Code, ContentType, Input, Shape};
use crate::registry::Function;
use crate::runtime::{Answer, Exchange};
use crate::scheduler::{Call, Serving};

/// Takes requests for functions out of those for the API.
#[derive(Clone)]
pub(super) struct FunctionsLayer(Arc<State>);

impl FunctionsLayer {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self(state)
    }
}

impl<S> Layer<S> for FunctionsLayer {
    type Service = Functions<S>;

    fn layer(&self, inner: S) -> Functions<S> {
        Functions {
            state: Arc::clone(&self.0),
            inner,
        }
    }
}

/// The functions, with the API behind them.
#[derive(Clone)]
pub(super) struct Functions<S> {
    state: Arc<State>,
    inner: S,
}

impl<S> Service<Request> for Functions<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<BoxFuture<'static, Result<Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(target) = Target::of(&self.state, &request) else {
            return Either::Right(self.inner.call(request));
        };
        let state = Arc::clone(&self.state);
        Either::Left(
            async move {
                let answered = answer(&state, target, request).await;
                Ok(answered.unwrap_or_else(IntoResponse::into_response))
            }
            .boxed(),
        )
    }
}

async fn answer(
    state: &State,
    target: Result<Target, Error>,
    request: Request,
) -> Result<Response, Error> {
    let target = target?;
    match &target.function.active.code {
        Code::Wasm {
            shape: Shape::Http02 | Shape::Http03,
            ..
        } => converse(state, target, request).await,
        Code::Wasm {
            shape: Shape::Handler | Shape::Command02 | Shape::Command03 | Shape::CoreCommand,
            ..
        }
        | Code::Echo
        | Code::Endpoint { .. } => plain::answer(state, target, request).await,
    }
}

/// The function answers itself.
async fn converse(state: &State, target: Target, request: Request) -> Result<Response, Error> {
    let labels = CallHeaders::labels(request.headers());
    let version = request.version();
    let attention = request.extensions().get::<Attention>();
    let attention = attention.map(Attention::want);
    let request = inbound::request(&state.options, &target, request)?;
    let (exchange, mut answer) = Exchange::new(request);
    let input = Input {
        content_type: ContentType(String::new().into()),
        body: Bytes::new(),
    };
    let call = call(&target.function, labels, input);
    let mut serving = state
        .scheduler
        .serve(&target.function, call, exchange)
        .await?;
    let id = serving.id();
    let response = match wait(&mut serving, &mut answer).await {
        Waited::Flows(response) => response.map(|body| Flow::with(body, serving, attention)),
        Waited::Complete(response) => response.map(Flow::complete),
        Waited::None(Ok(record)) => {
            return Err(Error::of_execution(&record, answer.ending()));
        }
        Waited::None(Err(error)) => return Err(Error::from(error).about(id)),
    };
    Ok(outbound::response(response, &target, id, version))
}

/// What came first.
enum Waited {
    /// A response whose body goes on.
    Flows(axum::http::Response<crate::runtime::Outflow>),
    /// A response that is complete, of an execution that is recorded.
    Complete(axum::http::Response<crate::runtime::Outflow>),
    /// The end, without a response.
    None(Result<Arc<crate::store::ExecutionRecord>, crate::scheduler::CallError>),
}

async fn wait(serving: &mut Serving, answer: &mut Answer) -> Waited {
    let ended = tokio::select! {
        biased;
        response = answer.response() => return Waited::Flows(response),
        ended = serving.ended() => ended,
    };
    match answer.take() {
        Some(response) => Waited::Complete(response),
        None => Waited::None(ended),
    }
}

fn call(function: &Function, labels: CallHeaders, input: Input) -> Call {
    Call {
        function: function.name.clone(),
        input,
        metadata: Arc::default(),
        trace_id: labels.trace_id,
        traceparent: labels.traceparent,
        key: None,
        wait: None,
        parent: None,
    }
}
