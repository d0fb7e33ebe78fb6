//! Functions: deploy, create, show, change, delete, and go back to an older version.
//!
//! **Invariant:** translates and calls; what a deploy does is the registry's.

use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::error::Error;
use super::guard::{self, Hosts, require_json};
use super::segment::Segment;
use super::upload::{self, Said, Upload};
use super::{Shared, invocations::json_response, wire};
use crate::model::{FunctionName, Spec};
use crate::registry::{Function, SpecEdit};

/// `GET /v1/functions`
pub(super) async fn list(state: Shared) -> Response {
    let functions = state.registry.list();
    let views = functions
        .iter()
        .map(|function| Value::Object(wire::view(function)));
    json_response(StatusCode::OK, wire::list_of(views), None)
}

/// `GET /v1/functions/{name}`
pub(super) async fn one(state: Shared, segment: Segment) -> Result<Response, Error> {
    let function = found(&state, &segment.function()?)?;
    Ok(shown(StatusCode::OK, &function))
}

/// `GET /v1/functions/{name}/versions`
pub(super) async fn versions(state: Shared, segment: Segment) -> Result<Response, Error> {
    let function = found(&state, &segment.function()?)?;
    let versions = function.versions.iter();
    let views = versions.map(|version| Value::Object(wire::version_view(&function, version)));
    Ok(json_response(StatusCode::OK, wire::list_of(views), None))
}

/// `POST /v1/functions`: creates, and only that.
pub(super) async fn create(state: Shared, request: Request) -> Result<Response, Error> {
    let body = guard::json(request, &state.options, &state.orders).await?;
    let wire::NewFunction { name, spec } = wire::NewFunction::parse(&body)?;
    let spec = with_others_hosts(&state.hosts, spec).map_err(Error::invalid)?;
    let function = state.registry.create(&name, spec).await?;
    state.scheduler.settings_changed(&name);
    Ok(created(&function))
}

/// `PUT /v1/functions/{name}`: wasm alone, or with a spec or a patch of it.
pub(super) async fn deploy(
    state: Shared,
    segment: Segment,
    request: Request,
) -> Result<Response, Error> {
    let name = segment.new_function();
    if upload::is_file(&request)
        && let Err(complaint) = &name
    {
        return Err(Error::invalid_field("name", complaint));
    }
    // Held until the file is compiled: its bytes are in memory as long.
    let (received, _permit) = upload::receive(&state, request).await?;
    let stands = |name: &FunctionName| state.registry.get(name).map(|function| function.spec());
    let (name, Upload { wasm, said }) =
        received.of(name, |name| stands(name).unwrap_or_default())?;
    let edit: Option<SpecEdit> = match said {
        Said::Nothing => None,
        Said::Spec(object) => {
            let spec = wire::full_spec(object, &name);
            let spec = spec.and_then(|spec| with_others_hosts(&state.hosts, spec));
            let spec = spec.map_err(Error::invalid)?;
            Some(Box::new(move |_| Ok(spec)))
        }
        // Merged when its turn has come, with the spec that stands then.
        Said::Patch(patch) => {
            let (name, hosts) = (name.clone(), Arc::clone(&state.hosts));
            Some(Box::new(move |base| {
                let spec = wire::patched_with_code(base, patch, Some(&name))?;
                with_others_hosts(&hosts, spec)
            }))
        }
    };
    let deployed = state.registry.deploy(&name, wasm, edit).await?;
    state.scheduler.settings_changed(&name);
    Ok(if deployed.created {
        created(&deployed.function)
    } else {
        shown(StatusCode::OK, &deployed.function)
    })
}

/// `PATCH /v1/functions/{name}`: a JSON merge patch of the spec.
pub(super) async fn patch(
    state: Shared,
    segment: Segment,
    request: Request,
) -> Result<Response, Error> {
    let name = segment.function()?;
    require_json(request.headers(), &["application/merge-patch+json"])?;
    let body = guard::body(request, &state.options, &state.orders).await?;
    let mut patch = wire::object(&body)?;
    // What is sent back as it was shown is not a change, derived values (image, executionMode) included.
    let shown_now = wire::view(&*found(&state, &name)?);
    patch.retain(|field, value| shown_now.get(field) != Some(value));
    let edit: SpecEdit = {
        let (name, hosts) = (name.clone(), Arc::clone(&state.hosts));
        Box::new(move |base| {
            let spec = wire::merge_patch(base, patch, &name)?;
            with_others_hosts(&hosts, spec)
        })
    };
    let function = state.registry.update(&name, edit).await?;
    state.scheduler.settings_changed(&name);
    Ok(shown(StatusCode::OK, &function))
}

/// `DELETE /v1/functions/{name}`
pub(super) async fn remove(state: Shared, segment: Segment) -> Result<StatusCode, Error> {
    state
        .scheduler
        .remove_function(&segment.function()?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/functions/{name}:rollback`
pub(super) async fn rollback(
    state: &Shared,
    name: &FunctionName,
    request: Request,
) -> Result<Response, Error> {
    let body = guard::json(request, &state.options, &state.orders).await?;
    let version = wire::rollback_version(&body)?;
    let function = state.registry.rollback(name, version).await?;
    state.scheduler.settings_changed(name);
    Ok(shown(StatusCode::OK, &function))
}

/// `PUT /v1/functions/{name}/replicas`: nanofaas scales its DEPLOYMENT functions by it. There are none here.
pub(super) async fn replicas(state: Shared, segment: Segment) -> Result<Response, Error> {
    let function = found(&state, &segment.function()?)?;
    Err(Error::no_replicas(&function.name))
}

/// The spec, if none of its host names is this server's own.
fn with_others_hosts(hosts: &Hosts, spec: Spec) -> Result<Spec, Vec<String>> {
    let own = spec
        .settings
        .hosts
        .iter()
        .filter(|host| hosts.answers(host.as_str()));
    let complaints: Vec<_> = own
        .map(|host| {
            format!("hosts: {host} is this server's own name, under which its API is reached")
        })
        .collect();
    match complaints.is_empty() {
        true => Ok(spec),
        false => Err(complaints),
    }
}

fn found(state: &Shared, name: &FunctionName) -> Result<Arc<Function>, Error> {
    let function = state.registry.get(name);
    function.ok_or_else(|| Error::unknown_function(name.as_str()))
}

fn shown(status: StatusCode, function: &Function) -> Response {
    (status, Json(wire::view(function))).into_response()
}

fn created(function: &Function) -> Response {
    let location = [(LOCATION, format!("/v1/functions/{}", function.name))];
    (location, shown(StatusCode::CREATED, function)).into_response()
}
