//! Work moved by hand, for tests and for planes that run nothing by themselves.
//!
//! **Invariant:** the answer comes after every dispatch it names is recorded. A client that hangs up cancels
//! none of them.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;

use super::error::Error;
use super::invocations::json_response;
use super::segment::Segment;
use super::{Shared, guard, wire};

/// `POST /v1/internal/functions/{name}:drain-once`
pub(super) async fn once(
    state: Shared,
    segment: Segment,
    request: Request,
) -> Result<Response, Error> {
    let name = segment.function_for("drain-once")?;
    let body = guard::optional_json(request, &state.options, &state.orders).await?;
    let options = wire::drain_options(&body)?;
    let drained = state.scheduler.drain(&name, options).await?;
    let last = drained.items.last().map(|item| item.execution_id);
    Ok(json_response(
        StatusCode::OK,
        wire::drain_answer(&drained),
        last,
    ))
}
