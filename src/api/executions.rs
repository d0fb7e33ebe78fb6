//! Executions: one, a list, logs; completed from outside, cancelled, redriven alone or together.
//!
//! **Invariant:** an id that does not parse is one that does not exist.

use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::error::Error;
use super::invocations::{id_header, json_response};
use super::segment::{ExecutionVerb, Segment};
use super::wire::{self, CompletionBody, ListQuery, X_EXECUTION_ID};
use super::{Shared, guard};
use crate::model::{ExecutionId, FunctionName};

/// `GET /v1/executions/{id}`
pub(super) async fn one(state: Shared, segment: Segment) -> Result<Response, Error> {
    let id = segment.execution()?;
    let record = state.scheduler.execution(id).await?;
    let record = record.ok_or_else(|| Error::unknown_execution(&id.to_string()))?;
    Ok(json_response(
        StatusCode::OK,
        wire::execution(&record),
        Some(id),
    ))
}

/// `GET /v1/executions`
pub(super) async fn list(state: Shared, uri: Uri) -> Result<Response, Error> {
    let query = ListQuery::parse(&uri, &state.options)?;
    // One more than is shown, to know whether there is another page.
    let records = state
        .scheduler
        .executions(&query.filter, query.limit.saturating_add(1))
        .await?;
    Ok(json_response(
        StatusCode::OK,
        wire::page(&query, &records),
        None,
    ))
}

/// `GET /v1/executions/{id}/logs`
pub(super) async fn logs(state: Shared, segment: Segment) -> Result<Response, Error> {
    let id = segment.execution()?;
    let attempts = state.scheduler.attempts(id).await?;
    // One that never ran has no attempts, and neither has one that never was.
    if attempts.is_empty() && state.scheduler.execution(id).await?.is_none() {
        return Err(Error::unknown_execution(&id.to_string()));
    }
    Ok(json_response(
        StatusCode::OK,
        wire::logs(id, &attempts),
        Some(id),
    ))
}

/// `POST /v1/executions/{id}:{verb}`
pub(super) async fn verb(
    state: Shared,
    segment: Segment,
    request: Request,
) -> Result<Response, Error> {
    let (id, verb) = segment.execution_verb()?;
    match verb {
        ExecutionVerb::Cancel => cancel(&state, id, request).await,
        ExecutionVerb::Redrive => redrive(&state, id, request).await,
    }
}

async fn cancel(state: &Shared, id: ExecutionId, request: Request) -> Result<Response, Error> {
    let body = guard::optional_json(request, &state.options, &state.orders).await?;
    wire::no_fields(&body)?;
    let record = state.scheduler.cancel(id).await?;
    let record = record.ok_or_else(|| Error::unknown_execution(&id.to_string()))?;
    Ok(json_response(
        StatusCode::OK,
        wire::execution(&record),
        Some(id),
    ))
}

async fn redrive(state: &Shared, id: ExecutionId, request: Request) -> Result<Response, Error> {
    let body = guard::optional_json(request, &state.options, &state.orders).await?;
    let version = wire::redrive_version(&body)?;
    let record = state.scheduler.redrive(id, version).await?;
    let record = record.ok_or_else(|| Error::unknown_execution(&id.to_string()))?;
    Ok(json_response(
        StatusCode::OK,
        wire::execution(&record),
        Some(id),
    ))
}

/// `POST /v1/functions/{name}:redrive`
pub(super) async fn redrive_many(
    state: &Shared,
    function: FunctionName,
    request: Request,
) -> Result<Response, Error> {
    let body = guard::json(request, &state.options, &state.bodies).await?;
    let redrive = wire::redrive(function, &body)?;
    let redriven = state.scheduler.redrive_many(redrive.clone()).await?;
    Ok(json_response(
        StatusCode::OK,
        wire::redriven(&redrive, &redriven),
        None,
    ))
}

/// `POST /v1/internal/executions/{id}:complete`. One that came too late is thanked all the same: whoever
/// sent it can do nothing about it.
pub(super) async fn complete(
    state: Shared,
    segment: Segment,
    request: Request,
) -> Result<Response, Error> {
    let id = segment.execution_for("complete")?;
    let fence = wire::dispatch_attempt(request.headers());
    let body = guard::json(request, &state.options, &state.orders).await?;
    let CompletionBody { completion, output } = CompletionBody::parse(&body)?;
    let completed = state
        .scheduler
        .complete(id, fence, completion, output)
        .await?;
    if completed.is_none() {
        return Err(Error::unknown_execution(&id.to_string()));
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Some(id) = id_header(id) {
        response.headers_mut().insert(X_EXECUTION_ID, id);
    }
    Ok(response)
}
