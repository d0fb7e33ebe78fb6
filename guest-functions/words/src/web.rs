//! The word count over HTTP: POST the JSON, or the text itself as `text/plain`.
//!
//! **Invariant:** what cannot be counted is the caller's mistake and answered 4xx, with the reason as JSON.

use pelton_guest_http::{Request, Response};
use serde_json::Value;

/// Answers one request.
pub fn answer(request: &Request) -> Response {
    if request.method != "POST" {
        return Response::wrong_method("POST");
    }
    let input = match read(request) {
        Ok(input) => input,
        Err(refusal) => return refusal,
    };
    match crate::count(&input) {
        Ok(stats) => Response::json(200, &stats),
        Err(missing) => Response::refusal(422, "INVALID_INPUT", missing),
    }
}

fn read(request: &Request) -> Result<Value, Response> {
    let refused = |status, message: String| Response::refusal(status, "INVALID_INPUT", &message);
    match request.media_type().as_str() {
        "" | "application/json" => serde_json::from_slice(&request.body)
            .map_err(|error| refused(400, format!("the body is not JSON: {error}"))),
        "text/plain" => match std::str::from_utf8(&request.body) {
            Ok(text) => Ok(text.into()),
            Err(error) => Err(refused(400, format!("the text is not UTF-8: {error}"))),
        },
        other => Err(refused(
            415,
            format!("{other} cannot be counted: send application/json or text/plain"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use pelton_guest_http::testing::{asked, json, posted};

    use super::*;

    #[test]
    fn a_text_counts_like_the_json_that_holds_it() {
        let mut plain = asked(
            "POST",
            "/",
            &[("content-type", "Text/Plain; charset=utf-8")],
        );
        plain.body = b"one two two".to_vec();
        let counted = answer(&plain);
        assert_eq!(counted.status, 200);
        assert_eq!(counted.header("content-type"), Some("application/json"));
        assert_eq!(json(&counted)["wordCount"], 3);
        assert_eq!(answer(&posted(&"one two two".into())).body, counted.body);
    }

    #[test]
    fn every_mistake_has_its_status() {
        let send = |method: &str, content_type: &str, body: &[u8]| {
            let mut request = asked(method, "/", &[("content-type", content_type)]);
            request.body = body.to_vec();
            answer(&request)
        };
        assert_eq!(send("GET", "application/json", b"").status, 405);
        assert_eq!(send("GET", "", b"").header("allow"), Some("POST"));
        assert_eq!(send("POST", "application/json", b"{").status, 400);
        assert_eq!(send("POST", "text/plain", b"\xff").status, 400);
        assert_eq!(send("POST", "image/png", b"a b").status, 415);
        let empty = send("POST", "application/json", b"{}");
        assert_eq!(empty.status, 422);
        assert_eq!(json(&empty)["error"], "INVALID_INPUT");
    }
}
