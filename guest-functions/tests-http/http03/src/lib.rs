//! A `wasi:http/handler@0.3` function that does what its path says, right or wrong.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::clocks::monotonic_clock;
use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme, Trailers};
use wasip3::wit_bindgen::rt::async_support::{
    FutureReader, FutureWriter, StreamReader, StreamWriter,
};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Function with_types_in crate::raw);

struct Function;

type Ending = Result<Option<Trailers>, ErrorCode>;

const CHUNK: usize = 64 * 1024;

impl Guest for Function {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number = |name: &str| parameter(query, name).and_then(|it| it.parse::<usize>().ok());
        match path {
            "/" | "/echo" => echo(request),
            "/headers" => text(200, described(&request)),
            "/with" => with(query),
            "/down" => down(
                number("bytes").unwrap_or(0),
                number("chunk").unwrap_or(CHUNK),
            ),
            "/up" => up(request).await,
            "/trailers" => trailers(request),
            "/early" => text(413, "too much".to_owned()),
            "/twice" => twice(),
            "/hang" => {
                sleep_ms(3_600_000).await;
                text(200, String::new())
            }
            "/error-code" => Err(ErrorCode::InternalError(Some("own words".to_owned()))),
            "/short" => measured("10", b"short"),
            "/long" => measured("3", b"too long"),
            "/aborted" => aborted(),
            "/flood" => flood(number("count").unwrap_or(0), number("bytes").unwrap_or(1)),
            "/stall" => stall(),
            "/panic" => panic!("own words"),
            "/panic-late" => panic_late(),
            "/spin" => loop {
                std::hint::spin_loop();
            },
            "/spin-late" => spin_late(),
            "/alloc" => {
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&all);
                }
            }
            "/send" => send(&parameter(query, "to").unwrap_or_default()).await,
            "/count" => text(200, count()),
            "/spin-after" => spin_after(),
            "/doze-after" => doze_after(),
            "/log" => {
                println!("to stdout");
                eprintln!("to stderr");
                text(200, "logged".to_owned())
            }
            "/later" => {
                sleep_ms(u64::try_from(number("ms").unwrap_or(0)).unwrap()).await;
                text(200, "later".to_owned())
            }
            "/after" => after(),
            "/meet" => meet(number("of").unwrap_or(2), query).await,
            "/drip" => drip(number("count").unwrap_or(1), query),
            _ => text(404, "there is nothing here".to_owned()),
        }
    }
}

/// The exports as the generator makes them, but that a task for `/never` ends at once: no safe guest can.
mod raw {
    pub mod exports {
        pub mod wasi {
            pub mod http {
                pub mod handler {
                    use wasip3::exports::http::handler;
                    pub use wasip3::exports::http::handler::{
                        __callback_handle, __export_wasi_http_handler_0_3_2_cabi,
                    };

                    pub unsafe fn _export_handle_cabi<T: handler::Guest>(request: i32) -> i32 {
                        let handle = request.cast_unsigned();
                        let peeked = unsafe { wasip3::http::types::Request::from_handle(handle) };
                        let path = peeked.get_path_with_query();
                        std::mem::forget(peeked);
                        if path.as_deref() == Some("/never") {
                            return 0;
                        }
                        unsafe { wasip3::exports::http::handler::_export_handle_cabi::<T>(request) }
                    }
                }
            }
        }
    }
}

/// Returns a response by hand, and another as everybody does.
fn twice() -> Result<Response, ErrorCode> {
    #[link(wasm_import_module = "[export]wasi:http/handler@0.3.2")]
    unsafe extern "C" {
        #[link_name = "[task-return]handle"]
        fn task_return(_: i32, _: i32, _: i32, _: u64, _: i32, _: i32, _: i32, _: i32);
    }
    let first = text(200, "once".to_owned())?.take_handle();
    unsafe { task_return(0, first.cast_signed(), 0, 0, 0, 0, 0, 0) };
    text(200, "twice".to_owned())
}

/// A response whose body is still to come.
fn begin(
    status: u16,
    headers: &[(&str, &[u8])],
) -> (Response, StreamWriter<u8>, FutureWriter<Ending>) {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value).unwrap();
    }
    let (writer, reader) = wit_stream::new();
    let (ending, ended) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(fields, Some(reader), ended);
    response.set_status_code(status).unwrap();
    (response, writer, ending)
}

