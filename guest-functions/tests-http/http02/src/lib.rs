//! A `wasi:http/incoming-handler@0.2` function that does what its path says, right or wrong.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureTrailers, IncomingBody, IncomingRequest, OutgoingBody,
    OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

wasip2::http::proxy::export!(Function);

struct Function;

/// How much is read or written at once.
const CHUNK: usize = 64 * 1024;

impl Guest for Function {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number = |name: &str| parameter(query, name).and_then(|it| it.parse::<usize>().ok());
        match path {
            "/" | "/echo" => echo(request, out),
            "/hello" => text(out, 200, "hello"),
            "/headers" => text(out, 200, &described(&request)),
            "/with" => with(query, out),
            "/down" => down(
                number("bytes").unwrap_or(0),
                number("chunk").unwrap_or(CHUNK),
                out,
            ),
            "/up" => up(request, out),
            "/trailers" => trailers(request, out),
            "/early" => text(out, 413, "too much"),
            "/never" => {}
            "/error-code" => {
                let code = ErrorCode::InternalError(Some("own words".to_owned()));
                ResponseOutparam::set(out, Err(code));
            }
            "/twice" => twice(out),
            "/short" => measured(out, "10", b"short"),
            "/long" => measured(out, "3", b"too long"),
            "/unfinished" => unfinished(out),
            "/aborted" => aborted(out),
            "/flood" => flood(
                number("count").unwrap_or(0),
                number("bytes").unwrap_or(1),
                out,
            ),
            "/stall" => stall(out),
            "/hang" => sleep_ms(3_600_000),
            "/panic" => panic!("own words"),
            "/panic-late" => {
                let (_body, stream) = begin(out, 200, &[]);
                write(&stream, b"the beginning").unwrap();
                sleep_ms(1);
                panic!("own words, late");
            }
            "/panic-after" => {
                text(out, 200, "complete");
                panic!("own words, after");
            }
            "/spin" => loop {
                std::hint::spin_loop();
            },
            "/alloc" => {
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&all);
                }
            }
            "/hoard" => {
                let mut all = Vec::new();
                loop {
                    let fields = Fields::new();
                    fields.append("x", &vec![b'x'; 60_000]).unwrap();
                    all.push(fields);
                }
            }
            "/send" => send(&parameter(query, "to").unwrap_or_default(), out),
            "/count" => text(out, 200, &count()),
            "/keep" => {
                std::mem::forget(request.consume().unwrap());
                text(out, 200, &count());
            }
            "/log" => {
                println!("to stdout");
                eprintln!("to stderr");
                text(out, 200, "logged");
            }
            "/later" => {
                sleep_ms(u64::try_from(number("ms").unwrap_or(0)).unwrap());
                text(out, 200, "later");
            }
            _ => text(out, 404, "there is nothing here"),
        }
    }
}

/// How often this instance was asked.
fn count() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    calls.to_string()
}

