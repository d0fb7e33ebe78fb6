//! The query of a list of executions, and its cursors.
//!
//! A cursor carries the place where a page ended and a digest of the filter, so that it cannot be used to
//! go on with another list than the one it came from.
//!
//! **Invariant:** an unknown parameter, one given twice and a foreign cursor are told, never passed over.

use std::collections::HashSet;

use axum::extract::Query;
use axum::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::time;
use crate::api::error::{Error, quoted};
use crate::api::options::Options;
use crate::execution::Status;
use crate::model::ExecutionId;
use crate::store::Filter;

const CURSOR_FORMAT: u8 = 1;
const FILTER_DIGEST_BYTES: usize = 8;

/// Which executions to list, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct ListQuery {
    /// Which; `before` is where the page before ended.
    pub(in crate::api) filter: Filter,
    /// How many at most.
    pub(in crate::api) limit: u32,
}

impl ListQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 with all complaints.
    pub(in crate::api) fn parse(uri: &Uri, options: &Options) -> Result<Self, Error> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Error::bad_request("the query cannot be read"))?;
        let mut complaints = Vec::new();
        let mut filter = Filter::default();
        let mut limit = options.list_limit_default;
        let mut cursor = None;
        let mut seen = HashSet::new();
        for (name, value) in &pairs {
            if !seen.insert(name) {
                complaints.push(format!("{}: is given more than once", quoted(name)));
                continue;
            }
            let read = match name.as_str() {
                "function" => function(value).map(|name| filter.function = Some(name)),
                "status" => status(value).map(|status| filter.status = Some(status)),
                "since" => since(value).map(|since| filter.since = Some(since)),
                "limit" => read_limit(value, options.list_limit_max).map(|read| limit = read),
                "cursor" => {
                    cursor = Some(value);
                    Ok(())
                }
                _ => {
                    let known = "there are function, status, since, limit and cursor";
                    Err(format!(
                        "{}: there is no such parameter: {known}",
                        quoted(name)
                    ))
                }
            };
            complaints.extend(read.err());
        }
        if let Some(cursor) = cursor
            && complaints.is_empty()
        {
            match read_cursor(cursor, &filter) {
                Ok(before) => filter.before = Some(before),
                Err(complaint) => complaints.push(complaint),
            }
        }
        if complaints.is_empty() {
            Ok(Self { filter, limit })
        } else {
            Err(Error::invalid(complaints))
        }
    }

    /// The cursor that goes on after this execution.
    pub(in crate::api) fn cursor_after(&self, last: ExecutionId) -> String {
        let mut bytes = vec![CURSOR_FORMAT];
        bytes.extend(filter_digest(&self.filter));
        bytes.extend(last.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

fn function(value: &str) -> Result<crate::model::FunctionName, String> {
    value.parse().map_err(|error| format!("function: {error}"))
}

fn status(value: &str) -> Result<Status, String> {
    Status::parse(value).ok_or_else(|| {
        let words = Status::ALL.map(Status::as_str).join(", ");
        format!("status: must be one of {words}, not {}", quoted(value))
    })
}

fn since(value: &str) -> Result<crate::model::Timestamp, String> {
    time::parse(value).ok_or_else(|| {
        let example = "2026-09-01T12:00:00Z";
        format!(
            "since: must be a time like {example}, not {}",
            quoted(value)
        )
    })
}

fn read_limit(value: &str, max: u32) -> Result<u32, String> {
    let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| {
        format!(
            "limit: must be a whole number from 1 to {max}, not {}",
            quoted(value)
        )
    })
}

fn read_cursor(text: &str, filter: &Filter) -> Result<ExecutionId, String> {
    let unreadable = || "cursor: must be the `next` of a page, as it was given".to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable())?;
    let (format, rest) = bytes.split_first().ok_or_else(unreadable)?;
    let (digest, id) = rest
        .split_first_chunk::<FILTER_DIGEST_BYTES>()
        .ok_or_else(unreadable)?;
    let id = id.try_into().map_err(|_| unreadable())?;
    if *format != CURSOR_FORMAT {
        return Err(unreadable());
    }
    if *digest != filter_digest(filter) {
        return Err(
            "cursor: belongs to another query: function, status and since must stay the same"
                .to_owned(),
        );
    }
    Ok(ExecutionId::from_bytes(id))
}

