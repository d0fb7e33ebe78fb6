//! Functions that know nothing of HTTP, called as if they did: the body is the input, the output is the body.
//!
//! **Invariant:** the same limits and the same one execution as for functions that do; the status says how it
//! ended.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use super::target::Target;
use super::{Attention, outbound};
use crate::api::State;
use crate::api::error::Error;
use crate::api::guard;
use crate::api::wire::CallHeaders;
use crate::execution::Status;
use crate::model::{ContentType, Encoding, Input, Output};
use crate::runtime::Exchange;

/// The media type of a body that states none.
const OCTETS: &str = "application/octet-stream";

/// Runs the function on the request's body.
pub(super) async fn answer(
    state: &State,
    target: Target,
    request: Request,
) -> Result<Response, Error> {
    let labels = CallHeaders::labels(request.headers());
    let content_type = content_type(request.headers());
    let attention = request.extensions().get::<Attention>().cloned();
    // The body counts as long as its call waits.
    let body = guard::body(request, &state.options, &state.bodies).await?;
    let input = Input {
        content_type,
        body: bytes::Bytes::clone(&body),
    };
    let attention = attention.map(|attention| attention.want());
    let (exchange, answer) = Exchange::plain();
    let call = super::call(&target.function, labels, input);
    let mut serving = state
        .scheduler
        .serve(&target.function, call, exchange)
        .await?;
    let id = serving.id();
    let ended = serving.ended().await;
    drop(attention);
    let record = ended.map_err(|error| Error::from(error).about(id))?;
    let mut response = match (record.execution.status(), &record.output) {
        (Status::Success, Some(output)) => shown(output),
        (Status::Success, None) => Response::default(),
        _ => Error::of_execution(&record, answer.ending()).into_response(),
    };
    outbound::finish(response.headers_mut(), &target, id);
    Ok(guard::hold(&state.answers, response))
}

fn content_type(headers: &HeaderMap) -> ContentType {
    let stated = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    ContentType(match stated {
        Some(stated) if !stated.is_empty() => stated.to_owned().into(),
        Some(_) | None => OCTETS.into(),
    })
}

fn shown(output: &Output) -> Response {
    let by_bytes = match output.encoding {
        Encoding::Json => "application/json",
        Encoding::Text => "text/plain; charset=utf-8",
        Encoding::Base64 => OCTETS,
    };
    let stated = output.content_type.as_ref();
    let stated = stated.and_then(|stated| HeaderValue::try_from(&*stated.0).ok());
    let content_type = stated.unwrap_or(HeaderValue::from_static(by_bytes));
    let mut response = Response::new(Body::from(output.body.clone()));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
