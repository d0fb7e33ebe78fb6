//! Receives wasm: as the whole body, or as a part beside a spec or a patch of the one that stands.
//!
//! **Invariant:** the bytes of all uploads under way are bounded together; one that does not fit is refused
//! before it is read.

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::Limited;
use serde_json::{Map, Value};

use super::error::{Error, quoted};
use super::guard::{Budget, Room, content_type, read_within, stated_length, within};
use super::options::Options;
use super::{State, wire};

/// Room that a multipart body has beside its parts, in bytes.
const MULTIPART_BYTES: usize = 64 * 1024;

const WASM: &str = "application/wasm";
const MULTIPART: &str = "multipart/form-data";

/// The memory that uploads may take together; one upload of the largest size always fits.
pub(super) fn budget(options: &Options) -> Budget {
    Budget::new(
        options.upload_bytes_in_flight_max,
        largest_multipart(options),
    )
}

fn take(budget: &Budget, bytes: usize) -> Result<Room, Error> {
    budget.take(bytes).ok_or_else(Error::uploads_busy)
}

/// The largest body that a multipart upload may have.
fn largest_multipart(options: &Options) -> usize {
    options
        .upload_bytes_max
        .saturating_add(options.body_bytes_max)
        .saturating_add(MULTIPART_BYTES)
}

/// What was uploaded.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) wasm: Bytes,
    pub(super) said: Said,
}

/// What an upload says of the spec.
#[derive(Debug)]
pub(super) enum Said {
    /// Nothing: it stays as it is.
    Nothing,
    /// All of it.
    Spec(Map<String, Value>),
    /// What changes of it: a JSON merge patch.
    Patch(Map<String, Value>),
}

/// Receives an upload. The permit goes when its bytes go.
///
/// # Errors
/// 415, 413, 408, 503 where too many are under way, and 400 where it cannot be read.
pub(super) async fn receive(state: &State, request: Request) -> Result<(Upload, Room), Error> {
    let options = &state.options;
    let found = content_type(request.headers());
    let (what, limit) = match found.as_deref() {
        Some(WASM) => ("the file", options.upload_bytes_max),
        Some(MULTIPART) => ("the upload", largest_multipart(options)),
        found => {
            let expected = format!("{WASM} or {MULTIPART}");
            return Err(Error::unsupported_type(&expected, found));
        }
    };
    let stated = stated_length(request.headers(), request.body(), what, limit)?;
    let permit = take(&state.uploads, stated.unwrap_or(limit))?;
    let upload = if found.as_deref() == Some(WASM) {
        let wasm = read_within(request, what, limit, options.body_timeout).await?;
        let said = Said::Nothing;
        Upload { wasm, said }
    } else {
        within(options.body_timeout, parts(request, options, limit)).await??
    };
    Ok((upload, permit))
}

/// Reads the parts `wasm` and `spec` or `patch`.
async fn parts(request: Request, options: &Options, limit: usize) -> Result<Upload, Error> {
    let request = request.map(|body| Body::new(Limited::new(body, limit)));
    let mut multipart = Multipart::from_request(request, &())
        .await
        .map_err(|rejection| Error::bad_request(rejection.body_text()))?;
    let (mut wasm, mut spec, mut patch) = (None, None, None);
    while let Some(field) = multipart
        .next_field()
        .await
        .map_err(|error| unreadable(&error, limit))?
    {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "wasm" if wasm.is_none() => {
                wasm = Some(part(field, "the part wasm", options.upload_bytes_max).await?);
            }
            "spec" if spec.is_none() => {
                let what = "the part spec";
                let text = part(field, what, options.body_bytes_max).await?;
                spec = Some(wire::object_of(what, &text)?);
            }
            "patch" if patch.is_none() => {
                let what = "the part patch";
                let text = part(field, what, options.body_bytes_max).await?;
                patch = Some(wire::object_of(what, &text)?);
            }
            "wasm" | "spec" | "patch" => {
                return Err(Error::invalid_field(
                    &name,
                    "there is more than one part of this name",
                ));
            }
            _ => {
                let complaint = "there is no such part: there are wasm, spec and patch (JSON)";
                return Err(Error::invalid_field(&quoted(&name), complaint));
            }
        }
    }
    let said = match (spec, patch) {
        (None, None) => Said::Nothing,
        (Some(spec), None) => Said::Spec(spec),
        (None, Some(patch)) => Said::Patch(patch),
        (Some(_), Some(_)) => {
            let complaint = "either this part or spec is given, not both";
            return Err(Error::invalid_field("patch", complaint));
        }
    };
    match wasm {
        Some(wasm) => Ok(Upload { wasm, said }),
        None => Err(Error::invalid_field(
            "wasm",
            "this part is needed; PATCH changes a spec without code",
        )),
    }
}

async fn part(mut field: Field<'_>, what: &str, limit: usize) -> Result<Bytes, Error> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = field
        .chunk()
        .await
        .map_err(|error| unreadable(&error, limit))?
    {
        if bytes.len() + chunk.len() > limit {
            return Err(Error::too_large(what, limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn unreadable(error: &MultipartError, limit: usize) -> Error {
    if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        Error::too_large("the upload", limit)
    } else {
        Error::bad_request(format!("the parts cannot be read: {}", error.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_share_one_budget() {
        let options = Options {
            upload_bytes_max: 10_000,
            body_bytes_max: 1_000,
            upload_bytes_in_flight_max: 100_000,
            ..Options::default()
        };
        let budget = budget(&options);
        let first = budget.take(60_000).unwrap();
        assert!(budget.take(60_000).is_none());
        let small = budget.take(10).unwrap();
        drop(first);
        assert!(budget.take(60_000).is_some());
        drop(small);
        assert!(budget.take(usize::MAX).is_some(), "one always fits");
    }
}
