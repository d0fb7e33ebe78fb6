//! Which index each list uses.

use rusqlite::Connection;

use super::{LIVE_SQL, list_sql};
use crate::execution::Status;
use crate::model::{ExecutionId, Timestamp};
use crate::store::Filter;
use crate::store::sqlite::schema;

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

#[test]
fn no_list_sorts_and_none_with_a_cursor_starts_from_the_beginning() {
    let mut database = Connection::open_in_memory().unwrap();
    schema::migrate(&mut database, schema::STEPS).unwrap();
    for status in Status::ALL.into_iter().map(Some).chain([None]) {
        for function in [None, Some("alpha".parse().unwrap())] {
            for before in [None, Some(ExecutionId::new(Timestamp(0)))] {
                let filter = Filter {
                    function: function.clone(),
                    status,
                    since: Some(Timestamp(1)),
                    before,
                };
                let plan = plan(&database, &list_sql(&filter));
                assert!(plan.starts_with("SEARCH"), "{filter:?}: {plan}");
                assert!(!plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
                assert!(plan.contains("id>"), "{filter:?}: {plan}");
            }
        }
    }
    let plan = plan(&database, LIVE_SQL);
    assert!(plan.starts_with("SEARCH") && plan.contains("id>"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}
