//! The queries of lists and of exports.
//!
//! **Invariant:** an unknown parameter, one given twice and a foreign cursor are told, never passed over.

use std::collections::HashSet;

use axum::extract::Query;
use axum::http::Uri;

use super::{cursor, time};
use crate::api::error::{Error, quoted};
use crate::api::options::Options;
use crate::execution::Status;
use crate::model::{ExecutionId, FunctionName, Timestamp};
use crate::store::Filter;

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
        let mut limit = options.list_limit_default;
        let mut given = None;
        let known = "function, status, since, until, limit and cursor";
        let (mut filter, mut complaints) = parse(uri, known, |name, value| match name {
            "limit" => Some(read_limit(value, options.list_limit_max).map(|read| limit = read)),
            "cursor" => {
                given = Some(value.to_owned());
                Some(Ok(()))
            }
            _ => None,
        })?;
        if let Some(given) = given
            && complaints.is_empty()
        {
            match cursor::read(&given, &filter) {
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
        cursor::after(&self.filter, last)
    }
}

/// Which executions to export, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct ExportQuery {
    /// Which.
    pub(in crate::api) filter: Filter,
    /// Whether their outputs go with them.
    pub(in crate::api) outputs: super::Outputs,
}

impl ExportQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 with all complaints.
    pub(in crate::api) fn parse(uri: &Uri) -> Result<Self, Error> {
        let mut outputs = super::Outputs::Shown;
        let mut before = None;
        let known = "function, status, since, until, before and outputs";
        let (filter, complaints) = parse(uri, known, |name, value| match name {
            "before" => Some(last_line(value).map(|id| before = Some(id))),
            "outputs" => Some(flag(name, value).map(|shown| {
                outputs = if shown {
                    super::Outputs::Shown
                } else {
                    super::Outputs::LeftOut
                };
            })),
            _ => None,
        })?;
        if !complaints.is_empty() {
            return Err(Error::invalid(complaints));
        }
        let filter = Filter { before, ..filter };
        Ok(Self { filter, outputs })
    }
}

/// Reads what all queries have, and hands the rest to `other`, which knows some more parameters or none of
/// this name. `known` lists them all.
///
/// # Errors
/// 400 where it is no query; complaints about what it says come back with the filter.
fn parse(
    uri: &Uri,
    known: &str,
    mut other: impl FnMut(&str, &str) -> Option<Result<(), String>>,
) -> Result<(Filter, Vec<String>), Error> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| Error::bad_request("the query cannot be read"))?;
    let mut complaints = Vec::new();
    let mut filter = Filter::default();
    let mut seen = HashSet::new();
    for (name, value) in &pairs {
        if !seen.insert(name) {
            complaints.push(format!("{}: is given more than once", quoted(name)));
            continue;
        }
        let read = match name.as_str() {
            "function" => function(value).map(|name| filter.function = Some(name)),
            "status" => status(value).map(|status| filter.status = Some(status)),
            "since" => moment(name, value).map(|since| filter.since = Some(since)),
            "until" => moment(name, value).map(|until| filter.until = Some(until)),
            name => other(name, value).unwrap_or_else(|| {
                let name = quoted(name);
                Err(format!(
                    "{name}: there is no such parameter: there are {known}"
                ))
            }),
        };
        complaints.extend(read.err());
    }
    complaints.extend(span(filter.since, filter.until).err());
    Ok((filter, complaints))
}