fn filter_digest(filter: &Filter) -> [u8; FILTER_DIGEST_BYTES] {
    let function = filter.function.as_ref().map_or("", |name| name.as_str());
    let status = filter.status.map_or("", Status::as_str);
    let since = filter
        .since
        .map_or_else(String::new, |since| since.0.to_string());
    // None of the three can contain a line end.
    let digest = Sha256::digest(format!("{function}\n{status}\n{since}"));
    let mut short = [0; FILTER_DIGEST_BYTES];
    short
        .iter_mut()
        .zip(digest)
        .for_each(|(short, byte)| *short = byte);
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(query: &str) -> Result<ListQuery, Error> {
        let uri: Uri = format!("/v1/executions?{query}").parse().unwrap();
        ListQuery::parse(&uri, &Options::default())
    }

    #[track_caller]
    fn refused(query: &str, expected: &str) {
        let error = format!("{:?}", parse(query).unwrap_err());
        assert!(error.contains(expected), "{query}: {error}");
    }

    #[test]
    fn a_query_says_which_and_how_many() {
        let uri = Uri::from_static("/v1/executions");
        let nothing = ListQuery::parse(&uri, &Options::default()).unwrap();
        assert_eq!((nothing.filter, nothing.limit), (Filter::default(), 50));
        let all = parse("function=echo&status=error&since=2026-09-01T12%3A00%3A00Z&limit=500");
        let all = all.unwrap();
        assert_eq!(all.limit, 500);
        assert_eq!(all.filter.function, Some("echo".parse().unwrap()));
        assert_eq!(all.filter.status, Some(Status::Error));
        assert_eq!(
            all.filter.since.map(|since| since.0),
            Some(1_788_264_000_000)
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        refused("limit=0", "from 1 to 500");
        refused("limit=501", "from 1 to 500");
        refused("status=done", "queued, running, success");
        refused("since=yesterday", "must be a time like");
        refused("function=a%20b", "starts with a letter");
        refused("functio=a&limit=x", "there is no such parameter");
        refused("limit=1&limit=2", "more than once");
        refused("cursor=", "must be the `next` of a page");
        refused("cursor=AAAA", "must be the `next` of a page");
    }

    #[test]
    fn a_cursor_goes_on_with_its_own_list_only() {
        let id = ExecutionId::from_bytes([7; 16]);
        let cursor = parse("function=echo&limit=3").unwrap().cursor_after(id);
        let next = parse(&format!("function=echo&limit=9&cursor={cursor}")).unwrap();
        assert_eq!(next.filter.before, Some(id));
        refused(&format!("cursor={cursor}"), "belongs to another query");
        refused(
            &format!("function=other&cursor={cursor}"),
            "belongs to another query",
        );
        refused(
            &format!("function=echo&status=error&cursor={cursor}"),
            "belongs to another",
        );
    }

    proptest! {
        #[test]
        fn any_cursor_is_judged(text in ".*") {
            let _ = read_cursor(&text, &Filter::default());
        }

        #[test]
        fn cursors_read_back(id: [u8; 16], name in "[a-z]{1,9}") {
            let query = parse(&format!("function={name}")).unwrap();
            let id = ExecutionId::from_bytes(id);
            let cursor = query.cursor_after(id);
            prop_assert_eq!(read_cursor(&cursor, &query.filter), Ok(id));
        }

        #[test]
        fn any_query_is_judged(query in "[a-z]{0,8}=[a-zA-Z0-9%&=:.-]{0,30}") {
            if let Ok(uri) = format!("/v1/executions?{query}").parse::<Uri>() {
                let _ = ListQuery::parse(&uri, &Options::default());
            }
        }
    }
}
