//! Checks links: asks each address of a list or a text, and reports its status.
//!
//! POST `{"urls": ["https://…"]}`, `{"text": "…"}`, or the text itself: HTML, Markdown or prose, whose absolute links
//! are found. The answer is `{"checked", "broken", "links": [{"url", "ok", "status"?, "location"?, "error"?}]}`. Each
//! link is asked once with `HEAD`, and with `GET` where the server knows no `HEAD`; redirects are reported and not
//! followed. A service of `wasi:http` 0.2 that calls out: its spec has to allow the hosts (`allowHosts`).

mod links;

use pelton_guest_http::{Request, Response, Url, serve};
use serde::Serialize;
use serde_json::Value;

/// Links that one call checks.
const LINKS_MAX: usize = 100;
/// Requests under way at once.
#[cfg(target_family = "wasm")]
const AT_ONCE: usize = 8;

serve!(answer);

#[derive(Serialize)]
struct Report {
    checked: usize,
    broken: usize,
    links: Vec<Link>,
}

#[derive(Debug, Serialize)]
struct Link {
    url: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a server answered: its status, and where a redirect leads; or why there was no answer.
type Asked = Result<(u16, Option<String>), String>;

fn answer(request: &Request) -> Response {
    respond(request, ask)
}

fn respond(request: &Request, ask: impl Fn(&str, &[Url]) -> Vec<Asked>) -> Response {
    if request.method != "POST" {
        return Response::wrong_method("POST");
    }
    let links = match read(request) {
        Ok(links) => links,
        Err(refusal) => return refusal,
    };
    if links.len() > LINKS_MAX {
        let message = format!(
            "one call checks {LINKS_MAX} links, and these are {}",
            links.len()
        );
        return Response::refusal(422, "TOO_MANY_LINKS", &message);
    }
    let links = check(&links, ask);
    Response::json(
        200,
        &Report {
            checked: links.len(),
            broken: links.iter().filter(|link| !link.ok).count(),
            links,
        },
    )
}

fn read(request: &Request) -> Result<Vec<String>, Response> {
    let refused = |message: &str| Response::refusal(400, "INVALID_INPUT", message);
    let text = std::str::from_utf8(&request.body).map_err(|_| refused("the body is not UTF-8"))?;
    match request.media_type().as_str() {
        "" | "application/json" => {
            let input: Value = serde_json::from_str(text)
                .map_err(|error| refused(&format!("the body is not JSON: {error}")))?;
            links::of_input(&input).map_err(refused)
        }
        _ => Ok(links::of_text(text)),
    }
}

fn check(addresses: &[String], ask: impl Fn(&str, &[Url]) -> Vec<Asked>) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    let mut urls = Vec::new();
    let mut places = Vec::new();
    for (place, address) in addresses.iter().enumerate() {
        let parsed = Url::parse(address);
        links.push(Link {
            url: address.clone(),
            ok: false,
            status: None,
            location: None,
            error: parsed.as_ref().err().map(|why| (*why).to_owned()),
        });
        if let Ok(url) = parsed {
            urls.push(url);
            places.push(place);
        }
    }
    for (place, asked) in places.iter().zip(ask("HEAD", &urls)) {
        note(&mut links[*place], asked);
    }
    // Not every server knows HEAD.
    let is_without_head = |place: &usize| matches!(links[*place].status, Some(405 | 501));
    let (places, urls): (Vec<usize>, Vec<Url>) = places
        .into_iter()
        .zip(urls)
        .filter(|(place, _)| is_without_head(place))
        .unzip();
    for (place, asked) in places.iter().zip(ask("GET", &urls)) {
        note(&mut links[*place], asked);
    }
    links
}

fn note(link: &mut Link, asked: Asked) {
    match asked {
        Ok((status, location)) => {
            link.ok = (200..400).contains(&status);
            link.status = Some(status);
            link.location = location;
        }
        Err(error) => {
            link.status = None;
            link.error = Some(error);
        }
    }
}

#[cfg(target_family = "wasm")]
fn ask(method: &str, urls: &[Url]) -> Vec<Asked> {
    let heads = pelton_guest_http::outgoing::heads(method, urls, AT_ONCE);
    let heads = heads.into_iter();
    heads
        .map(|head| head.map(|head| (head.status, head.location)))
        .collect()
}

/// On the author's machine nothing is asked.
#[cfg(not(target_family = "wasm"))]
fn ask(_method: &str, urls: &[Url]) -> Vec<Asked> {
    let nobody = || Err("nobody is asked outside wasm".to_owned());
    urls.iter().map(|_| nobody()).collect()
}

#[cfg(test)]
mod tests {
    use pelton_guest_http::testing::{self, json, posted};
    use serde_json::json;

    use super::*;

    /// A web in which the path says what is answered.
    fn web(method: &str, urls: &[Url]) -> Vec<Asked> {
        let answer = |url: &Url| match url.target.trim_start_matches('/') {
            "gone" => Ok((404, None)),
            "moved" => Ok((301, Some("/new".to_owned()))),
            "no-head" if method == "HEAD" => Ok((405, None)),
            "silent" => Err("ConnectionTimeout".to_owned()),
            _ => Ok((200, None)),
        };
        urls.iter().map(answer).collect()
    }

    fn report(input: &Value) -> Value {
        let response = respond(&posted(input), web);
        assert_eq!(response.status, 200, "{response:?}");
        json(&response)
    }

    #[test]
    fn the_cases_come_out() {
        let answer = |request: &Request| respond(request, web);
        testing::check_cases(answer, include_str!("../cases.json"));
    }

    #[test]
    fn each_link_is_reported_in_its_place() {
        let input =
            json!({"urls": ["http://a/gone", "mailto:b", "http://a/moved", "http://a/silent"]});
        assert_eq!(
            report(&input),
            json!({"checked": 4, "broken": 3, "links": [
                {"url": "http://a/gone", "ok": false, "status": 404},
                {"url": "mailto:b", "ok": false, "error": "not an absolute address"},
                {"url": "http://a/moved", "ok": true, "status": 301, "location": "/new"},
                {"url": "http://a/silent", "ok": false, "error": "ConnectionTimeout"},
            ]})
        );
    }

    #[test]
    fn a_server_without_head_is_asked_with_get() {
        let input = json!({"urls": ["http://a/no-head", "http://a/fine"]});
        assert_eq!(report(&input)["broken"], 0);
    }

    #[test]
    fn a_call_is_bounded() {
        let many: Vec<String> = (0..=LINKS_MAX).map(|n| format!("http://a/{n}")).collect();
        let refused = respond(&posted(&json!({ "urls": many })), web);
        assert_eq!(refused.status, 422);
        assert_eq!(json(&refused)["error"], "TOO_MANY_LINKS");
    }

    #[test]
    fn a_page_is_read_as_text_unless_it_is_json() {
        let mut page = testing::asked("POST", "/", &[("content-type", "text/html")]);
        page.body = b"<a href='http://a/gone'>gone</a>".to_vec();
        assert_eq!(json(&respond(&page, web))["broken"], 1);
    }
}