fn text(status: u16, text: String) -> Result<Response, ErrorCode> {
    let headers: &[(&str, &[u8])] = &[("content-type", b"text/plain; charset=utf-8")];
    let (response, mut writer, ending) = begin(status, headers);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(text.into_bytes()).await;
    });
    Ok(response)
}

fn consumed(request: Request) -> (StreamReader<u8>, FutureReader<Ending>) {
    let (done, told) = wit_future::new(|| Ok(()));
    drop(done);
    Request::consume_body(request, told)
}

/// Sends the body back as it comes.
fn echo(request: Request) -> Result<Response, ErrorCode> {
    let content_type = request.get_headers().get("content-type").pop();
    let headers: Vec<(&str, &[u8])> = content_type
        .iter()
        .map(|value| ("content-type", &value[..]))
        .collect();
    let (response, mut writer, ending) = begin(200, &headers);
    drop(ending);
    let (mut body, _trailers) = consumed(request);
    wit_bindgen::spawn_local(async move {
        while let Some(chunk) = read(&mut body).await {
            if !writer.write_all(chunk).await.is_empty() {
                return;
            }
        }
    });
    Ok(response)
}

fn described(request: &Request) -> String {
    let scheme = match request.get_scheme() {
        Some(Scheme::Https) => "https",
        _ => "http",
    };
    let mut text = format!(
        "{:?} {}\nscheme {scheme}\nauthority {}\n",
        request.get_method(),
        request.get_path_with_query().unwrap_or_default(),
        request.get_authority().unwrap_or_default(),
    );
    let mut headers = request.get_headers().copy_all();
    headers.sort();
    for (name, value) in headers {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
    }
    text
}

/// Answers with what the query says: `status`, `body`, any number of `h=name:value`.
fn with(query: &str) -> Result<Response, ErrorCode> {
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
    let (response, mut writer, ending) = begin(status.unwrap_or(200), &headers);
    drop(ending);
    let body = parameter(query, "body").unwrap_or_default();
    wit_bindgen::spawn_local(async move {
        writer.write_all(body.into_bytes()).await;
    });
    Ok(response)
}

fn down(bytes: usize, chunk: usize) -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) =
        begin(200, &[("content-type", b"application/octet-stream")]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        let mut left = bytes;
        let mut data = vec![b'd'; chunk];
        while left > 0 {
            data.resize(left.min(chunk), b'd');
            left -= data.len();
            if !writer.write_all(data.clone()).await.is_empty() {
                return;
            }
        }
    });
    Ok(response)
}

async fn up(request: Request) -> Result<Response, ErrorCode> {
    let (mut body, trailers) = consumed(request);
    let (mut bytes, mut sum) = (0_u64, 0_u64);
    while let Some(chunk) = read(&mut body).await {
        bytes += chunk.len() as u64;
        sum = chunk
            .iter()
            .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }
    // A stream ends like that whether the body did or broke off; this tells.
    trailers.await?;
    text(200, format!("{bytes} {sum}"))
}

/// Sends the body back, and its trailers with one more.
fn trailers(request: Request) -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[("trailer", b"x-given, x-bytes")]);
    let (mut body, given) = consumed(request);
    wit_bindgen::spawn_local(async move {
        let mut bytes = 0;
        while let Some(chunk) = read(&mut body).await {
            bytes += chunk.len();
            writer.write_all(chunk).await;
        }
        drop(writer);
        let fields = Fields::new();
        if let Ok(Some(given)) = given.await {
            for value in given.get("x-given") {
                fields.append("x-given", &value).unwrap();
            }
        }
        fields
            .append("x-bytes", bytes.to_string().as_bytes())
            .unwrap();
        ending.write(Ok(Some(fields))).await.unwrap();
    });
    Ok(response)
}

fn measured(length: &str, data: &'static [u8]) -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[("content-length", length.as_bytes())]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(data.to_vec()).await;
    });
    Ok(response)
}

fn aborted() -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[]);
    wit_bindgen::spawn_local(async move {
        writer.write_all(b"aborted".to_vec()).await;
        drop(writer);
        let code = ErrorCode::InternalError(Some("own words".to_owned()));
        let _ = ending.write(Err(code)).await;
    });
    Ok(response)
}

