//! The runtime config: shown, changed, and asked whether a change could be made.
//!
//! **Invariant:** where it is turned off, every one of its paths answers 404.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;

use super::error::Error;
use super::invocations::json_response;
use super::options::RuntimeConfigApi;
use super::wire::{self, Revision, RuntimeConfigBody};
use super::{Shared, guard};

/// `GET /v1/admin/runtime-config`
pub(super) async fn runtime_config(state: Shared) -> Result<Response, Error> {
    require_on(&state)?;
    let (revision, config) = state.scheduler.runtime_config();
    let body = wire::runtime_config(revision, &config);
    Ok(json_response(StatusCode::OK, body, None))
}

/// `PATCH /v1/admin/runtime-config`: the values are judged before the revision.
pub(super) async fn change_runtime_config(
    state: Shared,
    request: Request,
) -> Result<Response, Error> {
    require_on(&state)?;
    let body = guard::json(request, &state.options, &state.bodies).await?;
    let asked = RuntimeConfigBody::parse(&body, Revision::Needed)?;
    check(&state, &asked)?;
    // Needed, so there is one.
    let expected = asked.expected_revision.unwrap_or_default();
    let change = state
        .scheduler
        .change_runtime_config(expected, asked.settings)
        .await?;
    Ok(json_response(
        StatusCode::OK,
        wire::runtime_change(&change),
        None,
    ))
}

/// `POST /v1/admin/runtime-config/validate`: changes nothing, and asks for no revision.
pub(super) async fn validate_runtime_config(
    state: Shared,
    request: Request,
) -> Result<Response, Error> {
    require_on(&state)?;
    let body = guard::json(request, &state.options, &state.bodies).await?;
    let asked = RuntimeConfigBody::parse(&body, Revision::Optional)?;
    let warnings = check(&state, &asked)?;
    let body = wire::runtime_config_valid(&warnings);
    Ok(json_response(StatusCode::OK, body, None))
}

/// What the values would be warned of, if they can be meant.
fn check(state: &Shared, asked: &RuntimeConfigBody) -> Result<Vec<String>, Error> {
    let checked = state.scheduler.check_runtime_config(&asked.settings);
    let mut complaints = asked.invalid.clone();
    let warnings = match checked {
        Ok(config) => config.warnings(),
        Err(further) => {
            complaints.extend(further);
            Vec::new()
        }
    };
    if complaints.is_empty() {
        Ok(warnings)
    } else {
        Err(Error::invalid_config(complaints))
    }
}

fn require_on(state: &Shared) -> Result<(), Error> {
    match state.options.runtime_config {
        RuntimeConfigApi::On => Ok(()),
        RuntimeConfigApi::Off => Err(Error::runtime_config_off()),
    }
}
