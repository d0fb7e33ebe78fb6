//! Calls: `:invoke` waits for the result, `:enqueue` for the disk.
//!
//! A synchronous caller that hangs up drops its handler, and with it the call (unless a key was given). An
//! asynchronous one does not: once its body has been read the execution is accepted.
//!
//! **Invariant:** a large payload is not copied, and none is parsed into values, on its way in; a function's failure is
//! a result (200), never an error of the API.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use super::error::Error;
use super::segment::{FunctionVerb, Segment};
use super::wire::{self, CallBody, CallHeaders, X_EXECUTION_ID};
use super::{Shared, State, executions, functions, guard};
use crate::model::{ExecutionId, FunctionName, Input, JSON};
use crate::scheduler::Call;

/// `POST /v1/functions/{name}:{verb}`
pub(super) async fn verb(
    state: Shared,
    segment: Segment,
    request: Request,
) -> Result<Response, Error> {
    let (name, verb) = segment.function_verb()?;
    match verb {
        FunctionVerb::Invoke => {
            let unread = Unread::of(&state, name, request, CallHeaders::parse)?;
            invoke(&state, unread).await
        }
        FunctionVerb::Enqueue => {
            let unread = Unread::of(&state, name, request, CallHeaders::parse_unwaited)?;
            enqueue(&state, unread).await
        }
        FunctionVerb::Rollback => functions::rollback(&state, &name, request).await,
        FunctionVerb::Redrive => executions::redrive_many(&state, name, request).await,
    }
}

/// A call whose body has not been read.
#[derive(Debug)]
pub(super) struct Unread {
    function: FunctionName,
    headers: CallHeaders,
    body: guard::Unread,
}

impl Unread {
    /// A call whose headers are read by `headers`: which there may be depends on whether it is waited for.
    ///
    /// # Errors
    /// Its headers say something that is not so, or it is not JSON, or too large.
    pub(super) fn of(
        state: &State,
        function: FunctionName,
        request: Request,
        headers: fn(&HeaderMap) -> Result<CallHeaders, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            function,
            headers: headers(request.headers())?,
            body: guard::Unread::json(request, &state.options, &state.bodies)?,
        })
    }

    /// The call, and the room that its body takes.
    async fn read(self, state: &State) -> Result<(Call, guard::Room), Error> {
        let Self {
            function,
            headers,
            body,
        } = self;
        let received = body.read(&state.options, &state.bodies).await?;
        let body = CallBody::parse(&received, &state.options)?;
        let key = headers.key.map(|key| (key, body.hash()));
        let call = Call {
            function,
            input: Input {
                content_type: JSON,
                body: body.input,
            },
            metadata: body.metadata,
            trace_id: headers.trace_id,
            traceparent: headers.traceparent,
            key,
            wait: headers.wait,
            parent: None,
        };
        Ok((call, received.into_room()))
    }
}

/// `:invoke`, whichever way it came.
pub(super) async fn invoke(state: &State, call: Unread) -> Result<Response, Error> {
    // The body counts as long as its call waits.
    let (call, _room) = call.read(state).await?;
    let invoked = state.scheduler.invoke(call).await?;
    let record = &invoked.execution;
    Ok(json_response(
        StatusCode::OK,
        wire::call_answer(record),
        Some(record.id),
    ))
}

/// `:enqueue`, likewise.
pub(super) async fn enqueue(state: &State, call: Unread) -> Result<Response, Error> {
    let (call, _room) = call.read(state).await?;
    let enqueued = state.scheduler.enqueue(call).await?;
    let record = &enqueued.execution;
    Ok(json_response(
        StatusCode::ACCEPTED,
        wire::call_answer(record),
        Some(record.id),
    ))
}

/// A JSON answer, about an execution or not.
pub(super) fn json_response(
    status: StatusCode,
    body: Bytes,
    about: Option<ExecutionId>,
) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(id) = about.and_then(id_header) {
        headers.insert(X_EXECUTION_ID, id);
    }
    response
}

/// An execution's id as a header's value; hexadecimal digits and hyphens always are one.
pub(super) fn id_header(id: ExecutionId) -> Option<HeaderValue> {
    HeaderValue::from_str(id.text(&mut [0; ExecutionId::TEXT_BYTES])).ok()
}
