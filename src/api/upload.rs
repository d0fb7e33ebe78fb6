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
use crate::model::{FunctionName, Spec};

/// Room that a multipart body has beside its parts, in bytes.
const MULTIPART_BYTES: usize = 64 * 1024;

/// Parts that cannot be used before the rest of an upload is not read any more.
const PART_COMPLAINTS_MAX: usize = 16;

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

/// What was uploaded, and what there is to complain of in its parts.
#[derive(Debug)]
pub(super) struct Received {
    wasm: Option<Bytes>,
    said: Said,
    complaints: Vec<String>,
    /// A part that is no JSON object at all.
    unreadable: Option<Error>,
}

impl Received {
    fn file(wasm: Bytes) -> Self {
        Self {
            wasm: Some(wasm),
            said: Said::Nothing,
            complaints: Vec::new(),
            unreadable: None,
        }
    }

    /// The upload for a function of this name; `base` is the spec that stands.
    ///
    /// # Errors
    /// 400 with all complaints: of the name, of the parts, and of what they say.
    pub(super) fn of(
        self,
        name: Result<FunctionName, String>,
        base: impl FnOnce(&FunctionName) -> Spec,
    ) -> Result<(FunctionName, Upload), Error> {
        let mut complaints = Vec::new();
        let name = name.map_err(|why| complaints.push(format!("name: {why}")));
        complaints.extend(self.complaints);
        match (name, self.wasm, self.unreadable) {
            (Ok(name), Some(wasm), None) if complaints.is_empty() => {
                let said = self.said;
                Ok((name, Upload { wasm, said }))
            }
            (Ok(_), Some(_), Some(unreadable)) if complaints.is_empty() => Err(unreadable),
            (name, _, unreadable) => {
                complaints.extend(unreadable.map(Error::into_message));
                let name = name.as_ref().ok();
                let spec = match self.said {
                    Said::Nothing => Ok(Spec::default()),
                    Said::Spec(spec) => wire::spec_of(spec, name),
                    Said::Patch(patch) => {
                        let base = name.map(base).unwrap_or_default();
                        wire::patched_with_code(&base, patch, name)
                    }
                };
                complaints.extend(spec.err().into_iter().flatten());
                Err(Error::invalid(complaints))
            }
        }
    }
}

/// An upload that can be deployed.
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

/// Whether a request has nothing to complain of but the name: its body is the file.
pub(super) fn is_file(request: &Request) -> bool {
    content_type(request.headers()).as_deref() != Some(MULTIPART)
}

/// Receives an upload. The permit goes when its bytes go.
///
/// # Errors
/// 415, 413, 408, 503 where too many are under way, and 400 where it cannot be read.
pub(super) async fn receive(state: &State, request: Request) -> Result<(Received, Room), Error> {
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
        return Ok((Received::file(wasm), room));
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
) -> Result<(Received, Room), Error> {
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
    let (mut complaints, mut unreadable) = (Vec::new(), None);
    while let Some(field) = multipart
        .next_field()
        .await
        .map_err(|error| unreadable_parts(&error, limit))?
    {
        let name = field.name().unwrap_or_default().to_owned();
        let (what, into) = match name.as_str() {
            "wasm" if wasm.is_none() => {
                let what = "the part wasm";
                wasm = Some(part(field, what, options.upload_bytes_max, &mut room).await?);
                continue;
            }
            "spec" if spec.is_none() => ("the part spec", &mut spec),
            "patch" if patch.is_none() => ("the part patch", &mut patch),
            _ => {
                complaints.push(wrong_part(&name));
                // A body may have room for a million parts.
                if complaints.len() >= PART_COMPLAINTS_MAX {
                    return Err(Error::invalid(complaints));
                }
                continue;
            }
        };
        let text = part(field, what, options.body_bytes_max, &mut room).await?;
        let object = wire::object_of(what, &text);
        *into = Some(object.unwrap_or_else(|error| {
            unreadable.get_or_insert(error);
            Map::new()
        }));
    }
    if wasm.is_none() {
        complaints.push("wasm: this part is needed; PATCH changes a spec without code".to_owned());
    }
    let said = match (spec, patch) {
        (None, None) => Said::Nothing,
        (Some(spec), None) => Said::Spec(spec),
        (None, Some(patch)) => Said::Patch(patch),
        (Some(spec), Some(_)) => {
            complaints.push("patch: either this part or spec is given, not both".to_owned());
            Said::Spec(spec)
        }
    };
    let received = Received {
        wasm,
        said,
        complaints,
        unreadable,
    };
    Ok((received, room.room))
}

/// What there is to say of a part that there is already, or never.
fn wrong_part(name: &str) -> String {
    match name {
        "wasm" | "spec" | "patch" => format!("{name}: there is more than one part of this name"),
        _ => {
            let complaint = "there is no such part: there are wasm, spec and patch (JSON)";
            format!("{}: {complaint}", quoted(name))
        }
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
        .map_err(|error| unreadable_parts(&error, limit))?
    {
        if bytes.len() + chunk.len() > limit {
            return Err(Error::too_large(what, limit));
        }
        room.add(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn unreadable_parts(error: &MultipartError, limit: usize) -> Error {
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
