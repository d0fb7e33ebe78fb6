//! Where a request's body ends, for everybody on the way alike.
//!
//! A body in chunks that are the last of several codings is cut as its chunks say, and what is in them is not what its
//! sender meant: nobody here undoes another coding. Two servers that read such a head differently cut the bytes behind
//! it differently.
//!
//! **Invariant:** a request that is answered as asked has a length, or one coding, which is `chunked`.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::TRANSFER_ENCODING;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::Either;
use tower::Service;

use crate::api::error::Error;

/// A service that gets only requests of which it is clear where they end.
#[derive(Clone)]
pub(in crate::api) struct Framed<S>(pub(in crate::api) S);

impl<S: Service<Request, Response = Response>> Service<Request> for Framed<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match is_framed(request.headers()) {
            true => Either::Right(self.0.call(request)),
            false => Either::Left(ready(Ok(Error::transfer_coding().into_response()))),
        }
    }
}

fn is_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return true;
    };
    let coding = coding.as_bytes().trim_ascii();
    coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn one_coding_is_chunked_or_none() {
        let of = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            is_framed(&headers)
        };
        for good in [&[][..], &["chunked"], &["Chunked "]] {
            assert!(of(good), "{good:?}");
        }
        for bad in [
            &["gzip, chunked"][..],
            &["xx", "chunked"],
            &["chunked", "chunked"],
            &["chunked, chunked"],
            &[", chunked"],
            &["identity"],
            &["chunked;a=b"],
            &[""],
        ] {
            assert!(!of(bad), "{bad:?}");
        }
    }
}
