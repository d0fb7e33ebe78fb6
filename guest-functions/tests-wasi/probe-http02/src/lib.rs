//! The probe as a web service of `wasi:http` 0.2.

use pelton_guest_http::{Request, Response, Url, outgoing, serve};

serve!(answer);

fn answer(request: &Request) -> Response {
    Response::text(200, answer_to(&request.body))
}

fn answer_to(input: &[u8]) -> String {
    let probe = probe::asked(input);
    if probe == "calls" {
        return called(&reach::value("call"));
    }
    reach::answer(&probe).unwrap_or_else(|| probe::answer(input))
}

fn called(url: &str) -> String {
    let urls: Vec<_> = Url::parse(url).into_iter().collect();
    let heads = outgoing::heads_with("GET", &urls, 1, &reach::value("TOKEN")).into_iter();
    heads
        .map(|head| match head {
            Ok(head) => format!("status {}\n", head.status),
            Err(error) => format!("{error}\n"),
        })
        .collect()
}
