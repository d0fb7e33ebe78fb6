//! A bulk redrive: which executions, and what became of them.
//!
//! **Invariant:** says no more than it must: state is named always, for redriving by mistake is dear.

use bytes::{BufMut, Bytes, BytesMut};

use super::fields::Fields;
use super::json::{List, Object};
use super::query::{moment, span};
use super::spec::object;
use super::{cursor, version::version_field};
use crate::api::error::{Error, quoted};
use crate::model::{FunctionName, Timestamp};
use crate::scheduler::{Failed, Redrive, RedriveMode, Redriven};

/// Executions that one call redrives unless it says otherwise.
const LIMIT_DEFAULT: u32 = 1_000;
/// Executions that one call redrives at most.
const LIMIT_MAX: u32 = 10_000;
/// Executions that a dry run counts at most, which is also what it counts unless it says otherwise.
const DRY_RUN_LIMIT_MAX: u32 = 100_000;
/// Longest time and cursor, in bytes.
const TEXT_BYTES_MAX: usize = 128;

/// Reads what to redrive of a function.
///
/// # Errors
/// 400 with all complaints.
pub(in crate::api) fn redrive(function: FunctionName, body: &Bytes) -> Result<Redrive, Error> {
    let object = object(body)?;
    let mut complaints = Vec::new();
    let mut fields = Fields::new(object, &mut complaints);
    let words = [("error", Failed::Error), ("timeout", Failed::Timeout)];
    // What is given and wrong has a complaint of its own.
    let is_given = fields.has("status");
    let failed = fields.word("status", &words);
    if !is_given {
        fields.complain("status", "is needed: error or timeout");
    }
    let since = time(&mut fields, "since");
    let until = time(&mut fields, "until");
    let version = version_field(&mut fields);
    let mode = match fields.flag("dryRun") {
        Some(true) => RedriveMode::DryRun,
        Some(false) | None => RedriveMode::Redrive,
    };
    let (limit_default, limit_max) = match mode {
        RedriveMode::DryRun => (DRY_RUN_LIMIT_MAX, DRY_RUN_LIMIT_MAX),
        RedriveMode::Redrive => (LIMIT_DEFAULT, LIMIT_MAX),
    };
    let limit = fields.small_number("limit", &(1..=limit_max.into()));
    let given = fields.text("cursor", TEXT_BYTES_MAX);
    for name in fields.left() {
        let known = "status, since, until, version, dryRun, limit and cursor";
        fields.complain(
            &quoted(&name),
            format_args!("there is no such field: there are {known}"),
        );
    }
    complaints.extend(span(since, until).err());
    let mut redrive = Redrive {
        function,
        failed: failed.unwrap_or(Failed::Error),
        since,
        until,
        after: None,
        version,
        limit: limit.unwrap_or(limit_default),
        mode,
    };
    if let Some(given) = given
        && complaints.is_empty()
    {
        match cursor::read(&given, &redrive.filter()) {
            Ok(after) => redrive.after = Some(after),
            Err(complaint) => complaints.push(complaint),
        }
    }
    if complaints.is_empty() {
        Ok(redrive)
    } else {
        Err(Error::invalid(complaints))
    }
}

fn time(fields: &mut Fields<'_>, name: &str) -> Option<Timestamp> {
    let text = fields.text(name, TEXT_BYTES_MAX)?;
    match moment(name, &text) {
        Ok(time) => Some(time),
        Err(complaint) => {
            let complaint = complaint.trim_start_matches(name).trim_start_matches(": ");
            fields.complain(name, complaint);
            None
        }
    }
}

