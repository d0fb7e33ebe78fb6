//! Which index each list uses.

use rusqlite::Connection;

use super::{LIVE_SQL, list_sql};
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
        assert_eq!(plan.contains("id>"), has_above, "{filter:?}: {plan}");
        assert_eq!(plan.contains("id<"), has_below, "{filter:?}: {plan}");
        // Without a bound these read their index from one end until the page is full.
        let from_an_end = !has_above && !has_below;
        let everything = from_an_end
            && match filter.status {
                None | Some(Status::Success) => filter.function.is_none(),
                Some(Status::Running) => true,
                Some(_) => false,
            };
        let way = if everything { "SCAN" } else { "SEARCH" };
        assert!(plan.starts_with(way), "{filter:?}: {plan}");
        let index = match (filter.status, &filter.function) {
            (None | Some(Status::Success), None) if everything => "executions",
            (None | Some(Status::Success), None) => "PRIMARY KEY (id",
            (None | Some(Status::Success), Some(_)) => "executions_by_function (function=?",
            (Some(Status::Running), _) => "executions_running",
            (Some(_), None) => "executions_by_standing (standing=?",
            (Some(_), Some(_)) => "executions_of_function (function=? AND standing=?",
        };
        assert!(plan.contains(index), "{filter:?}: {plan}");
    }
    let plan = plan(&database, LIVE_SQL);
    assert!(plan.starts_with("SEARCH") && plan.contains("id>"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}
