//! One call from the host: reads the whole request, writes the whole answer.
//!
//! **Invariant:** an answer is set once, whatever the caller does meanwhile: one that hangs up ends the writing.

use std::io::{Read as _, Write};

use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

use crate::{BODY_BYTES_MAX, Request, Response};

/// Answers one request.
pub fn serve(
    answer: impl FnOnce(&Request) -> Response,
    request: IncomingRequest,
    out: ResponseOutparam,
) {
    let response = match read(request) {
        Ok(request) => answer(&request),
        Err(refusal) => refusal,
    };
    write(response, out);
}

fn read(incoming: IncomingRequest) -> Result<Request, Response> {
    let headers = incoming.headers().entries().into_iter();
    let headers = headers
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(&value).into_owned();
            (name.to_ascii_lowercase(), value)
        })
        .collect();
    Ok(Request {
        method: method(incoming.method()),
        target: incoming.path_with_query().unwrap_or_default(),
        headers,
        body: body(&incoming)?,
    })
}

fn body(incoming: &IncomingRequest) -> Result<Vec<u8>, Response> {
    let broken = |_| {
        Response::refusal(
            400,
            "BODY_UNREADABLE",
            "the body could not be read to its end",
        )
    };
    let body = incoming.consume().map_err(broken)?;
    let stream = body.stream().map_err(broken)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
    let mut limited = stream.take(limit.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(|_| broken(()))?;
    if bytes.len() > BODY_BYTES_MAX {
        let message = format!("the body may have {BODY_BYTES_MAX} bytes");
        return Err(Response::refusal(413, "BODY_TOO_LARGE", &message));
    }
    Ok(bytes)
}

fn write(response: Response, out: ResponseOutparam) {
    let length = response.body.len().to_string();
    let names = response.headers.iter();
    let mut headers: Vec<(String, Vec<u8>)> = names
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    if response.status != 204 && response.status != 304 {
        headers.push(("content-length".to_owned(), length.into_bytes()));
    }
    let Ok(headers) = Fields::from_list(&headers) else {
        let why = Some("the function named a header that must not be sent".to_owned());
        return ResponseOutparam::set(out, Err(ErrorCode::InternalError(why)));
    };
    let outgoing = OutgoingResponse::new(headers);
    // A status that is none stays at 200; this crate's users know theirs.
    let _ = outgoing.set_status_code(response.status);
    let Ok(body) = outgoing.body() else {
        return ResponseOutparam::set(out, Ok(outgoing));
    };
    ResponseOutparam::set(out, Ok(outgoing));
    if let Ok(mut stream) = body.write() {
        // Whoever asked may be gone: then nobody reads the rest.
        let _ = stream.write_all(&response.body);
        let _ = Write::flush(&mut stream);
    }
    let _ = OutgoingBody::finish(body, None);
}

fn method(method: Method) -> String {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(other) => return other,
    }
    .to_owned()
}
