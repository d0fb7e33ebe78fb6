//! The body and the answer of a drain.
//!
//! **Invariant:** an empty body is all defaults; an unknown field is told, since a drain that did something
//! else than asked would be worse than none.

use bytes::{Bytes, BytesMut};
use serde_json::Map;

use super::fields::Fields;
use super::json::{List, Object};
use super::spec::object;
use crate::api::error::{Error, quoted};
use crate::scheduler::{DrainOptions, Drained, Finalized};

/// Dispatches of one drain, at most.
const LIMIT: std::ops::RangeInclusive<u64> = 1..=10_000;

/// Reads how to drain.
///
/// # Errors
/// 400 with all complaints.
pub(in crate::api) fn drain_options(body: &Bytes) -> Result<DrainOptions, Error> {
    let object = if body.trim_ascii().is_empty() {
        Map::new()
    } else {
        object(body)?
    };
    let mut complaints = Vec::new();
    let mut fields = Fields::new(object, &mut complaints);
    let options = DrainOptions {
        limit: fields.small_number("limit", &LIMIT),
        respect_schedule: fields.flag("respectSchedule").unwrap_or(false),
        recursive: fields.flag("recursive").unwrap_or(false),
    };
    for name in fields.left() {
        let known = "there are limit, respectSchedule and recursive";
        fields.complain(
            &quoted(&name),
            format_args!("there is no such field: {known}"),
        );
    }
    if complaints.is_empty() {
        Ok(options)
    } else {
        Err(Error::invalid(complaints))
    }
}

/// What a drain did, as JSON; the id and status at the top are those of the last dispatch.
pub(in crate::api) fn drain_answer(drained: &Drained) -> Bytes {
    let mut buffer = BytesMut::with_capacity(128 + 96 * drained.items.len());
    let mut answer = Object::open(&mut buffer);
    answer.flag("dispatched", !drained.items.is_empty());
    answer.number("count", drained.items.len() as u64);
    match drained.items.last() {
        Some(last) => put(&mut answer, last),
        None => {
            answer.null("executionId");
            answer.null("status");
        }
    }
    if drained.busy {
        answer.plain("reason", "BUSY");
    }
    let mut items = List::open(answer.member("items"));
    for item in &drained.items {
        let mut object = Object::open(items.item());
        put(&mut object, item);
        object.close();
    }
    items.close();
    answer.close();
    buffer.freeze()
}

fn put(object: &mut Object<'_>, item: &Finalized) {
    object.plain("executionId", &item.execution_id.to_string());
    object.plain("status", item.status.as_str());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::Status;
    use crate::model::ExecutionId;

    #[test]
    fn every_field_may_be_left_out() {
        let options = |body: &str| drain_options(&Bytes::copy_from_slice(body.as_bytes()));
        assert_eq!(options("").unwrap(), DrainOptions::default());
        assert_eq!(options("{}").unwrap(), DrainOptions::default());
        assert_eq!(
            options(r#"{"limit":null}"#).unwrap(),
            DrainOptions::default()
        );
        let all = options(r#"{"limit":3,"respectSchedule":true,"recursive":true}"#).unwrap();
        let expected = DrainOptions {
            limit: Some(3),
            respect_schedule: true,
            recursive: true,
        };
        assert_eq!(all, expected);
        for bad in [
            r#"{"limit":0}"#,
            r#"{"limt":1}"#,
            r#"{"recursive":1}"#,
            "[]",
            "x",
        ] {
            assert!(options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_answer_names_every_dispatch() {
        let item = |byte, status| Finalized {
            execution_id: ExecutionId::from_bytes([byte; 16]),
            status,
        };
        let drained = Drained {
            items: vec![item(1, Status::Success), item(2, Status::Queued)],
            busy: false,
        };
        let text = |drained: &Drained| String::from_utf8(drain_answer(drained).to_vec()).unwrap();
        assert_eq!(
            text(&drained),
            r#"{"dispatched":true,"count":2,"executionId":"02020202-0202-0202-0202-020202020202","status":"queued","items":[{"executionId":"01010101-0101-0101-0101-010101010101","status":"success"},{"executionId":"02020202-0202-0202-0202-020202020202","status":"queued"}]}"#
        );
        let busy = Drained {
            items: Vec::new(),
            busy: true,
        };
        assert_eq!(
            text(&busy),
            r#"{"dispatched":false,"count":0,"executionId":null,"status":null,"reason":"BUSY","items":[]}"#
        );
    }
}
