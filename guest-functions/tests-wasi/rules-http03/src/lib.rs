//! What a host of `wasi:http` 0.3 must allow and refuse: each path tries one group of rules and answers what came of
//! it, a line each; or it breaks a rule, and the host says which.

use std::fmt::Debug;

use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{
    ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme, Trailers,
};
use wasip3::wit_bindgen::rt::async_support::{FutureReader, FutureWriter, StreamWriter};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Rules);

struct Rules;

type Ending = Result<Option<Trailers>, ErrorCode>;

impl Guest for Rules {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let told = match path.as_str() {
            "/names" => names(),
            "/values" => values(),
            "/forbidden" => forbidden(),
            "/immutable" => immutable(&request),
            "/lookups" => lookups(),
            "/requests" => requests(),
            "/responses" => responses(),
            "/options" => options(),
            "/request" => incoming(request).await,
            "/sent-short" => sent("9", b"four").await,
            "/sent-long" => sent("2", b"four").await,
            "/no-authority" => unaimed().await,
            "/no-number" => return told_in(&[("content-length", b"many")], b"four"),
            "/two-lengths" => {
                return told_in(
                    &[("content-length", b"4"), ("content-length", b"5")],
                    b"four",
                );
            }
            "/code" => return Err(ErrorCode::HttpResponseTimeout),
            "/trailers-refused" => return ended(Err(ErrorCode::HttpProtocolError)),
            "/trailers-forbidden" => return ended(Ok(Some(trailers(1, "content-length")))),
            "/trailers-flood" => return ended(Ok(Some(trailers(500, "x")))),
            "/informational" => return bare(103),
            "/no-content" => return told_with(204, b"text"),
            other => format!("there are no rules {other}"),
        };
        told_in(&[], told.as_bytes())
    }
}

/// A response whose body is still to come.
fn begin(fields: Fields) -> (Response, StreamWriter<u8>, FutureWriter<Ending>) {
    let (writer, reader) = wit_stream::new();
    let (ending, ended) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(fields, Some(reader), ended);
    (response, writer, ending)
}

fn told_in(headers: &[(&str, &[u8])], told: &[u8]) -> Result<Response, ErrorCode> {
    let fields = Fields::new();
    for (name, value) in headers {
        if let Err(error) = fields.append(name, value) {
            return told_in(&[], format!("not even a header: {error:?}\n").as_bytes());
        }
    }
    let (response, mut writer, ending) = begin(fields);
    drop(ending);
    let told = told.to_vec();
    wit_bindgen::spawn_local(async move {
        writer.write_all(told).await;
    });
    Ok(response)
}

fn told_with(status: u16, told: &'static [u8]) -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(Fields::new());
    response.set_status_code(status).unwrap();
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(told.to_vec()).await;
    });
    Ok(response)
}

/// A response without a body.
fn bare(status: u16) -> Result<Response, ErrorCode> {
    let (ending, ended) = wit_future::new(|| Ok(None));
    drop(ending);
    let (response, _sent) = Response::new(Fields::new(), None, ended);
    match response.set_status_code(status) {
        Ok(()) => Ok(response),
        Err(()) => told_in(&[], format!("status {status} is refused\n").as_bytes()),
    }
}

/// A response that ends so.
fn ended(with: Ending) -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(Fields::new());
    wit_bindgen::spawn_local(async move {
        writer.write_all(b"the body".to_vec()).await;
        drop(writer);
        let _ = ending.write(with).await;
    });
    Ok(response)
}