/// Checks that something can lie between two times.
///
/// # Errors
/// A complaint.
pub(super) fn span(since: Option<Timestamp>, until: Option<Timestamp>) -> Result<(), String> {
    match (since, until) {
        (Some(since), Some(until)) if until <= since => {
            Err("until: must be later than since, for nothing lies between them".to_owned())
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

fn function(value: &str) -> Result<FunctionName, String> {
    value.parse().map_err(|error| format!("function: {error}"))
}

fn status(value: &str) -> Result<Status, String> {
    Status::parse(value).ok_or_else(|| {
        let words = Status::ALL.map(Status::as_str).join(", ");
        format!("status: must be one of {words}, not {}", quoted(value))
    })
}

/// The time that a parameter or a field says.
///
/// # Errors
/// A complaint.
pub(super) fn moment(name: &str, value: &str) -> Result<Timestamp, String> {
    time::parse(value).ok_or_else(|| {
        let example = "2026-09-01T12:00:00Z";
        let value = quoted(value);
        format!("{name}: must be a time like {example}, not {value}")
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

fn last_line(value: &str) -> Result<ExecutionId, String> {
    ExecutionId::parse(value).ok_or_else(|| {
        let value = quoted(value);
        format!("before: must be the id of an execution, such as that of an export's last line, not {value}")
    })
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    let read = value.parse();
    read.map_err(|_| format!("{name}: must be true or false, not {}", quoted(value)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::wire::Outputs;

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
        let all = parse(
            "function=echo&status=error&since=2026-09-01T12%3A00%3A00Z&until=2026-09-01T12%3A00%3A01Z&limit=500",
        );
        let all = all.unwrap();
        assert_eq!(all.limit, 500);
        assert_eq!(all.filter.function, Some("echo".parse().unwrap()));
        assert_eq!(all.filter.status, Some(Status::Error));
        assert_eq!(
            all.filter.since.map(|since| since.0),
            Some(1_788_264_000_000)
        );
        assert_eq!(
            all.filter.until.map(|until| until.0),
            Some(1_788_264_001_000)
        );
    }

    #[test]
    fn an_export_says_how_much_and_where_to_go_on() {
        let parse = |query: &str| {
            let uri: Uri = format!("/v1/executions:export?{query}").parse().unwrap();
            ExportQuery::parse(&uri)
        };
        let all = parse("").unwrap();
        assert_eq!(
            (all.filter, all.outputs),
            (Filter::default(), Outputs::Shown)
        );
        let id = ExecutionId::from_bytes([7; 16]);
        let rest = parse(&format!("status=timeout&before={id}&outputs=false")).unwrap();
        assert_eq!(rest.outputs, Outputs::LeftOut);
        assert_eq!(rest.filter.before, Some(id));
        assert_eq!(rest.filter.status, Some(Status::Timeout));
        for (query, expected) in [
            ("outputs=yes", "must be true or false"),
            ("before=7", "must be the id of an execution"),
            (
                "limit=7",
                "there are function, status, since, until, before and outputs",
            ),
        ] {
            let error = format!("{:?}", parse(query).unwrap_err());
            assert!(error.contains(expected), "{query}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        refused("limit=0", "from 1 to 500");
        refused("limit=501", "from 1 to 500");
        refused("status=done", "queued, running, success");
        refused("since=yesterday", "since: must be a time like");
        refused("until=1", "until: must be a time like");
        let time = "2026-09-01T12%3A00%3A00Z";
        refused(&format!("since={time}&until={time}"), "later than since");
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
            &format!("function=echo&until=2026-09-01T12%3A00%3A00Z&cursor={cursor}"),
            "belongs to another query",
        );
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
            let _ = cursor::read(&text, &Filter::default());
        }

        #[test]
        fn cursors_read_back(id: [u8; 16], name in "[a-z]{1,9}") {
            let query = parse(&format!("function={name}")).unwrap();
            let id = ExecutionId::from_bytes(id);
            let cursor = query.cursor_after(id);
            prop_assert_eq!(cursor::read(&cursor, &query.filter), Ok(id));
        }

        #[test]
        fn any_query_is_judged(query in "[a-z]{0,8}=[a-zA-Z0-9%&=:.-]{0,30}") {
            if let Ok(uri) = format!("/v1/executions?{query}").parse::<Uri>() {
                let _ = ListQuery::parse(&uri, &Options::default());
            }
        }
    }
}
