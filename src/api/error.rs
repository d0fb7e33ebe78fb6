//! Everything that can go wrong, as HTTP: the only file that maps errors to statuses.
//!
//! An error has an outside text, which says what the client can do, and may have an inside text, which is
//! logged (in [`super::told`]). Codes are listed in `docs/api.md`.
//!
//! **Invariant:** the inside text never leaves the process; every answer made here has the one error shape.

mod causes;
mod direct;

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use super::told::Told;
use crate::model::FunctionName;
use crate::scheduler::{CallError, Crowded};

const X_QUEUE_REJECT_REASON: HeaderName = HeaderName::from_static("x-queue-reject-reason");

/// How soon a client may come back to a server that is busy or restarting, in s.
const BUSY_RETRY_AFTER_S: u64 = 1;

/// The longest piece of a request that a message repeats, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// Complaints about one request that are shown; the rest is counted.
pub(super) const COMPLAINTS_MAX: usize = 100;

/// A request that was not answered as asked.
#[derive(Debug)]
pub(super) struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    /// Owned where it says how an execution ended, which is counted and logged there.
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    details: Vec<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Further members of the body, which nanofaas's clients read.
    more: Map<String, Value>,
    inside: Option<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    details: &'a [String],
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

/// Text of a request as a message may repeat it: bounded, and in quotes.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl Error {
    fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Parts {
            status,
            code: code.into(),
            message: message.into(),
            details: Vec::new(),
            headers: Vec::new(),
            more: Map::new(),
            inside: None,
        }))
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    fn with_details(mut self, details: Vec<String>) -> Self {
        self.0.details = details;
        self
    }

    fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(member.to_owned(), value.into());
        self
    }

    fn with_inside(mut self, inside: impl Display) -> Self {
        self.0.inside = Some(inside.to_string());
        self
    }

    fn retry_after(self, seconds: u64) -> Self {
        self.with_header(RETRY_AFTER, seconds.into())
    }

    /// 400: the request cannot be read.
    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    /// 400: nobody knows where the request's body ends, so nothing else is read from its connection.
    pub(super) fn transfer_coding() -> Self {
        Self::bad_request(
            "the request's Transfer-Encoding is not chunked alone: other codings are not undone here",
        )
        .with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// The sentence for the outside, to be one of several.
    pub(super) fn into_message(self) -> String {
        self.0.message.into_owned()
    }

    /// 400: it can be read, and these are all complaints about what it says.
    ///
    /// The first [`COMPLAINTS_MAX`] are shown and the rest are counted: an answer must not be larger than the
    /// request that it is about.
    pub(super) fn invalid(mut complaints: Vec<String>) -> Self {
        let message = match complaints.as_slice() {
            [one] => one.clone(),
            many => format!(
                "there are {} mistakes in this request: see details",
                many.len()
            ),
        };
        if let Some(more) = complaints.len().checked_sub(COMPLAINTS_MAX)
            && more > 0
        {
            complaints.truncate(COMPLAINTS_MAX);
            complaints.push(format!("and {more} more"));
        }
        Self::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message).with_details(complaints)
    }

    /// 400: one complaint about one field.
    pub(super) fn invalid_field(field: &str, complaint: impl Display) -> Self {
        Self::invalid(vec![format!("{field}: {complaint}")])
    }

    /// 400: a change of the runtime config cannot be read; `first` is the first member that cannot.
    pub(super) fn unreadable_config(
        complaints: Vec<String>,
        first: Option<(String, Value)>,
    ) -> Self {
        let error = Self::invalid(complaints);
        match first {
            Some((field, value)) => error.with("field", field).with("value", value),
            None => error,
        }
    }

    /// 422: it can be read, and its values cannot be meant.
    pub(super) fn invalid_config(complaints: Vec<String>) -> Self {
        let message = format!("the runtime config cannot be so: {}", complaints.join("; "));
        Self::unprocessable("INVALID_CONFIG", message)
            .with("errors", complaints.clone())
            .with_details(complaints)
    }

    /// 404: the runtime config is turned off.
    pub(super) fn runtime_config_off() -> Self {
        let message = "the runtime config is turned off here: it is there where the server listens on loopback \
                       alone, or was started with --runtime-config on";
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 403: the request was made under a name that is not this server's.
    pub(super) fn host_refused(host: &str) -> Self {
        let message = format!(
            "requests for the host {} are not answered: use a loopback address or the one the \
             server listens on, or start it with --allow-host and this name",
            quoted(host)
        );
        Self::new(StatusCode::FORBIDDEN, "HOST_REFUSED", message)
    }

    /// 403: the request was made by a web page from elsewhere.
    pub(super) fn origin_refused(origin: &str) -> Self {
        let message = format!(
            "requests of web pages from {} are not answered: start the server with --allow-host and \
             the page's host if they should be",
            quoted(origin)
        );
        Self::new(StatusCode::FORBIDDEN, "ORIGIN_REFUSED", message)
    }

    /// 404: no route has this path.
    pub(super) fn unknown_path(path: &str) -> Self {
        let message = format!(
            "there is nothing at {}: docs/api.md lists the paths",
            quoted(path)
        );
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 404: the path has a verb that does not exist, or none.
    pub(super) fn unknown_verb(segment: &str, verbs: &str) -> Self {
        let message = format!(
            "{} does not end in a verb that is known here: after the last colon there may be {verbs}",
            quoted(segment)
        );
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 404: the path names a function that does not exist.
    pub(super) fn unknown_function(name: &str) -> Self {
        let message = format!(
            "there is no function named {}: GET /v1/functions lists those that exist",
            quoted(name)
        );
        Self::new(StatusCode::NOT_FOUND, "FUNCTION_NOT_FOUND", message)
    }

    /// 404: the path names an execution that does not exist, or no longer.
    pub(super) fn unknown_execution(id: &str) -> Self {
        let message = format!(
            "there is no execution {}: it never was, or it is older than the retention",
            quoted(id)
        );
        Self::new(StatusCode::NOT_FOUND, "EXECUTION_NOT_FOUND", message)
    }

    /// 404: the path names a secret that does not exist.
    pub(super) fn unknown_secret(name: &str) -> Self {
        let message = format!(
            "there is no secret named {}: GET /v1/secrets lists those that exist",
            quoted(name)
        );
        Self::new(StatusCode::NOT_FOUND, "SECRET_NOT_FOUND", message)
    }

    fn execution_forgotten(message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "EXECUTION_NOT_FOUND", message)
    }

    /// 405: the path exists, for other methods. `allow` is nothing where the router knows them itself.
    pub(super) fn method_not_allowed(allow: Option<&'static str>) -> Self {
        let message = "this path is not for this method: the header Allow names those it is for";
        let error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            message,
        );
        match allow {
            Some(methods) => error.with_header(ALLOW, HeaderValue::from_static(methods)),
            None => error,
        }
    }

    /// 408: the body did not arrive in time.
    pub(super) fn body_too_slow(seconds: u64) -> Self {
        let message = format!("the body did not arrive within {seconds} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message)
    }

    /// 413: more bytes than the limit, which is named.
    pub(super) fn too_large(what: &str, limit_bytes: usize) -> Self {
        let message = format!("{what} is larger than the limit of {limit_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
    }

    /// 415: the body is of another type than the route takes.
    pub(super) fn unsupported_type(expected: &str, found: Option<&str>) -> Self {
        let found = found.map_or_else(|| "none".to_owned(), quoted);
        let message = format!("the Content-Type must be {expected}, and is {found}");
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            message,
        )
    }

    /// 503: as many uploads are under way as the server has memory for.
    pub(super) fn uploads_busy() -> Self {
        let message = "too many uploads are under way: try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message).retry_after(BUSY_RETRY_AFTER_S)
    }

    /// 503: the bodies of requests under way take as much memory as the server has for them.
    pub(super) fn bodies_busy() -> Self {
        let message = "the requests under way take as much memory as the server has for them: try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message).retry_after(BUSY_RETRY_AFTER_S)
    }

    /// 503: as many exports are under way as the server makes at once.
    pub(super) fn exports_busy(exports_max: usize) -> Self {
        let message = format!(
            "{exports_max} exports are under way, as many as the server makes at once: try again when one has ended"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message).retry_after(BUSY_RETRY_AFTER_S)
    }

    /// 503: the answers that clients have not taken yet fill the memory that the server has for them.
    pub(super) fn answers_busy() -> Self {
        let message = "answers that their clients have not taken yet fill the memory that the server has for them: \
                       ask again in a moment; what became of a call is kept at /v1/executions/ and its X-Execution-Id";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message).retry_after(BUSY_RETRY_AFTER_S)
    }

    fn internal(inside: impl Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_ERROR",
            "something went wrong in the server, which is not the request's fault: its log has more",
        )
        .with_inside(inside)
    }

    fn rejected(call: &CallError, code: &'static str, reason: &'static str, after_s: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, call.to_string())
            .retry_after(after_s.max(1))
            .with_header(X_QUEUE_REJECT_REASON, HeaderValue::from_static(reason))
    }

    fn crowded(call: &CallError, crowded: &Crowded, after_s: u64) -> Self {
        match crowded {
            Crowded::Queue { .. } | Crowded::Callers { .. } => {
                Self::rejected(call, "QUEUE_FULL", "depth", after_s)
            }
            Crowded::Estimate { .. } => Self::rejected(call, "QUEUE_TOO_LONG", "est_wait", after_s),
            Crowded::Waited { execution, .. } => {
                Self::rejected(call, "QUEUE_TIMEOUT", "timeout", after_s).about(*execution)
            }
        }
    }

    fn stopping(error: &CallError) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "STOPPING", error.to_string()).retry_after(BUSY_RETRY_AFTER_S)
    }

    fn unprocessable(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// What a client gets whose handler panicked. What it said went to the log with its place.
    pub(super) fn from_panic(_: Box<dyn Any + Send>) -> Response {
        Self::internal("a handler panicked: the line before says where").into_response()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let parts = *self.0;
        let shown = Shown {
            error: &parts.code,
            message: &parts.message,
            details: &parts.details,
            more: &parts.more,
        };
        // Text and lists of text always serialize.
        let body = serde_json::to_vec(&shown).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(parts.headers);
        if let Cow::Borrowed(code) = parts.code {
            let inside = parts.inside.map(Arc::from);
            response.extensions_mut().insert(Told { code, inside });
        }
        response
    }
}

