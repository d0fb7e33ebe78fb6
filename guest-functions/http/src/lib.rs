//! Write a web function as one Rust function from a request to an answer: `wasi:http` 0.2, bodies in memory.
//!
//! ```
//! use pelton_guest_http::{Request, Response, serve};
//!
//! serve!(answer);
//!
//! fn answer(request: &Request) -> Response {
//!     match request.path() {
//!         "/" => Response::text(200, "hello"),
//!         _ => Response::text(404, "there is nothing here"),
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! The crate of such a function is a `cdylib`, built with `cargo build --release --target wasm32-wasip2`; on any
//! other target `answer` is an ordinary function that unit tests call.
//!
//! This is as much of HTTP as the functions beside it need. Who wants streams, futures and a client of comfort
//! writes against the crate `wstd`; Pelton runs both alike.
//!
//! **Invariant:** what a function sees does not depend on where it runs; bindings exist in `host`, and in wasm
//! builds alone.

use std::borrow::Cow;

use serde::Serialize;

#[cfg(target_family = "wasm")]
mod host;
#[cfg(target_family = "wasm")]
pub mod outgoing;
pub mod testing;
mod url;

pub use url::Url;

/// Bytes of a request's body that are read; more are answered 413.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// What a caller sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` and so on, as it was sent.
    pub method: String,
    /// Path and query: what stands after the authority; never empty.
    pub target: String,
    /// Names in lower case and values, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// The target without its query; `/` at least.
    pub fn path(&self) -> &str {
        let path = self.target.split('?').next().unwrap_or_default();
        if path.is_empty() { "/" } else { path }
    }

    /// The first header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.trim())
    }

    /// The media type of the body without its parameters, in lower case; empty if none is stated.
    pub fn media_type(&self) -> String {
        let stated = self.header("content-type").unwrap_or_default();
        let essence = stated.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    }
}

/// What a function answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status, such as 200.
    pub status: u16,
    /// Names in lower case and values.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body; the host leaves it out where the method is `HEAD`.
    pub body: Cow<'static, [u8]>,
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Cow::Borrowed(&[]),
        }
    }

    /// Plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let mut response = Self::empty(status).with("content-type", "text/plain; charset=utf-8");
        response.body = text.into().into_bytes().into();
        response
    }

    /// A value as JSON; 500 if it has no JSON form.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => {
                let mut response = Self::empty(status).with("content-type", "application/json");
                response.body = json.into();
                response
            }
            Err(error) => Self::text(500, format!("the answer has no JSON form: {error}")),
        }
    }

    /// What is wrong with a request: `{"error": CODE, "message": …}`, which Pelton shows as the execution's error.
    pub fn refusal(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "error": code, "message": message });
        Self::json(status, &body)
    }

    /// The refusal of every method but those that are named.
    pub fn wrong_method(allowed: &'static str) -> Self {
        let message = format!("this takes {allowed} only");
        Self::refusal(405, "METHOD_NOT_ALLOWED", &message).with("allow", allowed)
    }

    /// The same with one header more.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| *known == name);
        found.next().map(|(_, value)| &**value)
    }
}

/// Makes a function from [`&Request`](Request) to [`Response`] what the component answers with.
#[macro_export]
macro_rules! serve {
    ($answer:path) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Function;
            impl $crate::__private::Guest for Function {
                fn handle(
                    request: $crate::__private::IncomingRequest,
                    out: $crate::__private::ResponseOutparam,
                ) {
                    $crate::__private::serve($answer, request, out);
                }
            }
            $crate::__private::export!(Function);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&$crate::Request) -> $crate::Response = $answer;
    };
}

/// What the code made by [`serve!`] needs; not for authors.
#[doc(hidden)]
#[cfg(target_family = "wasm")]
pub mod __private {
    pub use crate::host::serve;
    pub use wasip2::exports::http::incoming_handler::Guest;
    pub use wasip2::http::proxy::export;
    pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, content_type: &str) -> Request {
        Request {
            method: "POST".to_owned(),
            target: target.to_owned(),
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: Vec::new(),
        }
    }

    #[test]
    fn a_request_is_taken_apart() {
        let asked = request("/a/b?c=/d", "Application/JSON; charset=utf-8");
        assert_eq!(asked.path(), "/a/b");
        assert_eq!(asked.media_type(), "application/json");
        assert_eq!(request("", "").path(), "/");
        assert_eq!(Request::default().media_type(), "");
    }

    #[test]
    fn a_refusal_says_what_is_wrong_as_json() {
        let refused = Response::wrong_method("GET, HEAD");
        assert_eq!(refused.status, 405);
        assert_eq!(refused.header("allow"), Some("GET, HEAD"));
        let body: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!(body["error"], "METHOD_NOT_ALLOWED");
    }
}
