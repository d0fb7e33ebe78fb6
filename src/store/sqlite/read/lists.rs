//! The SQL of lists: for each filter, a way that reads about as many rows as it gives.
//!
//! **Invariant:** no list sorts; each begins where its bounds say and ends with its page.

use crate::execution::Status;
use crate::model::{ExecutionId, Timestamp};
use crate::store::{Filter, Order};

/// The values of `standing` besides NULL, which success has.
const STANDINGS: [&str; 4] = ["= 0", "= 3", "= 4", "= 5"];

/// The statement for a list, by the index that has its rows together in order.
///
/// Most executions are successes, and each further index costs every one of them. So those of one function
/// share its index with the rest, from which a list of any status is merged; and those of all functions are
/// looked for in the spans of time in which there is one (see the schema).
pub(in crate::store::sqlite) fn list_sql(filter: &Filter) -> String {
    let order = match filter.order {
        Order::NewestFirst => "DESC",
        Order::OldestFirst => "ASC",
    };
    let mut sql = match (filter.status, filter.function.is_some()) {
        (None, false) => select("NOT INDEXED", "TRUE", filter),
        (None, true) => {
            let of = |standing: &str| {
                let of_standing = format!("function = :function AND standing {standing}");
                select("INDEXED BY executions_of_function", &of_standing, filter)
            };
            let all: Vec<_> = ["IS NULL"].into_iter().chain(STANDINGS).map(of).collect();
            all.join(" UNION ALL ")
        }
        (Some(Status::Success), false) => return successes(filter, order),
        // Few run at once, whatever their function. The number is the index's own.
        (Some(Status::Running), by_function) => {
            let of_function = if by_function {
                "status = 1 AND function = :function"
            } else {
                "status = 1"
            };
            select("INDEXED BY executions_running", of_function, filter)
        }
        (Some(status), by_function) => {
            let of_status = match status {
                Status::Queued | Status::Running => "standing = 0 AND status = :status",
                Status::Success => "standing IS NULL",
                Status::Error | Status::Timeout | Status::Cancelled => "standing = :status",
            };
            if by_function {
                let of_status = format!("function = :function AND {of_status}");
                select("INDEXED BY executions_of_function", &of_status, filter)
            } else {
                select("INDEXED BY executions_by_standing", of_status, filter)
            }
        }
    };
    sql.push_str(" ORDER BY id ");
    sql.push_str(order);
    sql.push_str(" LIMIT :limit");
    sql
}

fn select(index: &str, condition: &str, filter: &Filter) -> String {
    let mut sql = format!("SELECT * FROM executions {index} WHERE {condition}");
    let (above, below) = bounds(filter);
    for (is_given, condition) in [
        (above.is_some(), " AND id > :above"),
        (below.is_some(), " AND id < :below"),
        (filter.since.is_some(), " AND created_at >= :since"),
        (filter.until.is_some(), " AND created_at < :until"),
    ] {
        if is_given {
            sql.push_str(condition);
        }
    }
    sql
}

/// The successes of all functions, span by span. The bounds decide where the spans begin and end; within a
/// span they must not take the place of its own, so a `+` keeps them from being looked up.
fn successes(filter: &Filter, order: &str) -> String {
    let mut sql = "SELECT e.* FROM success_spans s CROSS JOIN executions e NOT INDEXED \
         WHERE e.id >= s.first AND e.id <= s.last AND e.standing IS NULL"
        .to_owned();
    let (above, below) = bounds(filter);
    for (is_given, condition) in [
        (
            above.is_some(),
            " AND s.first >= substr(:above, 1, 5) AND +e.id > :above",
        ),
        (
            below.is_some(),
            " AND s.first <= substr(:below, 1, 5) AND +e.id < :below",
        ),
        (filter.since.is_some(), " AND e.created_at >= :since"),
        (filter.until.is_some(), " AND e.created_at < :until"),
    ] {
        if is_given {
            sql.push_str(condition);
        }
    }
    sql.push_str(&format!(
        " ORDER BY s.first {order}, e.id {order} LIMIT :limit"
    ));
    sql
}

/// Between which ids a list lies: its cursor and its times in one.
pub(super) fn bounds(filter: &Filter) -> (Option<[u8; 16]>, Option<[u8; 16]>) {
    let id = |id: ExecutionId| *id.as_bytes();
    let above = filter.after.map(id).max(filter.since.map(first_id_of));
    let below = [filter.before.map(id), filter.until.map(first_id_of)];
    (above, below.into_iter().flatten().min())
}

/// Smaller than every id that an execution of this time can have, greater than those of earlier times: ids
/// begin with their time, and what follows is never all zero.
fn first_id_of(time: Timestamp) -> [u8; 16] {
    let ms = u64::try_from(time.0).unwrap_or(0).min((1 << 48) - 1);
    let mut id = [0; 16];
    id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    id
}
