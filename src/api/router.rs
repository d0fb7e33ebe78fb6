//! Every route, in one list.
//!
//! A path's last part may be `{name}:{verb}`, which the router cannot tell apart: there is one route per
//! method, and [`super::segment`] splits and knows the methods of each path.
//!
//! Calls take the [short way](super::shortcut) past all of them, where nothing about them is out of the ordinary.
//!
//! What holds for all requests stands around the routes: as a part of each of them it would be copied and boxed anew for
//! every request.
//!
//! **Invariant:** a request that no route takes is answered in the error shape too, and so is one whose
//! handler panics.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{BoxError, Router};
use bytes::Bytes;
use tower::{Layer as _, Service, ServiceExt};

use super::caught::Caught;
use super::error::Error;
use super::guard::{self, Budget, Framed, GuardLayer, Hosts};
use super::segment::Segment;
use super::shortcut::Shortcut;
use super::told::ToldLayer;
use super::{
    State, admin, drain, executions, export, functions, health, invocations, raw, secrets,
};
use crate::observe::Metrics;

/// What answers are counted in, where they are.
type Answers = Option<Arc<Budget>>;

/// The API.
pub fn router<B>(
    state: Arc<State>,
) -> impl Service<
    axum::http::Request<B>,
    Response = Response,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
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
    let hosts = Arc::clone(&state.hosts);
    let routes = Shortcut::new(Arc::clone(&state), finished(routes, state));
    // Outside the guard: requests for functions are the functions' own.
    told(functions.layer(guarded(routes, hosts, answers)), metrics)
}

/// Health and metrics alone, for the management port. Its answers are not counted, so that clients who take none of
/// theirs keep nobody from seeing that.
pub fn management_router<B>(
    state: Arc<State>,
) -> impl Service<
    axum::http::Request<B>,
    Response = Response,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let metrics = state.metrics.clone();
    let hosts = Arc::clone(&state.hosts);
    told(guarded(finished(observed(), state), hosts, None), metrics)
}

fn observed() -> Router<Arc<State>> {
    Router::new()
        .route("/actuator/health", get(health::health))
        .route("/actuator/health/liveness", get(health::liveness))
        .route("/actuator/health/readiness", get(health::readiness))
        .route("/actuator/prometheus", get(health::prometheus))
        // Where scrapers look that were told nothing else.
        .route("/metrics", get(health::prometheus))
}

/// The routes with their state, and with an answer for what none of them takes.
fn finished(routes: Router<Arc<State>>, state: Arc<State>) -> Router {
    routes
        .with_state(state)
        .fallback(async |uri: Uri| Error::unknown_path(uri.path()))
        .method_not_allowed_fallback(async || Error::method_not_allowed(None))
}

/// What holds for all routes, around them. An answer that there is no room for becomes an error here, inside of what
/// tells errors.
fn guarded(routes: impl Routes, hosts: Arc<Hosts>, answers: Answers) -> impl Routes {
    let routes = GuardLayer::new(hosts).layer(routes);
    ServiceExt::<Request>::map_response(routes, move |answer| match &answers {
        Some(answers) => guard::hold(answers, answer),
        None => answer,
    })
}

/// What holds for all requests. A panic is caught outside everything that may have one.
fn told<B>(
    routes: impl Routes,
    metrics: Metrics,
) -> impl Service<
    axum::http::Request<B>,
    Response = Response,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let told = ToldLayer(metrics).layer(Caught(Framed(routes)));
    told.map_request(|request: axum::http::Request<B>| request.map(Body::new))
}

/// Something that answers every request.
trait Routes:
    Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Routes for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

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