fn flood(count: usize, bytes: usize) -> Result<Response, ErrorCode> {
    let value = vec![b'v'; bytes];
    let names: Vec<String> = (0..count).map(|i| format!("x-{i}")).collect();
    let headers: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &value[..]))
        .collect();
    let (response, writer, ending) = begin(200, &headers);
    drop((writer, ending));
    Ok(response)
}

fn stall() -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(b"the beginning".to_vec()).await;
        sleep_ms(3_600_000).await;
        drop(writer);
    });
    Ok(response)
}

fn panic_late() -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(b"the beginning".to_vec()).await;
        sleep_ms(1).await;
        panic!("own words, late");
    });
    Ok(response)
}

fn spin_late() -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(b"the beginning".to_vec()).await;
        loop {
            std::hint::spin_loop();
        }
    });
    Ok(response)
}

/// Works on once its answer is complete.
fn after() -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(b"complete".to_vec()).await;
        drop(writer);
        sleep_ms(1).await;
        eprintln!("worked on");
    });
    Ok(response)
}

/// Computes without end once its answer is complete.
fn spin_after() -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(count().into_bytes()).await;
        drop(writer);
        loop {
            std::hint::spin_loop();
        }
    });
    Ok(response)
}

/// Waits without end once its answer is complete.
fn doze_after() -> Result<Response, ErrorCode> {
    let (response, mut writer, ending) = begin(200, &[]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        writer.write_all(count().into_bytes()).await;
        drop(writer);
        sleep_ms(3_600_000).await;
    });
    Ok(response)
}

/// How often this instance was asked.
fn count() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    calls.to_string()
}

/// Waits until so many calls were in this instance at once; what it does then is said by `then`.
async fn meet(of: usize, query: &str) -> Result<Response, ErrorCode> {
    static HERE: AtomicU32 = AtomicU32::new(0);
    static MOST: AtomicU32 = AtomicU32::new(0);
    let here = HERE.fetch_add(1, Ordering::Relaxed) + 1;
    MOST.fetch_max(here, Ordering::Relaxed);
    if let Some(word) = parameter(query, "say") {
        println!("{word}");
    }
    while (MOST.load(Ordering::Relaxed) as usize) < of {
        sleep_ms(1).await;
    }
    match parameter(query, "then").as_deref() {
        Some("panic") => panic!("own words"),
        Some("hang") => sleep_ms(3_600_000).await,
        Some("spin") => loop {
            std::hint::spin_loop();
        },
        Some("hoard") => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
                std::hint::black_box(&all);
            }
        }
        Some("doze") => sleep_ms(300).await,
        _ => {}
    }
    HERE.fetch_sub(1, Ordering::Relaxed);
    text(200, format!("{} {}", MOST.load(Ordering::Relaxed), count()))
}

/// Answers a word piece by piece, waiting between them.
fn drip(count: usize, query: &str) -> Result<Response, ErrorCode> {
    let word = parameter(query, "word").unwrap_or_default();
    let (response, mut writer, ending) = begin(200, &[]);
    drop(ending);
    wit_bindgen::spawn_local(async move {
        for _ in 0..count {
            if !writer.write_all(word.clone().into_bytes()).await.is_empty() {
                return;
            }
            sleep_ms(1).await;
        }
    });
    Ok(response)
}

/// Tells what became of a request to `scheme://authority/path`.
async fn send(to: &str) -> Result<Response, ErrorCode> {
    let (scheme, rest) = to.split_once("://").unwrap_or(("http", to));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (ending, ended) = wit_future::new(|| Ok(None));
    drop(ending);
    let (request, _sent) = Request::new(Fields::new(), None, ended, None);
    let scheme = match scheme {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    };
    request.set_scheme(Some(&scheme)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request
        .set_path_with_query(Some(&format!("/{path}")))
        .unwrap();
    let told = match client::send(request).await {
        Ok(response) => format!("status {}", response.get_status_code()),
        Err(code) => format!("{code:?}"),
    };
    text(200, told)
}

/// The next piece, `None` at the end.
async fn read(stream: &mut StreamReader<u8>) -> Option<Vec<u8>> {
    let (result, chunk) = stream.read(Vec::with_capacity(CHUNK)).await;
    match result {
        wit_bindgen::StreamResult::Complete(_) => Some(chunk),
        _ if chunk.is_empty() => None,
        _ => Some(chunk),
    }
}

async fn sleep_ms(ms: u64) {
    monotonic_clock::wait_for(ms * 1_000_000).await;
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
