//! Cursors: where a page of executions ended.
//!
//! A cursor carries that place and a digest of what was asked for, so that it cannot be used to go on with
//! another list than the one it came from.
//!
//! **Invariant:** any text is judged without a panic; a cursor reads back as the place it was made of, and
//! only with its own list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::execution::Status;
use crate::model::{ExecutionId, Timestamp};
use crate::store::{Filter, Order};

const FORMAT: u8 = 2;
const DIGEST_BYTES: usize = 8;

/// The cursor that goes on with this list after this execution.
pub(super) fn after(filter: &Filter, last: ExecutionId) -> String {
    let mut bytes = vec![FORMAT];
    bytes.extend(digest(filter));
    bytes.extend(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where the page before ended.
///
/// # Errors
/// A complaint, if this is no cursor, or one of another list.
pub(super) fn read(text: &str, filter: &Filter) -> Result<ExecutionId, String> {
    let unreadable = || "cursor: must be the `next` of a page, as it was given".to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable())?;
    let (format, rest) = bytes.split_first().ok_or_else(unreadable)?;
    let (found, id) = rest
        .split_first_chunk::<DIGEST_BYTES>()
        .ok_or_else(unreadable)?;
    let id = id.try_into().map_err(|_| unreadable())?;
    if *format != FORMAT {
        return Err(unreadable());
    }
    if *found != digest(filter) {
        return Err(
            "cursor: belongs to another query: function, status, since and until must stay the same"
                .to_owned(),
        );
    }
    Ok(ExecutionId::from_bytes(id))
}

/// What was asked for, the place in it apart.
fn digest(filter: &Filter) -> [u8; DIGEST_BYTES] {
    let function = filter.function.as_ref().map_or("", |name| name.as_str());
    let status = filter.status.map_or("", Status::as_str);
    let time = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time.0.to_string());
    let (since, until) = (time(filter.since), time(filter.until));
    let order = match filter.order {
        Order::NewestFirst => "",
        Order::OldestFirst => "oldest first",
    };
    // None of them can contain a line end.
    let digest = Sha256::digest(format!("{function}\n{status}\n{since}\n{until}\n{order}"));
    let mut short = [0; DIGEST_BYTES];
    short
        .iter_mut()
        .zip(digest)
        .for_each(|(short, byte)| *short = byte);
    short
}
