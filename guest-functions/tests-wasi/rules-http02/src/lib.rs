//! What a host of `wasi:http` 0.2 must allow and refuse: each path tries one group of rules and answers what came of
//! it, a line each.

use std::fmt::Debug;
use std::io::Write as _;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    RequestOptions, ResponseOutparam, Scheme,
};

wasip2::http::proxy::export!(Rules);

struct Rules;

impl Guest for Rules {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let told = match path.as_str() {
            "/names" => names(),
            "/values" => values(),
            "/forbidden" => forbidden(),
            "/immutable" => immutable(&request),
            "/lookups" => lookups(),
            "/requests" => requests(),
            "/responses" => responses(),
            "/options" => options(),
            "/lengths" => lengths(),
            "/request" => incoming(request),
            "/order" => order(request),
            "/parent-first" => {
                let body = request.consume().unwrap();
                let stream = body.stream().unwrap();
                drop(body);
                drop(stream);
                "a parent was dropped before its child".to_owned()
            }
            "/unset" => {
                drop(out);
                return;
            }
            other => format!("there are no rules {other}"),
        };
        answer(out, told.as_bytes());
    }
}

fn answer(out: ResponseOutparam, told: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().unwrap();
    stream.write_all(told).unwrap();
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn lines<T: Debug>(tried: impl IntoIterator<Item = (String, T)>) -> String {
    let tried = tried.into_iter();
    tried
        .map(|(what, came)| format!("{what}: {came:?}\n"))
        .collect()
}

fn names() -> String {
    lines(
        [
            "x",
            "X-Upper",
            "with space",
            "",
            "a:b",
            "ü",
            "a\nb",
            "a\0b",
            "x_y.z~",
        ]
        .map(|name| {
            let fields = Fields::new();
            (format!("{name:?}"), fields.append(name, b"v"))
        }),
    )
}

fn values() -> String {
    let values: [&[u8]; 8] = [
        b"plain",
        b"",
        b"tab\there",
        b"line\nfeed",
        b"carriage\rreturn",
        b"nul\0",
        b"\xff\xfe",
        b" blanks ",
    ];
    lines(values.map(|value| {
        let fields = Fields::new();
        (value.escape_ascii().to_string(), fields.append("x", value))
    }))
}

fn forbidden() -> String {
    lines(
        [
            "connection",
            "Keep-Alive",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
            "host",
            "http2-settings",
            "te",
            "trailer",
            "content-length",
            "set-cookie",
            "authorization",
        ]
        .map(|name| {
            let fields = Fields::new();
            let appended = fields.append(name, b"v");
            let listed = Fields::from_list(&[(name.to_owned(), b"v".to_vec())]).map(drop);
            (name.to_owned(), (appended, listed))
        }),
    )
}

fn immutable(request: &IncomingRequest) -> String {
    let incoming = request.headers();
    let response = OutgoingResponse::new(Fields::new());
    let outgoing = response.headers();
    let copy = incoming.clone();
    lines([
        (
            "append to a request's".to_owned(),
            incoming.append("x", b"v"),
        ),
        (
            "set of a request's".to_owned(),
            incoming.set("x", &[b"v".to_vec()]),
        ),
        ("delete of a request's".to_owned(), incoming.delete("host")),
        (
            "append to a response's".to_owned(),
            outgoing.append("x", b"v"),
        ),
        ("append to a copy".to_owned(), copy.append("x", b"v")),
    ])
}

fn lookups() -> String {
    let fields = Fields::new();
    fields.append("X-Mixed", b"1").unwrap();
    fields.append("x-mixed", b"2").unwrap();
    fields
        .set("replaced", &[b"a".to_vec(), b"b".to_vec()])
        .unwrap();
    fields.set("replaced", &[b"c".to_vec()]).unwrap();
    fields.append("gone", b"v").unwrap();
    fields.delete("GONE").unwrap();
    let texts = |values: Vec<Vec<u8>>| {
        values
            .iter()
            .map(|value| value.escape_ascii().to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    lines([
        ("both spellings".to_owned(), texts(fields.get("x-MIXED"))),
        ("replaced".to_owned(), texts(fields.get("replaced"))),
        (
            "gone".to_owned(),
            format!("{} {}", texts(fields.get("gone")), fields.has("gone")),
        ),
        ("no name at all".to_owned(), texts(fields.get("not a name"))),
        (
            "has, in capitals".to_owned(),
            fields.has("REPLACED").to_string(),
        ),
        ("entries".to_owned(), fields.entries().len().to_string()),
    ])
}

fn requests() -> String {
    let new = || OutgoingRequest::new(Fields::new());
    let mut tried: Vec<(String, Result<(), ()>)> = Vec::new();
    for method in ["PURGE", "get", "with space", "", "a\nb"] {
        let set = new().set_method(&Method::Other(method.to_owned()));
        tried.push((format!("method {method:?}"), set));
    }
    for scheme in ["ftp", "s:p", "", "1a"] {
        let set = new().set_scheme(Some(&Scheme::Other(scheme.to_owned())));
        tried.push((format!("scheme {scheme:?}"), set));
    }
    for authority in [
        "a.example",
        "a.example:8080",
        "[::1]:80",
        "a b",
        "user:pass@a",
        "a/b",
        "",
    ] {
        let set = new().set_authority(Some(authority));
        tried.push((format!("authority {authority:?}"), set));
    }
    for path in [
        "/",
        "/a?b=c",
        "relative",
        "?only",
        "/with space",
        "/a\r\nb",
        "",
    ] {
        let set = new().set_path_with_query(Some(path));
        tried.push((format!("path {path:?}"), set));
    }
    let request = new();
    let body = request.body();
    tried.push((
        "a body".to_owned(),
        body.as_ref().map(drop).map_err(|()| ()),
    ));
    tried.push(("a second body".to_owned(), request.body().map(drop)));
    let body = body.unwrap();
    let stream = body.write();
    tried.push((
        "its stream".to_owned(),
        stream.as_ref().map(drop).map_err(|()| ()),
    ));
    tried.push(("a second stream".to_owned(), body.write().map(drop)));
    drop(stream);
    drop(body);
    lines(tried)
}

fn responses() -> String {
    let new = || OutgoingResponse::new(Fields::new());
    let mut tried: Vec<(String, Result<(), ()>)> = Vec::new();
    for status in [0, 99, 100, 200, 299, 404, 599, 600, 999, 1000, 65535] {
        tried.push((format!("status {status}"), new().set_status_code(status)));
    }
    let response = new();
    let body = response.body();
    tried.push((
        "a body".to_owned(),
        body.as_ref().map(drop).map_err(|()| ()),
    ));
    tried.push(("a second body".to_owned(), response.body().map(drop)));
    let mut told = lines(tried);
    told.push_str(&format!(
        "the status unless said: {}\n",
        new().status_code()
    ));
    told
}

fn options() -> String {
    let options = RequestOptions::new();
    let mut tried = vec![(
        "unset".to_owned(),
        format!("{:?}", options.connect_timeout()),
    )];
    let set = [
        ("connect", options.set_connect_timeout(Some(5))),
        ("first byte", options.set_first_byte_timeout(Some(6))),
        ("between bytes", options.set_between_bytes_timeout(Some(7))),
    ];
    tried.extend(set.map(|(what, set)| (format!("set {what}"), format!("{set:?}"))));
    tried.push((
        "read".to_owned(),
        format!(
            "{:?} {:?} {:?}",
            options.connect_timeout(),
            options.first_byte_timeout(),
            options.between_bytes_timeout()
        ),
    ));
    lines(tried)
}

/// What becomes of a body that is not as long as its head says.
fn lengths() -> String {
    let write = |stated: &str, written: &[u8]| {
        let length = ("content-length".to_owned(), stated.as_bytes().to_vec());
        let headers = match Fields::from_list(&[length]) {
            Ok(headers) => headers,
            Err(error) => return format!("not even a header: {error:?}"),
        };
        let request = OutgoingRequest::new(headers);
        let body = match request.body() {
            Ok(body) => body,
            Err(()) => return "has no body".to_owned(),
        };
        let mut stream = body.write().unwrap();
        let wrote = stream.write_all(written).is_ok();
        drop(stream);
        format!(
            "written {wrote}, finished {:?}",
            OutgoingBody::finish(body, None)
        )
    };
    lines([
        ("as long as stated".to_owned(), write("4", b"four")),
        ("shorter".to_owned(), write("9", b"four")),
        ("longer".to_owned(), write("2", b"four")),
        ("no number".to_owned(), write("many", b"four")),
    ])
}

fn incoming(request: IncomingRequest) -> String {
    lines([
        ("method".to_owned(), format!("{:?}", request.method())),
        ("scheme".to_owned(), format!("{:?}", request.scheme())),
        (
            "has an authority".to_owned(),
            request.authority().is_some().to_string(),
        ),
        ("consumed".to_owned(), request.consume().is_ok().to_string()),
        (
            "consumed again".to_owned(),
            request.consume().is_ok().to_string(),
        ),
    ])
}

/// Resources are dropped before those that they came from, and some that were never used.
fn order(request: IncomingRequest) -> String {
    let headers = request.headers();
    let body = request.consume().unwrap();
    let stream = body.stream().unwrap();
    drop(stream);
    // A second stream of the same body: the first one took the right to it.
    let again = body.stream().is_ok();
    let trailers = wasip2::http::types::IncomingBody::finish(body);
    drop(trailers);
    drop(request);
    let entries = headers.entries().len() > 1;
    drop(headers);
    drop(OutgoingRequest::new(Fields::new()));
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    drop(response);
    drop(body.write());
    drop(body);
    lines([
        ("a second stream".to_owned(), again),
        ("headers outlive their request".to_owned(), entries),
    ])
}
