//! Secrets: set, list by name, delete. None is ever shown.
//!
//! **Invariant:** translates and calls; no answer has a value in it.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::error::Error;
use super::guard;
use super::invocations::json_response;
use super::segment::Segment;
use super::{Shared, wire};

/// `GET /v1/secrets`
pub(super) async fn list(state: Shared) -> Response {
    let secrets = state.registry.vault().list();
    let views = secrets.iter().map(wire::secret_view);
    json_response(StatusCode::OK, wire::list_of(views), None)
}

/// `PUT /v1/secrets/{name}`
pub(super) async fn set(
    state: Shared,
    segment: Segment,
    request: Request,
) -> Result<Response, Error> {
    let name = segment.new_secret()?;
    let body = guard::json(request, &state.options, &state.bodies).await?;
    let value = wire::secret_value(&body)?;
    let (secret, is_new) = state.registry.vault().set(&name, value).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(wire::secret_view(&secret))).into_response())
}

/// `DELETE /v1/secrets/{name}`
pub(super) async fn remove(state: Shared, segment: Segment) -> Result<StatusCode, Error> {
    state.registry.delete_secret(&segment.secret()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
