//! A `wasi:cli/run@0.2` command that sends what its input says, and prints what came of it.
//!
//! A request is `METHOD URL`, header lines, an empty line and a body; `${NAME}` is a variable of the environment.
//! Several are parted by lines of `---`. Lines that begin with `!` are orders: `!body-bytes N` sends so many bytes,
//! `!first-byte-ms N` is an option of the request, `!times N` sends it again and again, `!hold` keeps the answer unread.

use std::io::Read as _;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

#[derive(Default)]
struct Orders {
    body_bytes: usize,
    first_byte_ms: Option<u64>,
    times: usize,
    hold: bool,
}

fn main() {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).unwrap();
    let mut held = Vec::new();
    for script in input.split("\n---\n") {
        run(script, &mut held);
    }
}

fn run(script: &str, held: &mut Vec<IncomingResponse>) {
    let (head, body) = script.split_once("\n\n").unwrap_or((script, ""));
    let mut orders = Orders::default();
    let mut lines = Vec::new();
    for line in head.lines() {
        match line.strip_prefix('!') {
            Some(order) => obey(order, &mut orders),
            None => lines.push(filled_in(line)),
        }
    }
    for _ in 0..orders.times.max(1) {
        match send(&lines, body, &orders) {
            Err(code) => println!("error {code:?}"),
            Ok(response) if orders.hold => {
                println!("held {}", response.status());
                held.push(response);
            }
            Ok(response) => tell(response),
        }
    }
}

fn obey(order: &str, orders: &mut Orders) {
    let (name, value) = order.split_once(' ').unwrap_or((order, "1"));
    match name {
        "body-bytes" => orders.body_bytes = value.parse().unwrap(),
        "first-byte-ms" => orders.first_byte_ms = value.parse().ok(),
        "times" => orders.times = value.parse().unwrap(),
        "hold" => orders.hold = true,
        other => panic!("no such order: {other}"),
    }
}

fn filled_in(line: &str) -> String {
    let mut text = line.to_owned();
    while let Some(start) = text.find("${") {
        let end = start + text[start..].find('}').expect("an end of the name");
        let value = std::env::var(&text[start + 2..end]).unwrap_or_default();
        text.replace_range(start..=end, &value);
    }
    text
}

fn send(lines: &[String], body: &str, orders: &Orders) -> Result<IncomingResponse, ErrorCode> {
    let (method, url) = lines[0].split_once(' ').expect("METHOD URL");
    let fields = Fields::new();
    for line in &lines[1..] {
        let (name, value) = line.split_once(": ").expect("a header");
        if let Err(error) = fields.append(name, value.as_bytes()) {
            println!("header {name}: {error:?}");
        }
    }
    let request = OutgoingRequest::new(fields);
    aim(&request, method, url);
    let outgoing = request.body().unwrap();
    let options = orders.first_byte_ms.map(|ms| {
        let options = RequestOptions::new();
        options.set_first_byte_timeout(Some(ms * 1_000_000)).unwrap();
        options
    });
    let future = outgoing_handler::handle(request, options)?;
    // A side that does not listen any more says why in its answer.
    let _ = write(&outgoing, body.as_bytes(), orders.body_bytes);
    let _ = OutgoingBody::finish(outgoing, None);
    future.subscribe().block();
    future.get().expect("it is there").expect("nobody has taken it")
}

fn aim(request: &OutgoingRequest, method: &str, url: &str) {
    let method = match method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "HEAD" => Method::Head,
        "CONNECT" => Method::Connect,
        other => Method::Other(other.to_owned()),
    };
    request.set_method(&method).unwrap();
    let (scheme, rest) = url.split_once("://").expect("an absolute URL");
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    request.set_scheme(Some(&scheme)).unwrap();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if request.set_authority(Some(authority)).is_err() {
        println!("authority refused");
    }
    if request.set_path_with_query(Some(path)).is_err() {
        println!("path refused");
    }
}

fn write(outgoing: &OutgoingBody, text: &[u8], more: usize) -> Result<(), StreamError> {
    let stream = outgoing.write().unwrap();
    for piece in text.chunks(4096) {
        stream.blocking_write_and_flush(piece)?;
    }
    let piece = [b'b'; 4096];
    let mut left = more;
    while left > 0 {
        let size = left.min(piece.len());
        stream.blocking_write_and_flush(&piece[..size])?;
        left -= size;
    }
    Ok(())
}

fn tell(response: IncomingResponse) {
    println!("status {}", response.status());
    let headers = response.headers();
    for (name, value) in headers.entries() {
        println!("{name}: {}", String::from_utf8_lossy(&value));
    }
    drop(headers);
    let body: IncomingBody = response.consume().unwrap();
    let stream = body.stream().unwrap();
    let (mut bytes, mut beginning) = (0, Vec::new());
    let ended = loop {
        match stream.blocking_read(64 * 1024) {
            Ok(piece) => {
                bytes += piece.len();
                let room = 2000_usize.saturating_sub(beginning.len());
                beginning.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Err(StreamError::Closed) => break None,
            Err(StreamError::LastOperationFailed(error)) => {
                break Some(error.to_debug_string());
            }
        }
    };
    println!("body {bytes}: {}", String::from_utf8_lossy(&beginning));
    if let Some(why) = ended {
        println!("broken {why}");
    }
}