/// Sends the body back as it comes.
fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let given = request.headers();
    let content_type = given.get("content-type").pop().unwrap_or_default();
    drop(given);
    let headers: &[(&str, &[u8])] = match content_type.is_empty() {
        true => &[],
        false => &[("content-type", &content_type)],
    };
    let (body, stream) = begin(out, 200, headers);
    let incoming = request.consume().unwrap();
    let input = incoming.stream().unwrap();
    while let Some(chunk) = read(&input) {
        if write(&stream, &chunk).is_err() {
            return;
        }
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

/// The request as text, a line for each fact.
fn described(request: &IncomingRequest) -> String {
    let scheme = match request.scheme() {
        Some(Scheme::Https) => "https",
        _ => "http",
    };
    let mut text = format!(
        "{:?} {}\nscheme {scheme}\nauthority {}\n",
        request.method(),
        request.path_with_query().unwrap_or_default(),
        request.authority().unwrap_or_default(),
    );
    let mut headers = request.headers().entries();
    headers.sort();
    for (name, value) in headers {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
    }
    text
}

/// Answers with what the query says: `status`, `body`, any number of `h=name:value`.
fn with(query: &str, out: ResponseOutparam) {
    let status = parameter(query, "status").and_then(|it| it.parse().ok());
    let given: Vec<String> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("h="))
        .map(decoded)
        .collect();
    let headers: Vec<(&str, &[u8])> = given
        .iter()
        .filter_map(|header| header.split_once(':'))
        .map(|(name, value)| (name, value.trim().as_bytes()))
        .collect();
    let (body, stream) = begin(out, status.unwrap_or(200), &headers);
    write(
        &stream,
        parameter(query, "body").unwrap_or_default().as_bytes(),
    )
    .unwrap();
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn down(bytes: usize, chunk: usize, out: ResponseOutparam) {
    let (body, stream) = begin(out, 200, &[("content-type", b"application/octet-stream")]);
    let data = vec![b'd'; chunk];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(data.len());
        if write(&stream, &data[..part]).is_err() {
            return;
        }
        left -= part;
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn up(request: IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().unwrap();
    let input = incoming.stream().unwrap();
    let (mut bytes, mut sum) = (0_u64, 0_u64);
    while let Some(chunk) = read(&input) {
        bytes += chunk.len() as u64;
        sum = chunk
            .iter()
            .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }
    text(out, 200, &format!("{bytes} {sum}"));
}

/// Sends the body back, and its trailers with one more.
fn trailers(request: IncomingRequest, out: ResponseOutparam) {
    let (body, stream) = begin(out, 200, &[("trailer", b"x-given, x-bytes")]);
    let incoming = request.consume().unwrap();
    let input = incoming.stream().unwrap();
    let mut bytes = 0;
    while let Some(chunk) = read(&input) {
        bytes += chunk.len();
        write(&stream, &chunk).unwrap();
    }
    drop(input);
    let future: FutureTrailers = IncomingBody::finish(incoming);
    future.subscribe().block();
    let given = future.get().unwrap().unwrap().unwrap();
    let fields = Fields::new();
    if let Some(given) = given {
        for value in given.get("x-given") {
            fields.append("x-given", &value).unwrap();
        }
    }
    fields
        .append("x-bytes", bytes.to_string().as_bytes())
        .unwrap();
    drop(stream);
    OutgoingBody::finish(body, Some(fields)).unwrap();
}

fn twice(out: ResponseOutparam) {
    // What the first call gives away is used again: no safe guest can, and others do.
    let again = unsafe { ResponseOutparam::from_handle(out.handle()) };
    text(out, 200, "once");
    text(again, 200, "twice");
}

fn measured(out: ResponseOutparam, length: &str, data: &[u8]) {
    let (body, stream) = begin(out, 200, &[("content-length", length.as_bytes())]);
    // What the host says about it is none of this guest's business.
    let _ = write(&stream, data);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn unfinished(out: ResponseOutparam) {
    let (body, stream) = begin(out, 200, &[]);
    write(&stream, b"unfinished").unwrap();
    std::mem::forget((body, stream));
}

fn aborted(out: ResponseOutparam) {
    let (body, stream) = begin(out, 200, &[]);
    write(&stream, b"aborted").unwrap();
    drop(stream);
    drop(body);
}

fn flood(count: usize, bytes: usize, out: ResponseOutparam) {
    let value = vec![b'v'; bytes];
    let names: Vec<String> = (0..count).map(|i| format!("x-{i}")).collect();
    let headers: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &value[..]))
        .collect();
    let (body, stream) = begin(out, 200, &headers);
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn stall(out: ResponseOutparam) {
    let (body, stream) = begin(out, 200, &[]);
    write(&stream, b"the beginning").unwrap();
    sleep_ms(3_600_000);
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

/// Tells what became of a request to `scheme://authority/path`.
fn send(to: &str, out: ResponseOutparam) {
    let request = OutgoingRequest::new(Fields::new());
    let (scheme, rest) = to.split_once("://").unwrap_or(("http", to));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let scheme = match scheme {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    };
    request.set_scheme(Some(&scheme)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request
        .set_path_with_query(Some(&format!("/{path}")))
        .unwrap();
    let body = request.body().unwrap();
    let told = match outgoing_handler::handle(request, None) {
        Err(code) => format!("{code:?}"),
        Ok(future) => {
            OutgoingBody::finish(body, None).unwrap();
            future.subscribe().block();
            match future.get().unwrap().unwrap() {
                Ok(response) => format!("status {}", response.status()),
                Err(code) => format!("{code:?}"),
            }
        }
    };
    text(out, 200, &told);
}

fn text(out: ResponseOutparam, status: u16, text: &str) {
    let (body, stream) = begin(
        out,
        status,
        &[("content-type", b"text/plain; charset=utf-8")],
    );
    write(&stream, text.as_bytes()).unwrap();
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

/// Answers with a head; the body is still to come.
fn begin(
    out: ResponseOutparam,
    status: u16,
    headers: &[(&str, &[u8])],
) -> (OutgoingBody, OutputStream) {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    (body, stream)
}

fn write(stream: &OutputStream, mut data: &[u8]) -> Result<(), StreamError> {
    while !data.is_empty() {
        let room = usize::try_from(stream.check_write()?).unwrap();
        if room == 0 {
            stream.subscribe().block();
            continue;
        }
        let (now, later) = data.split_at(room.min(data.len()));
        stream.write(now)?;
        data = later;
    }
    Ok(())
}

/// The next piece, `None` at the end.
fn read(stream: &InputStream) -> Option<Vec<u8>> {
    match stream.blocking_read(CHUNK as u64) {
        Ok(chunk) => Some(chunk),
        Err(StreamError::Closed) => None,
        Err(error) => panic!("the body broke off: {error:?}"),
    }
}

fn sleep_ms(ms: u64) {
    monotonic_clock::subscribe_duration(ms * 1_000_000).block();
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| decoded(value))
}

/// Percent-decodes.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        match (first, code.and_then(|it| u8::from_str_radix(it, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}
