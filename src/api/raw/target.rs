//! Whose a request is: by its host name, or by its path.
//!
//! **Invariant:** decided from the target as it was sent: nothing is decoded but the function's name.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use percent_encoding::percent_decode_str;

use crate::api::State;
use crate::api::error::Error;
use crate::api::guard::Hosts;
use crate::registry::Function;

/// Where functions are found that have no host name of their own.
const FUNCTIONS: &str = "/fn/";

/// A function and what of the request's path is the function's.
#[derive(Debug)]
pub(super) struct Target {
    /// As it stands.
    pub(super) function: Arc<Function>,
    /// What was taken off the path, without a slash at its end; none under a host name of the function's own.
    pub(super) prefix: Option<String>,
    /// Path and query as the function sees them; begins with a slash.
    pub(super) path: String,
}

impl Target {
    /// The function that a request is for; none if it is for the API.
    pub(super) fn of(state: &State, request: &Request) -> Option<Result<Self, Error>> {
        if state.registry.owns_hosts()
            && let Some(function) = owner(state, request)
        {
            return Some(whole(function, request));
        }
        let rest = request.uri().path().strip_prefix(FUNCTIONS)?;
        Some(below(state, rest, request.uri().query()))
    }
}

/// The function that owns the host name which this request is for. A name of this server's own is never a
/// function's.
fn owner(state: &State, request: &Request) -> Option<Arc<Function>> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => host(request.headers())?,
    };
    if state.hosts.answers(authority) {
        return None;
    }
    state.registry.get_by_host(&Hosts::name_in(authority)?)
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

fn whole(function: Arc<Function>, request: &Request) -> Result<Target, Error> {
    let path = request.uri().path();
    if !path.starts_with('/') {
        return Err(Error::bad_request(
            "the target of a request for a function is a path",
        ));
    }
    Ok(Target {
        function,
        prefix: None,
        path: with_query(path, request.uri().query()),
    })
}

/// `rest` is what follows `/fn/`.
fn below(state: &State, rest: &str, query: Option<&str>) -> Result<Target, Error> {
    let (segment, path) = match rest.find('/') {
        Some(end) => rest.split_at(end),
        None => (rest, "/"),
    };
    let name = decoded(segment)
        .ok_or_else(|| Error::bad_request("the path is not UTF-8 once it is percent-decoded"))?;
    let known = name.parse().ok();
    let function = known.and_then(|name| state.registry.get(&name));
    Ok(Target {
        function: function.ok_or_else(|| Error::unknown_function(&name))?,
        prefix: Some(format!("{FUNCTIONS}{segment}")),
        path: with_query(path, query),
    })
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// A segment without its percent signs; none if that is no text.
fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(segment).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_decoded_or_left_as_it_is() {
        assert_eq!(decoded("a-b").as_deref(), Some("a-b"));
        assert_eq!(decoded("%65cho").as_deref(), Some("echo"));
        assert_eq!(decoded("100%").as_deref(), Some("100%"));
        assert_eq!(decoded("%zz%2").as_deref(), Some("%zz%2"));
        assert_eq!(decoded("%+f").as_deref(), Some("%+f"));
        assert_eq!(decoded("%ff"), None);
    }
}