fn trailers(count: usize, name: &str) -> Fields {
    let fields = Fields::new();
    for number in 0..count {
        let name = match count {
            1 => name.to_owned(),
            _ => format!("{name}-{number}"),
        };
        let _ = fields.append(&name, &[b'1'; 1]);
    }
    fields
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

fn immutable(request: &Request) -> String {
    let incoming = request.get_headers();
    let (response, _writer, _ending) = begin(Fields::new());
    let outgoing = response.get_headers();
    let copy = incoming.clone();
    let (ending, ended) = wit_future::new(|| Ok(None));
    drop(ending);
    let options = RequestOptions::new();
    let (asked, _sent) = Request::new(Fields::new(), None, ended, Some(options));
    let kept = asked
        .get_options()
        .map(|options| options.set_connect_timeout(Some(1)));
    let mut told = lines([
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
    ]);
    told.push_str(&lines([("options of a request".to_owned(), kept)]));
    told
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
    let taken = fields.get_and_delete("X-MIXED").map(texts);
    lines([
        ("taken, in capitals".to_owned(), format!("{taken:?}")),
        ("taken again".to_owned(), texts(fields.get("x-mixed"))),
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
        ("all".to_owned(), fields.copy_all().len().to_string()),
    ])
}

/// A request without a body.
fn new_request() -> Request {
    let (ending, ended) = wit_future::new(|| Ok(None));
    drop(ending);
    Request::new(Fields::new(), None, ended, None).0
}

fn requests() -> String {
    let mut tried: Vec<(String, Result<(), ()>)> = Vec::new();
    for method in ["PURGE", "get", "with space", "", "a\nb"] {
        let set = new_request().set_method(&Method::Other(method.to_owned()));
        tried.push((format!("method {method:?}"), set));
    }
    for scheme in ["ftp", "s:p", "", "1a"] {
        let set = new_request().set_scheme(Some(&Scheme::Other(scheme.to_owned())));
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
        let set = new_request().set_authority(Some(authority));
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
        let set = new_request().set_path_with_query(Some(path));
        tried.push((format!("path {path:?}"), set));
    }
    lines(tried)
}

fn responses() -> String {
    let tried = [0, 99, 100, 200, 299, 404, 599, 600, 999, 1000, 65535].map(|status| {
        let (response, _writer, _ending) = begin(Fields::new());
        (format!("status {status}"), response.set_status_code(status))
    });
    let mut told = lines(tried);
    let (response, _writer, _ending) = begin(Fields::new());
    told.push_str(&format!(
        "the status unless said: {}\n",
        response.get_status_code()
    ));
    told
}

fn options() -> String {
    let options = RequestOptions::new();
    let unset = options.get_connect_timeout();
    let set = [
        ("set connect", options.set_connect_timeout(Some(5))),
        ("set first byte", options.set_first_byte_timeout(Some(6))),
        (
            "set between bytes",
            options.set_between_bytes_timeout(Some(7)),
        ),
    ];
    let mut told = lines([("unset".to_owned(), unset)]);
    told.push_str(&lines(set.map(|(what, set)| (what.to_owned(), set))));
    told.push_str(&lines([(
        "read".to_owned(),
        (
            options.get_connect_timeout(),
            options.get_first_byte_timeout(),
            options.get_between_bytes_timeout(),
        ),
    )]));
    told
}

/// What came, and that it can be thrown away in any order.
async fn incoming(request: Request) -> String {
    let mut told = lines([
        ("method".to_owned(), format!("{:?}", request.get_method())),
        ("scheme".to_owned(), format!("{:?}", request.get_scheme())),
        (
            "has an authority".to_owned(),
            request.get_authority().is_some().to_string(),
        ),
    ]);
    let headers = request.get_headers();
    let (done, result) = wit_future::new(|| Ok(()));
    drop(done);
    let (body, trailers) = Request::consume_body(request, result);
    let bytes = body.collect().await.len();
    told.push_str(&lines([
        ("bytes".to_owned(), bytes.to_string()),
        (
            "trailers".to_owned(),
            format!("{:?}", trailers.await.map(|trailers| trailers.is_some())),
        ),
        (
            "headers outlive their request".to_owned(),
            (headers.copy_all().len() > 1).to_string(),
        ),
    ]));
    told
}

/// What becomes of a request whose body is not as long as its head says.
async fn sent(stated: &str, body: &'static [u8]) -> String {
    let length = ("content-length".to_owned(), stated.as_bytes().to_vec());
    let headers = match Fields::from_list(&[length]) {
        Ok(headers) => headers,
        Err(error) => return format!("not even a header: {error:?}\n"),
    };
    let (mut writer, reader) = wit_stream::new();
    let (ending, ended) = wit_future::new(|| Ok(None));
    drop(ending);
    let (request, sent): (Request, FutureReader<Result<(), ErrorCode>>) =
        Request::new(headers, Some(reader), ended, None);
    request.set_method(&Method::Post).unwrap();
    let to = authority();
    aim(&request, &to);
    wit_bindgen::spawn_local(async move {
        writer.write_all(body.to_vec()).await;
    });
    let answer = client::send(request).await;
    let answer = answer.map(|response| response.get_status_code());
    lines(
        [
            ("the answer", format!("{answer:?}")),
            ("the body", format!("{:?}", sent.await)),
        ]
        .map(|(what, came)| (what.to_owned(), came)),
    )
}

/// A request that says nothing of where it goes.
async fn unaimed() -> String {
    let answer = client::send(new_request()).await;
    lines([(
        "sent".to_owned(),
        answer.map(|response| response.get_status_code()),
    )])
}

/// Whom to call: the environment says it.
fn authority() -> String {
    std::env::var("CALL").unwrap_or_default()
}

fn aim(request: &Request, to: &str) {
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(to)).unwrap();
    request.set_path_with_query(Some("/")).unwrap();
}
