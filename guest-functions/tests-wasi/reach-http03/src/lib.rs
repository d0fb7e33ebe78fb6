//! Calls out with `wasi:http` 0.3.

use wasip3::http::client;
use wasip3::http::types::{Fields, Request, Scheme};
use wasip3::wit_future;

/// The status of what `http://authority/path` answers to a request with this token, or why it does not.
pub async fn call(url: &str, token: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (ending, ended) = wit_future::new(|| Ok(None));
    drop(ending);
    let authorization = (
        "authorization".to_owned(),
        format!("Bearer {token}").into_bytes(),
    );
    let Ok(headers) = Fields::from_list(&[authorization]) else {
        return format!("no token: {token}\n");
    };
    let (request, _sent) = Request::new(headers, None, ended, None);
    let is_aimed = request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request
            .set_path_with_query(Some(&format!("/{path}")))
            .is_ok();
    if !is_aimed {
        return format!("no URL: {url}\n");
    }
    match client::send(request).await {
        Ok(response) => format!("status {}\n", response.get_status_code()),
        Err(code) => format!("{code:?}\n"),
    }
}
