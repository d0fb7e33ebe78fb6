//! What a caller gets of a function's response: all of it but what concerns other connections, and, where
//! functions share an origin with the console and with each other, what would reach beyond the function.
//!
//! **Invariant:** no response of a function on the shared origin can run script with that origin's rights, or
//! set anything that outlives it for the rest of the origin.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::{
    ALT_SVC, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use axum::response::Response;

use super::flow::Flow;
use super::inbound::{remove, remove_hop_by_hop};
use super::target::Target;
use crate::api::invocations::id_header;
use crate::api::wire::X_EXECUTION_ID;
use crate::model::ExecutionId;

/// Documents of functions run in an origin of their own.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox allow-scripts allow-forms");

/// What a browser keeps for a whole origin or host, and not for a path.
static ORIGIN_WIDE: [HeaderName; 10] = [
    STRICT_TRANSPORT_SECURITY,
    ALT_SVC,
    HeaderName::from_static("accept-ch"),
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("origin-agent-cluster"),
    HeaderName::from_static("public-key-pins"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("set-login"),
];

/// Types that browsers show as they are, without running anything in them. All others may become documents.
const INERT: [&str; 5] = ["audio", "font", "image", "video", "text/plain"];

/// The response as its caller gets it, who speaks this version of HTTP.
pub(super) fn response(
    response: axum::http::Response<Flow>,
    target: &Target,
    id: ExecutionId,
    version: Version,
) -> Response {
    let (mut parts, mut body) = response.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    match parts.status {
        // There must be none: of these nothing has a length.
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => {
            parts.headers.remove(CONTENT_LENGTH);
        }
        // HTTP/2 states the length of none as it is, if the head is the end.
        StatusCode::NOT_MODIFIED
            if version <= Version::HTTP_11 && parts.headers.contains_key(CONTENT_LENGTH) =>
        {
            body = body.with_length_of_none();
        }
        _ => {}
    }
    finish(&mut parts.headers, target, id);
    Response::from_parts(parts, Body::new(body))
}

/// What every response of a function gets, whoever wrote it.
pub(super) fn finish(headers: &mut HeaderMap, target: &Target, id: ExecutionId) {
    if let Some(prefix) = &target.prefix {
        contain(headers, prefix);
    }
    if let Some(id) = id_header(id) {
        headers.insert(X_EXECUTION_ID, id);
    }
}

/// Keeps a response from reaching beyond its prefix on the origin that it shares with others.
fn contain(headers: &mut HeaderMap, prefix: &str) {
    remove(headers, &ORIGIN_WIDE);
    if headers.contains_key(SET_COOKIE) {
        let cookies: Vec<_> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|cookie| confined(cookie, prefix))
            .collect();
        headers.remove(SET_COOKIE);
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
    if may_be_document(headers) {
        // Beside a policy of the function's own, and not instead of it: browsers obey all of them.
        headers.append(CONTENT_SECURITY_POLICY, SANDBOX);
    }
}

/// Whether a browser may make a document of this, in which scripts run: HTML, XML of any kind (SVG too, which
/// is an image only inside other documents), and what browsers guess about.
fn may_be_document(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(stated), None) = (types.next(), types.next()) else {
        return true;
    };
    let Ok(stated) = stated.to_str() else {
        return true;
    };
    let essence = stated.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    let (kind, subtype) = essence.split_once('/').unwrap_or_default();
    let is_xml = subtype == "xml" || subtype.ends_with("+xml");
    let is_inert = INERT.contains(&kind) || INERT.contains(&&*essence);
    let is_data = matches!(
        essence.as_str(),
        "application/json"
            | "application/octet-stream"
            | "text/css"
            | "text/csv"
            | "text/event-stream"
    );
    is_xml || !(is_inert || is_data)
}

/// A cookie that is sent to this function only: not to a domain, and to no path above the prefix. None, if it
/// cannot be read.
fn confined(cookie: &HeaderValue, prefix: &str) -> Option<HeaderValue> {
    let text = cookie.to_str().ok()?;
    let mut parts = text.split(';');
    let mut confined = parts.next()?.trim().to_owned();
    let mut path = "/";
    for attribute in parts {
        let attribute = attribute.trim();
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        if name.trim().eq_ignore_ascii_case("path") {
            path = value.trim();
        } else if !name.trim().eq_ignore_ascii_case("domain") {
            let _ = write!(confined, "; {attribute}");
        }
    }
    let is_below = |path: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let below = match path {
        path if is_below(path) => path.to_owned(),
        path if path.starts_with('/') => format!("{prefix}{}", path.trim_end_matches('/')),
        _ => prefix.to_owned(),
    };
    let _ = write!(confined, "; Path={below}");
    HeaderValue::try_from(confined).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_stay_with_the_function() {
        let of = |cookie: &str| {
            let cookie = HeaderValue::try_from(cookie).unwrap();
            let confined = confined(&cookie, "/fn/shop").unwrap();
            confined.to_str().unwrap().to_owned()
        };
        assert_eq!(of("a=b"), "a=b; Path=/fn/shop");
        assert_eq!(
            of("a=b; Path=/; Domain=example.org; HttpOnly"),
            "a=b; HttpOnly; Path=/fn/shop"
        );
        assert_eq!(
            of("a=b;path = /cart;Secure"),
            "a=b; Secure; Path=/fn/shop/cart"
        );
        assert_eq!(of("a=b; Path=/fn/shop/x"), "a=b; Path=/fn/shop/x");
        assert_eq!(
            of("a=b; Path=/fn/shopping"),
            "a=b; Path=/fn/shop/fn/shopping"
        );
        assert_eq!(of("a=b; Path=/console; Path=/"), "a=b; Path=/fn/shop");
        assert_eq!(of("a=b; Path=elsewhere"), "a=b; Path=/fn/shop");
    }

    #[test]
    fn what_may_become_a_document_is_sandboxed() {
        let of = |types: &[&str]| {
            let mut headers = HeaderMap::new();
            for stated in types {
                headers.append(CONTENT_TYPE, HeaderValue::try_from(*stated).unwrap());
            }
            may_be_document(&headers)
        };
        for document in [
            &["text/html"][..],
            &["Text/HTML; charset=utf-8"],
            &["application/xhtml+xml"],
            &["image/svg+xml"],
            &["application/xml"],
            &["text/xml"],
            &["multipart/x-mixed-replace; boundary=x"],
            &["application/pdf"],
            &["unknown/unknown"],
            &["*/*"],
            &["html"],
            &[""],
            &["text/plain", "text/html"],
            &[],
        ] {
            assert!(of(document), "{document:?}");
        }
        for data in [
            "application/json",
            "text/plain; charset=utf-8",
            "image/png",
            "video/mp4",
            "font/woff2",
            "text/css",
            "application/octet-stream",
        ] {
            assert!(!of(&[data]), "{data}");
        }
    }
}
