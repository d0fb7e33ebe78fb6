//! Every route, in one list.
//!
//! A path's last part may be `{name}:{verb}`, which the router cannot tell apart: there is one route per
//! method, and [`super::segment`] splits and knows the methods of each path.
//!
//! **Invariant:** a request that no route takes is answered in the error shape too, and so is one whose
//! handler panics.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::routing::{get, post, put};
use tower_http::catch_panic::CatchPanicLayer;

use super::error::Error;
use super::guard::GuardLayer;
use super::segment::Segment;
use super::{State, drain, executions, functions, health, invocations, raw};

/// The API.
pub fn router(state: Arc<State>) -> Router {
    let routes = Router::new()
        .route(
            "/v1/functions",
            get(functions::list).post(functions::create),
        )
        .route(
            "/v1/functions/{segment}",
            get(functions::one)
                .put(functions::deploy)
                .patch(functions::patch)
                .delete(functions::remove)
                .post(invocations::verb)
                .fallback(async |segment: Segment| segment.other_method_of_function()),
        )
        .route("/v1/functions/{segment}/versions", get(functions::versions))
        .route("/v1/functions/{segment}/replicas", put(functions::replicas))
        .route("/v1/executions", get(executions::list))
        .route(
            "/v1/executions/{segment}",
            get(executions::one)
                .post(executions::verb)
                .fallback(async |segment: Segment| segment.other_method_of_execution()),
        )
        .route("/v1/executions/{segment}/logs", get(executions::logs))
        .route("/v1/internal/functions/{segment}", post(drain::once))
        .route(
            "/v1/internal/executions/{segment}",
            post(executions::complete),
        )
        .merge(observed());
    let functions = raw::FunctionsLayer::new(Arc::clone(&state));
    // Outside the guard: requests for functions are the functions' own.
    finished(routes, state).layer((CatchPanicLayer::custom(Error::from_panic), functions))
}

/// Health and metrics alone, for the management port.
pub fn management_router(state: Arc<State>) -> Router {
    finished(observed(), state)
}

fn observed() -> Router<Arc<State>> {
    Router::new()
        .route("/actuator/health", get(health::health))
        .route("/actuator/health/liveness", get(health::liveness))
        .route("/actuator/health/readiness", get(health::readiness))
        .route("/actuator/prometheus", get(health::prometheus))
}

/// Adds what holds for all routes. Layers wrap what stands before them: a panic is caught outside the guard.
fn finished(routes: Router<Arc<State>>, state: Arc<State>) -> Router {
    let hosts = Arc::clone(&state.hosts);
    routes
        .fallback(async |uri: Uri| Error::unknown_path(uri.path()))
        .method_not_allowed_fallback(async || Error::method_not_allowed(None))
        .layer((
            CatchPanicLayer::custom(Error::from_panic),
            GuardLayer::new(hosts),
            // Bodies are bounded where they are read.
            DefaultBodyLimit::disable(),
        ))
        .with_state(state)
}
