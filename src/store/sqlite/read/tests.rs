//! Which index each list uses.

use rusqlite::Connection;

use super::LIVE_SQL;
use super::lists::list_sql;
use crate::execution::Status;
use crate::model::{ExecutionId, Timestamp};
use crate::store::sqlite::schema;
use crate::store::{Filter, Order};

fn plan(database: &Connection, sql: &str) -> String {
    let mut statement = database
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let mut rows = statement.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        lines.push(row.get::<_, String>("detail").unwrap());
    }
    lines.join("; ")
}

/// Every combination of what a list can be asked for.
fn filters() -> Vec<Filter> {
    let statuses = || Status::ALL.into_iter().map(Some).chain([None]);
    let some_id = || Some(ExecutionId::new(Timestamp(0)));
    let mut filters = Vec::new();
    for bits in 0_u32..64 {
        let bit = |n: u32| bits >> n & 1 == 1;
        for status in statuses() {
            filters.push(Filter {
                function: bit(0).then(|| "alpha".parse().unwrap()),
                status,
                since: bit(1).then_some(Timestamp(1)),
                until: bit(2).then_some(Timestamp(9)),
                before: some_id().filter(|_| bit(3)),
                after: some_id().filter(|_| bit(4)),
                order: if bit(5) {
                    Order::OldestFirst
                } else {
                    Order::NewestFirst
                },
            });
        }
    }
    filters
}

#[test]
fn no_list_sorts_or_reads_all_rows_and_each_begins_where_its_bounds_say() {
    let mut database = Connection::open_in_memory().unwrap();
    schema::migrate(&mut database, schema::STEPS).unwrap();
    for filter in filters() {
        let plan = plan(&database, &list_sql(&filter));
        assert!(!plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
        let has_above = filter.since.is_some() || filter.after.is_some();
        let has_below = filter.until.is_some() || filter.before.is_some();
        let by_spans = filter.status == Some(Status::Success) && filter.function.is_none();
        let bounded = if by_spans { "(first" } else { "id" };
        let (from, to) = (format!("{bounded}>"), "<?");
        assert_eq!(plan.contains(&from), has_above, "{filter:?}: {plan}");
        if by_spans {
            // Its own bounds within a span, and nothing else's.
            let within = "SEARCH e USING PRIMARY KEY (id>? AND id<?)";
            assert!(plan.ends_with(within), "{filter:?}: {plan}");
        } else {
            assert_eq!(plan.contains(to), has_below, "{filter:?}: {plan}");
        }
        // Without a bound these read their index from one end until the page is full.
        let from_an_end = !has_above && !has_below;
        let everything = from_an_end
            && match filter.status {
                None | Some(Status::Success) => filter.function.is_none(),
                Some(Status::Running) => true,
                Some(_) => false,
            };
        let merged = filter.status.is_none() && filter.function.is_some();
        let way = match (everything, merged) {
            (_, true) => "MERGE (UNION ALL)",
            (true, _) => "SCAN",
            (false, _) => "SEARCH",
        };
        assert!(plan.starts_with(way), "{filter:?}: {plan}");
        assert_eq!(!everything, !plan.contains("SCAN"), "{filter:?}: {plan}");
        let index = match (filter.status, &filter.function) {
            (None, None) if everything => "executions",
            (None, None) => "PRIMARY KEY (id",
            (Some(Status::Success), None) if everything => "SCAN s",
            (Some(Status::Success), None) => "SEARCH s USING PRIMARY KEY (first",
            (Some(Status::Running), _) => "executions_running",
            (Some(_), None) => "executions_by_standing (standing=?",
            (_, Some(_)) => "executions_of_function (function=? AND standing=?",
        };
        assert!(plan.contains(index), "{filter:?}: {plan}");
        if merged {
            assert_eq!(plan.matches(index).count(), 5, "{filter:?}: {plan}");
        }
    }
    let plan = plan(&database, LIVE_SQL);
    assert!(plan.starts_with("SEARCH") && plan.contains("id>"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}

/// However many newer rows there are that a list does not want, its page costs the same few steps.
#[test]
fn no_list_passes_over_what_it_does_not_want() {
    const OTHERS: i64 = 20_000;
    let mut database = Connection::open_in_memory().unwrap();
    schema::migrate(&mut database, schema::STEPS).unwrap();
    let wanted = [Status::Success, Status::Timeout];
    for (status, standing) in [(Status::Success, "NULL"), (Status::Timeout, "4")] {
        let code = crate::store::record::status_code(status);
        fill(&database, code, standing, 1_000, 3);
    }
    fill(&database, 3, "3", 1_000_000, OTHERS);
    database
        .execute_batch(
            "INSERT INTO success_spans SELECT DISTINCT substr(id, 1, 5), \
             unhex(hex(substr(id, 1, 5)) || 'FFFFFFFFFFFFFFFFFFFFFF') FROM executions WHERE standing IS NULL",
        )
        .unwrap();
    let lists = filters().into_iter().filter(|filter| {
        filter.since.is_none()
            && filter.until.is_none()
            && filter.before.is_none()
            && filter.after.is_none()
            && filter.status.is_none_or(|status| wanted.contains(&status))
    });
    for filter in lists {
        let mut statement = database.prepare(&list_sql(&filter)).unwrap();
        let timeout = crate::store::record::status_code(Status::Timeout);
        for (name, value) in [
            (":function", &"alpha" as &dyn rusqlite::ToSql),
            (":status", &timeout),
            (":limit", &50),
        ] {
            if let Some(index) = statement.parameter_index(name).unwrap() {
                statement.raw_bind_parameter(index, value).unwrap();
            }
        }
        let mut rows = statement.raw_query();
        let mut found = 0;
        while rows.next().unwrap().is_some() {
            found += 1;
        }
        drop(rows);
        let expected = if filter.status.is_some() { 3 } else { 50 };
        assert_eq!(found, expected, "{filter:?}");
        let steps = statement.get_status(rusqlite::StatementStatus::VmStep);
        assert!(steps < 10_000, "{filter:?}: {steps} steps");
    }
}

/// Adds `count` rows of one status, a millisecond apart.
fn fill(database: &Connection, status: i64, standing: &str, from_ms: i64, count: i64) {
    database
        .execute_batch(&format!(
            "WITH RECURSIVE n (at) AS (VALUES ({from_ms}) UNION ALL SELECT at + 1 FROM n WHERE at < {from_ms} + {count} - 1) \
             INSERT INTO executions (id, seq, function_id, function, version, status, standing, fence, attempts, faults, \
             requeues, created_at, input_bytes, input_kept, cold_start) \
             SELECT unhex(printf('%012x', at) || printf('%020x', {status} + 1)), at, 1, 'alpha', 1, {status}, {standing}, \
             0, 0, 0, 0, at, 0, 0, 0 FROM n"
        ))
        .unwrap();
}
