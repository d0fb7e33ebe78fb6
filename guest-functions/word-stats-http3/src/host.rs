//! Between the streams of `wasi:http` 0.3 and a function from a request to an answer.
//!
//! **Invariant:** the head of the answer goes out before its body, which a task of its own writes.

use pelton_guest_http::{BODY_BYTES_MAX, Request, Response};
use wasip3::http::types::{self, ErrorCode, Fields, Method};
use wasip3::wit_bindgen::{self, StreamReader, StreamResult};
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Function);

struct Function;

impl wasip3::exports::http::handler::Guest for Function {
    async fn handle(request: types::Request) -> Result<types::Response, ErrorCode> {
        let response = match read(request).await? {
            Ok(request) => words::web::answer(&request),
            Err(refusal) => refusal,
        };
        write(response)
    }
}

async fn read(incoming: types::Request) -> Result<Result<Request, Response>, ErrorCode> {
    let headers = incoming.get_headers().copy_all().into_iter();
    let headers = headers
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(&value).into_owned();
            (name.to_ascii_lowercase(), value)
        })
        .collect();
    let method = match incoming.get_method() {
        Method::Post => "POST".to_owned(),
        other => format!("{other:?}"),
    };
    let target = incoming.get_path_with_query().unwrap_or_default();
    let (done, result) = wit_future::new(|| Ok(()));
    drop(done);
    let (stream, trailers) = types::Request::consume_body(incoming, result);
    let Some(body) = collect(stream).await else {
        let message = format!("the body may have {BODY_BYTES_MAX} bytes");
        return Ok(Err(Response::refusal(413, "BODY_TOO_LARGE", &message)));
    };
    // A body that broke off is known by this alone.
    trailers.await?;
    Ok(Ok(Request {
        method,
        target,
        headers,
        body,
    }))
}

/// The whole body, unless it is too large.
async fn collect(mut stream: StreamReader<u8>) -> Option<Vec<u8>> {
    const CHUNK_BYTES: usize = 16 * 1024;
    let mut body = Vec::new();
    loop {
        body.reserve(CHUNK_BYTES);
        let (result, read) = stream.read(body).await;
        body = read;
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        match result {
            StreamResult::Complete(_) => {}
            StreamResult::Dropped | StreamResult::Cancelled => return Some(body),
        }
    }
}

fn write(response: Response) -> Result<types::Response, ErrorCode> {
    let mut headers: Vec<(String, Vec<u8>)> = response
        .headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let length = response.body.len().to_string().into_bytes();
    headers.push(("content-length".to_owned(), length));
    let headers = Fields::from_list(&headers)
        .map_err(|error| ErrorCode::InternalError(Some(format!("a bad header: {error:?}"))))?;
    let (mut body, contents) = wit_stream::new();
    let (ended, trailers) = wit_future::new(|| Ok(None));
    let (outgoing, _sent) = types::Response::new(headers, Some(contents), trailers);
    // A status that is none stays at 200; this crate's users know theirs.
    let _ = outgoing.set_status_code(response.status);
    wit_bindgen::spawn_local(async move {
        // What is left over was not wanted: whoever asked is gone.
        let _unwanted = body.write_all(response.body.into_owned()).await;
        drop(body);
        drop(ended);
    });
    Ok(outgoing)
}
