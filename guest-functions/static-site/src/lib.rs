//! A small static site: its pages, style and picture are inside the wasm file.
//!
//! A service of `wasi:http` 0.2. It answers `GET` and `HEAD`, tells a browser that has a page already that it is
//! still the same (`ETag`, `If-None-Match`), and shows a page of its own for addresses that it does not have. Its links
//! are relative to where it is mounted: Pelton says so in `X-Forwarded-Prefix` (`/fn/static-site`), and a function with
//! a host name of its own is mounted at the root.

mod assets;

use std::borrow::Cow;

use assets::Asset;
use pelton_guest_http::{Request, Response, serve};

serve!(answer);

/// The place in a page where its prefix goes.
const BASE: &str = "{base}";

fn answer(request: &Request) -> Response {
    let is_head = request.method == "HEAD";
    if !is_head && request.method != "GET" {
        return Response::wrong_method("GET, HEAD");
    }
    let prefix = prefix(request);
    let (status, asset) = match assets::find(request.path()) {
        Some(asset) => (200, asset),
        None => (404, &assets::NOT_FOUND),
    };
    let contents = contents(asset, prefix);
    let tag = format!("\"{:016x}\"", fnv1a(&contents));
    let known = request.header("if-none-match");
    if status == 200 && known.is_some_and(|known| names(known, &tag)) {
        return headed(Response::empty(304), asset, tag);
    }
    let mut response = headed(Response::empty(status), asset, tag);
    response.body = contents;
    response
}

fn headed(response: Response, asset: &Asset, tag: String) -> Response {
    response
        .with("content-type", asset.content_type)
        .with("cache-control", "no-cache")
        .with("etag", tag)
        .with("x-content-type-options", "nosniff")
}

/// Where the site is mounted. It is put into pages, so it is believed only if it is a plain path.
fn prefix(request: &Request) -> &str {
    let stated = request.header("x-forwarded-prefix").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let is_path = stated.starts_with('/') && !stated.starts_with("//");
    if is_path && stated.bytes().all(plain) {
        stated.trim_end_matches('/')
    } else {
        ""
    }
}

fn contents(asset: &'static Asset, prefix: &str) -> Cow<'static, [u8]> {
    match std::str::from_utf8(asset.bytes) {
        Ok(page) if asset.content_type.starts_with("text/html") => {
            page.replace(BASE, prefix).into_bytes().into()
        }
        Ok(_) | Err(_) => Cow::Borrowed(asset.bytes),
    }
}

/// Whether an `If-None-Match` names this tag, weakly or not, or any.
fn names(known: &str, tag: &str) -> bool {
    known.split(',').map(str::trim).any(|known| {
        let strong = known.strip_prefix("W/").unwrap_or(known);
        known == "*" || strong == tag
    })
}

/// Tells one content from another; nobody has to be kept from forging it.
fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use pelton_guest_http::testing::asked;
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_cases_come_out() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../cases.json")).unwrap();
        for case in cases {
            let (input, output) = (&case["input"], &case["output"]);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let headers = input["headers"].as_object().into_iter().flatten();
            let headers: Vec<(String, String)> = headers
                .map(|(name, value)| (name.clone(), text(value)))
                .collect();
            let headers: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect();
            let answer = answer(&asked(
                &text(&input["method"]),
                &text(&input["path"]),
                &headers,
            ));
            assert_eq!(answer.status, output["status"], "{case}");
            if let Some(content_type) = output["contentType"].as_str() {
                assert_eq!(answer.header("content-type"), Some(content_type), "{case}");
            }
            if let Some(part) = output["contains"].as_str() {
                let body = String::from_utf8_lossy(&answer.body);
                assert!(body.contains(part), "{case}: {body}");
            }
        }
    }

    #[test]
    fn a_page_that_is_known_is_not_sent_again() {
        let first = answer(&asked("GET", "/", &[]));
        let tag = first.header("etag").unwrap();
        for known in [
            tag.to_owned(),
            format!("\"other\", W/{tag}"),
            "*".to_owned(),
        ] {
            let again = answer(&asked("GET", "/", &[("if-none-match", &known)]));
            assert_eq!(again.status, 304, "{known}");
            assert_eq!(again.header("etag"), Some(tag));
            assert!(again.body.is_empty());
        }
        let changed = answer(&asked("GET", "/", &[("if-none-match", "\"other\"")]));
        assert_eq!(changed.status, 200);
        // The same page elsewhere is another one: its links differ.
        let elsewhere = answer(&asked("GET", "/", &[("x-forwarded-prefix", "/fn/site")]));
        assert_ne!(elsewhere.header("etag"), Some(tag));
    }

    #[test]
    fn a_prefix_that_is_no_plain_path_never_gets_into_a_page() {
        for forged in ["//evil.example", "/\"><script>", "evil", "/a b"] {
            let page = answer(&asked("GET", "/", &[("x-forwarded-prefix", forged)]));
            let page = String::from_utf8_lossy(&page.body).into_owned();
            assert!(page.contains("<base href=\"/\">"), "{forged}: {page}");
        }
    }
}