/// What became of it.
pub(in crate::api) fn redriven(redrive: &Redrive, redriven: &Redriven) -> Bytes {
    let mut buffer = BytesMut::with_capacity(640);
    let mut answer = Object::open(&mut buffer);
    answer.flag("dryRun", redrive.mode == RedriveMode::DryRun);
    answer.number("redriven", redriven.redriven);
    answer.number("inputNotKept", redriven.input_not_kept);
    answer.number("skipped", redriven.skipped);
    let mut sample = List::open(answer.member("sample"));
    for id in &redriven.sample {
        let item = sample.item();
        item.put_u8(b'"');
        item.put_slice(id.to_string().as_bytes());
        item.put_u8(b'"');
    }
    sample.close();
    let next = redriven
        .next
        .map(|last| cursor::after(&redrive.filter(), last));
    answer.text_or_null("next", next.as_deref());
    answer.close();
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ExecutionId, VersionNumber};

    fn parse(body: &str) -> Result<Redrive, Error> {
        let name = "echo".parse().unwrap();
        redrive(name, &Bytes::copy_from_slice(body.as_bytes()))
    }

    #[track_caller]
    fn refused(body: &str, expected: &str) {
        let error = format!("{:?}", parse(body).unwrap_err());
        assert!(error.contains(expected), "{body}: {error}");
    }

    #[test]
    fn it_says_which_and_how() {
        let least = parse(r#"{"status": "error"}"#).unwrap();
        assert_eq!((least.failed, least.limit), (Failed::Error, 1_000));
        assert_eq!(least.mode, RedriveMode::Redrive);
        assert_eq!((least.since, least.version), (None, None));
        let most = r#"{"status": "timeout", "since": "2026-09-01T12:00:00Z", "until": "2026-09-02T12:00:00Z",
            "version": 3, "dryRun": true, "limit": 7, "cursor": null}"#;
        let most = parse(most).unwrap();
        assert_eq!((most.failed, most.limit), (Failed::Timeout, 7));
        assert_eq!(most.mode, RedriveMode::DryRun);
        assert_eq!(most.version, Some(VersionNumber(3)));
        assert_eq!(most.since, Some(Timestamp(1_788_264_000_000)));
        let counted = parse(r#"{"status": "error", "dryRun": true}"#).unwrap();
        assert_eq!(counted.limit, 100_000);
    }

    #[test]
    fn what_is_wrong_is_told_all_at_once() {
        refused("{}", "status: is needed: error or timeout");
        refused(r#"{"status": "success"}"#, "must be one of error, timeout");
        refused(
            r#"{"status": "error", "limit": 10001}"#,
            "from 1 to 10000, not 10001",
        );
        refused(
            r#"{"status": "error", "sinc": 1}"#,
            "there is no such field",
        );
        refused(
            r#"{"status": "error", "since": "2026-09-01T12:00:00Z", "until": "2026-09-01T12:00:00Z"}"#,
            "later than since",
        );
        refused(
            r#"{"status": "error", "cursor": "AAAA"}"#,
            "must be the `next` of a page",
        );
        let error = format!(
            "{:?}",
            parse(r#"{"status": 1, "since": "x", "dryRun": 1}"#).unwrap_err()
        );
        assert!(error.contains("there are 3 mistakes"), "{error}");
        assert!(error.contains("\"since: must be a time like"), "{error}");
    }

    #[test]
    fn a_cursor_goes_on_with_its_own_redrive() {
        let first = parse(r#"{"status": "error", "limit": 2}"#).unwrap();
        let id = ExecutionId::from_bytes([7; 16]);
        let answer = Redriven {
            redriven: 2,
            sample: vec![id],
            next: Some(id),
            ..Redriven::default()
        };
        let answer: serde_json::Value = serde_json::from_slice(&redriven(&first, &answer)).unwrap();
        assert_eq!(answer["redriven"], 2);
        assert_eq!(answer["sample"][0], id.to_string());
        let cursor = answer["next"].as_str().unwrap();
        let next = parse(&format!(r#"{{"status": "error", "cursor": "{cursor}"}}"#));
        assert_eq!(next.unwrap().after, Some(id));
        refused(
            &format!(r#"{{"status": "timeout", "cursor": "{cursor}"}}"#),
            "belongs to another query",
        );
    }
}
