//! Asks other servers over `wasi:http/outgoing-handler` 0.2, several at once.
//!
//! **Invariant:** at most as many requests as the caller says are under way; each has limits in time.

use wasip2::http::outgoing_handler::{
    self, FutureIncomingResponse, OutgoingRequest, RequestOptions,
};
use wasip2::http::types::{ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, Scheme};
use wasip2::io::poll::{Pollable, poll};

use crate::Url;

/// Time for a connection, in ns.
const CONNECT_TIMEOUT_NS: u64 = 5_000_000_000;
/// Time for the first byte of the answer, in ns.
const FIRST_BYTE_TIMEOUT_NS: u64 = 10_000_000_000;

/// The head of an answer; its body is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Where a redirect leads.
    pub location: Option<String>,
}

struct Flight {
    index: usize,
    answer: FutureIncomingResponse,
    ready: Pollable,
}

/// Asks every address with `method`, at most `at_once` at a time; the answers stand in the order of the addresses.
pub fn heads(method: &str, urls: &[Url], at_once: usize) -> Vec<Result<Head, String>> {
    heads_with(method, urls, at_once, "")
}

/// The same, with a token for those who are asked, unless it is empty.
pub fn heads_with(
    method: &str,
    urls: &[Url],
    at_once: usize,
    token: &str,
) -> Vec<Result<Head, String>> {
    let never = || Err("was not asked".to_owned());
    let mut answers: Vec<_> = urls.iter().map(|_| never()).collect();
    let mut waiting = urls.iter().enumerate();
    let mut flying: Vec<Flight> = Vec::new();
    loop {
        while flying.len() < at_once.max(1) {
            let Some((index, url)) = waiting.next() else {
                break;
            };
            match start(method, url, token) {
                Ok(answer) => flying.push(Flight {
                    index,
                    ready: answer.subscribe(),
                    answer,
                }),
                Err(error) => answers[index] = Err(error),
            }
        }
        if flying.is_empty() {
            return answers;
        }
        let pollables: Vec<&Pollable> = flying.iter().map(|flight| &flight.ready).collect();
        let mut ready = poll(&pollables);
        // From the back, so that the places of those before stay what they are.
        ready.sort_unstable();
        for place in ready.into_iter().rev() {
            let Ok(place) = usize::try_from(place) else {
                continue;
            };
            let Flight {
                index,
                answer,
                ready,
            } = flying.swap_remove(place);
            // It belongs to the answer and has to go first.
            drop(ready);
            answers[index] = head(&answer);
        }
    }
}

fn start(method: &str, url: &Url, token: &str) -> Result<FutureIncomingResponse, String> {
    let mut headers = vec![("user-agent".to_owned(), b"pelton-guest".to_vec())];
    if !token.is_empty() {
        let credentials = format!("Bearer {token}").into_bytes();
        headers.push(("authorization".to_owned(), credentials));
    }
    let headers = Fields::from_list(&headers).map_err(|error| error.to_string())?;
    let request = OutgoingRequest::new(headers);
    let scheme = if url.is_https {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let refused = |what: &'static str| move |()| format!("the {what} cannot be sent");
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        other => Method::Other(other.to_owned()),
    };
    request.set_method(&method).map_err(refused("method"))?;
    request
        .set_scheme(Some(&scheme))
        .map_err(refused("scheme"))?;
    request
        .set_authority(Some(&url.authority))
        .map_err(refused("host"))?;
    request
        .set_path_with_query(Some(&url.target))
        .map_err(refused("path"))?;
    let options = RequestOptions::new();
    // A host without one of these limits has limits of its own.
    let _ = options.set_connect_timeout(Some(CONNECT_TIMEOUT_NS));
    let _ = options.set_first_byte_timeout(Some(FIRST_BYTE_TIMEOUT_NS));
    let body = request.body().map_err(refused("body"))?;
    let answer = outgoing_handler::handle(request, Some(options)).map_err(|code| words(&code))?;
    OutgoingBody::finish(body, None).map_err(|code| words(&code))?;
    Ok(answer)
}

fn head(answer: &FutureIncomingResponse) -> Result<Head, String> {
    let answer: IncomingResponse = match answer.get() {
        Some(Ok(Ok(answer))) => answer,
        Some(Ok(Err(code))) => return Err(words(&code)),
        Some(Err(())) | None => return Err("the answer is gone".to_owned()),
    };
    let location = answer.headers().get("location");
    let location = location.first();
    Ok(Head {
        status: answer.status(),
        location: location.map(|value| String::from_utf8_lossy(value).into_owned()),
    })
}

/// An error as its own name, such as `ConnectionRefused`.
fn words(code: &ErrorCode) -> String {
    let text = format!("{code:?}");
    text.strip_prefix("ErrorCode::")
        .map(str::to_owned)
        .unwrap_or(text)
}
