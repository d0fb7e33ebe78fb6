//! Receives wasm: as the whole body, or as a part beside a spec or a patch of the one that stands.
//!
//! **Invariant:** the bytes of all uploads under way are bounded together; one that says that it does not fit is
//! refused before it is read.

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::Limited;
use serde_json::{Map, Value};

use super::error::{Error, quoted};
use super::guard::{Bounds, Budget, NoRoom, Room, content_type, read, stated_length, within};
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
    if found.as_deref() == Some(WASM) {
        let bounds = Bounds {
            what,
            limit,
            timeout: options.body_timeout,
            budget: &state.uploads,
            busy: Error::uploads_busy,
        };
        let (wasm, room) = read(request, bounds).await?;
        let said = Said::Nothing;
        return Ok((Upload { wasm, said }, room));
    }
    let stated = stated_length(request.headers(), request.body(), what, limit)?;
    let free = state.uploads.check(stated.unwrap_or(0));
    free.map_err(|NoRoom| Error::uploads_busy())?;
    let parts = parts(request, options, limit, &state.uploads);
    within(options.body_timeout, parts).await?
}

/// Reads the parts `wasm` and `spec` or `patch`.
async fn parts(
    request: Request,
    options: &Options,
    limit: usize,
    budget: &Budget,
) -> Result<(Upload, Room), Error> {
    let mut room = Taken {
        budget,
        bytes: 0,
        room: Room::default(),
    };
    let mut request = request.map(|body| Body::new(Limited::new(body, limit)));
    // axum's own limit of two megabytes would come first.
    DefaultBodyLimit::disable().apply(&mut request);
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
                wasm =
                    Some(part(field, "the part wasm", options.upload_bytes_max, &mut room).await?);
            }
            "spec" if spec.is_none() => {
                let what = "the part spec";
                let text = part(field, what, options.body_bytes_max, &mut room).await?;
                spec = Some(wire::object_of(what, &text)?);
            }
            "patch" if patch.is_none() => {
                let what = "the part patch";
                let text = part(field, what, options.body_bytes_max, &mut room).await?;
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
        Some(wasm) => Ok((Upload { wasm, said }, room.room)),
        None => Err(Error::invalid_field(
            "wasm",
            "this part is needed; PATCH changes a spec without code",
        )),
    }
}

/// The room that the parts of one upload take so far.
struct Taken<'a> {
    budget: &'a Budget,
    bytes: usize,
    room: Room,
}

impl Taken<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes);
        let grown = self.budget.grow(&mut self.room, self.bytes);
        grown.map_err(|NoRoom| Error::uploads_busy())
    }
}

async fn part(
    mut field: Field<'_>,
    what: &str,
    limit: usize,
    room: &mut Taken<'_>,
) -> Result<Bytes, Error> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = field
        .chunk()
        .await
        .map_err(|error| unreadable(&error, limit))?
    {
        if bytes.len() + chunk.len() > limit {
            return Err(Error::too_large(what, limit));
        }
        room.add(chunk.len())?;
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