impl Error {
    fn unknown_version(message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "VERSION_NOT_FOUND", message)
    }

    fn code_gone(message: String) -> Self {
        Self::new(StatusCode::CONFLICT, "CODE_NOT_KEPT", message)
    }

    fn name_taken(message: String) -> Self {
        Self::new(StatusCode::CONFLICT, "NAME_TAKEN", message)
    }

    /// 400: only functions of nanofaas's container providers have replicas.
    pub(super) fn no_replicas(name: &FunctionName) -> Self {
        Self::bad_request(format!(
            "{name} has no replicas to set: only DEPLOYMENT functions of a container provider have, and \
             there is none here"
        ))
    }
}

impl Error {
    /// The error for somebody in this process, who may know what happened inside.
    pub(super) fn into_problem(self) -> super::local::Problem {
        let parts = *self.0;
        super::local::Problem {
            status: parts.status.as_u16(),
            code: parts.code,
            message: parts.inside.unwrap_or_else(|| parts.message.into_owned()),
            details: parts.details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::X_EXECUTION_ID;
    use crate::model::{ExecutionId, VersionNumber};
    use crate::registry;
    use crate::runtime::Refused;
    use crate::scheduler::Rated;
    use crate::scheduler::RuntimeConfigError;
    use crate::secrets;
    use crate::store;

    /// Every way to be told to come back.
    fn refused_calls() -> Vec<CallError> {
        let name = || -> FunctionName { "echo".parse().unwrap() };
        let id = ExecutionId::from_bytes([1; 16]);
        let limited = |rated| CallError::RateLimited {
            rated,
            per_second: 5,
            retry_after_s: 2,
        };
        let full = |crowded| CallError::QueueFull {
            crowded,
            retry_after_s: 3,
        };
        let queue = Crowded::Queue {
            function: name(),
            queue_size: 7,
        };
        let estimate = Crowded::Estimate {
            function: name(),
            estimated_ms: 2500,
            limit_ms: 2000,
        };
        let waited = Crowded::Waited {
            function: name(),
            limit_ms: 2000,
            execution: id,
        };
        vec![
            full(queue),
            full(Crowded::Callers { callers_max: 8 }),
            full(estimate),
            full(waited),
            limited(Rated::Function(name())),
            limited(Rated::Plane),
        ]
    }

    /// One of each, however it comes about.
    #[expect(clippy::too_many_lines, reason = "a row for each error")]
    fn all() -> Vec<Error> {
        use registry::Error as R;
        let name = || -> FunctionName { "echo".parse().unwrap() };
        let id = ExecutionId::from_bytes([1; 16]);
        let text = || "a text".to_owned();
        let imports = Refused::MissingImports {
            message: text(),
            imports: vec![text()],
        };
        let secret = || "api-key".parse().unwrap();
        let in_use = secrets::Error::InUse {
            name: secret(),
            functions: vec![name()],
        };
        let unknown_version = format!("echo has no version {}", VersionNumber(3));
        let mut all: Vec<Error> = vec![
            Error::bad_request("a text"),
            Error::transfer_coding(),
            Error::invalid_field("a", "b"),
            Error::unreadable_config(vec![text()], Some((text(), Value::Null))),
            Error::invalid_config(vec![text(), text()]),
            Error::runtime_config_off(),
            RuntimeConfigError::Conflict { current: 3 }.into(),
            Error::host_refused("h"),
            Error::origin_refused("o"),
            Error::unknown_path("/p"),
            Error::unknown_verb("a:b", "c"),
            Error::unknown_execution("x"),
            Error::unknown_secret("x"),
            Error::method_not_allowed(None),
            Error::body_too_slow(1),
            Error::too_large("it", 1),
            Error::unsupported_type("a", None),
            Error::uploads_busy(),
            Error::bodies_busy(),
            Error::exports_busy(8),
            Error::answers_busy(),
            Error::no_replicas(&name()),
            CallError::UnknownFunction(name()).into(),
            CallError::KeyReused(id).into(),
            CallError::Forgotten(id).into(),
            CallError::NotRedrivable(id).into(),
            CallError::FunctionReplaced(id, name()).into(),
            CallError::InputNotKept(id).into(),
            CallError::UnknownVersion(unknown_version).into(),
            CallError::CodeGone(text()).into(),
            CallError::Stopping.into(),
            CallError::StoppingFirst(id).into(),
            CallError::Store(store::Error::Closed).into(),
            R::UnknownFunction(name()).into(),
            R::NameTaken(name()).into(),
            R::UnknownVersion(text()).into(),
            R::CodeGone(text()).into(),
            R::Invalid(vec![text(), text()]).into(),
            R::UnknownImage(text()).into(),
            R::NoProvider(text()).into(),
            R::TooManyFunctions(text()).into(),
            R::TooManyVersions(text()).into(),
            R::HostTaken(text()).into(),
            R::Refused(Refused::NotWasm(text())).into(),
            R::NotGranted(text()).into(),
            R::Secrets(secrets::Error::NoKey).into(),
            secrets::Error::Missing(vec![secret()]).into(),
            secrets::Error::TooMany(5).into(),
            secrets::Error::Unknown(secret()).into(),
            in_use.into(),
            secrets::Error::Store(store::Error::Closed).into(),
            secrets::Error::Internal("the inside text".to_owned()).into(),
            Refused::Unsupported(text()).into(),
            imports.into(),
            Refused::TooExpensive(text()).into(),
            Refused::Busy(text()).into(),
            Refused::Failed("the inside text".to_owned()).into(),
            store::Error::Poisoned("the inside text".into()).into(),
            store::Error::NameTaken.into(),
            store::Error::NoSuchFunction.into(),
            store::Error::Failed("the inside text".into()).into(),
        ];
        all.extend(refused_calls().into_iter().map(Error::from));
        all
    }

    #[test]
    fn every_error_has_its_status_and_its_code() {
        let rows = all().into_iter().map(|error| {
            let parts = error.0;
            format!(
                "{} {}: {}",
                parts.status.as_u16(),
                parts.code,
                parts.message
            )
        });
        insta::assert_snapshot!(rows.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn an_error_about_an_execution_names_it_in_its_header() {
        let id = ExecutionId::from_bytes([1; 16]);
        for error in [
            CallError::KeyReused(id),
            CallError::Forgotten(id),
            CallError::NotRedrivable(id),
            CallError::FunctionReplaced(id, "echo".parse().unwrap()),
            CallError::InputNotKept(id),
            CallError::StoppingFirst(id),
        ] {
            let response = Error::from(error.clone()).into_response();
            assert_eq!(
                response.headers()[X_EXECUTION_ID],
                id.to_string(),
                "{error}"
            );
        }
    }

    #[test]
    fn every_code_is_in_the_reference() {
        let reference = include_str!("../../docs/api.md");
        for error in all() {
            let row = format!("| `{}` | {} |", error.0.code, error.0.status.as_u16());
            assert!(reference.contains(&row), "docs/api.md has no row {row}");
        }
    }

    #[tokio::test]
    async fn the_inside_text_stays_inside() {
        use http_body_util::BodyExt;
        for error in all() {
            let body = error.into_response().into_body().collect().await.unwrap();
            let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            assert!(!body.contains("inside"), "{body}");
        }
    }

    #[test]
    fn what_is_repeated_of_a_request_is_bounded() {
        assert_eq!(quoted("a\n"), "\"a\\n\"");
        assert_eq!(quoted(&"é".repeat(81)), format!("\"{}\"…", "é".repeat(80)));
    }
}
