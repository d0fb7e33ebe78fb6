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
use tower::util::MapResponseLayer;
use tower_http::catch_panic::CatchPanicLayer;

use super::error::Error;
use super::guard::{self, Budget, GuardLayer, Hosts};
use super::segment::Segment;
use super::told::ToldLayer;
use super::{
    State, admin, drain, executions, export, functions, health, invocations, raw, secrets,
};
use crate::observe::Metrics;

/// What answers are counted in, where they are.
type Answers = Option<Arc<Budget>>;

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
        .route("/v1/executions:export", get(export::export))
        // The colon as some clients write it: the path is compared before it is decoded.
        .route("/v1/executions%3Aexport", get(export::export))
        .route("/v1/executions%3aexport", get(export::export))
        .route(
            "/v1/executions/{segment}",
            get(executions::one)
                .post(executions::verb)
                .fallback(async |segment: Segment| segment.other_method_of_execution()),
        )
        .route("/v1/executions/{segment}/logs", get(executions::logs))
        .route("/v1/secrets", get(secrets::list))
        .route(
            "/v1/secrets/{segment}",
            put(secrets::set).delete(secrets::remove),
        )
        .route(
            "/v1/admin/runtime-config",
            get(admin::runtime_config).patch(admin::change_runtime_config),
        )
        .route(
            "/v1/admin/runtime-config/validate",
            post(admin::validate_runtime_config),
        )
        .route("/v1/internal/functions/{segment}", post(drain::once))
        .route(
            "/v1/internal/executions/{segment}",
            post(executions::complete),
        )
        .merge(observed());
    let metrics = state.metrics.clone();
    let functions = raw::FunctionsLayer::new(Arc::clone(&state));
    let answers = Some(Arc::clone(&state.answers));
    // Outside the guard: requests for functions are the functions' own.
    told(finished(routes, state, answers).layer(functions), metrics)
}

/// Health and metrics alone, for the management port. Its answers are not counted, so that clients who take none of
/// theirs keep nobody from seeing that.
pub fn management_router(state: Arc<State>) -> Router {
    let metrics = state.metrics.clone();
    told(finished(observed(), state, None), metrics)
}

fn observed() -> Router<Arc<State>> {
    Router::new()
        .route("/actuator/health", get(health::health))
        .route("/actuator/health/liveness", get(health::liveness))
        .route("/actuator/health/readiness", get(health::readiness))
        .route("/actuator/prometheus", get(health::prometheus))
}

/// Adds what holds for all routes.
fn finished(routes: Router<Arc<State>>, state: Arc<State>, answers: Answers) -> Router {
    let hosts = Arc::clone(&state.hosts);
    guarded(routes, hosts, answers).with_state(state)
}

/// An answer that there is no room for becomes an error here, inside of what tells errors.
fn guarded<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    hosts: Arc<Hosts>,
    answers: Answers,
) -> Router<S> {
    routes
        .fallback(async |uri: Uri| Error::unknown_path(uri.path()))
        .method_not_allowed_fallback(async || Error::method_not_allowed(None))
        .layer((
            MapResponseLayer::new(move |answer| match &answers {
                Some(answers) => guard::hold(answers, answer),
                None => answer,
            }),
            GuardLayer::new(hosts),
            // Bodies are bounded where they are read.
            DefaultBodyLimit::disable(),
        ))
}

/// Adds what holds for all requests. A panic is caught outside everything that may have one.
fn told(router: Router, metrics: Metrics) -> Router {
    router.layer((
        ToldLayer(metrics),
        CatchPanicLayer::custom(Error::from_panic),
    ))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_in_the_one_shape_and_tells_nothing() {
        let panics = get(async || -> &'static str { panic!("the secret cause") });
        let routes: Router = Router::new().route("/v1/panics", panics);
        let hosts = Arc::new(Hosts::new(&[], &[]));
        let router = told(guarded(routes, hosts, None), Metrics::default());
        let request = Request::get("/v1/panics").header("host", "localhost");
        let request = request.body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"], "INTERNAL_ERROR");
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}
