//! The SQL of retention: what is old enough goes, a bounded number of rows at a time.
//!
//! **Invariant:** one step removes at most `rows_max` rows, payload rows apart (an execution has one
//! input and one output at most, or a share in a bundle).

use rusqlite::params;

use super::{Done, Writes};
use crate::model::Timestamp;
use crate::store::Retention;

impl Writes<'_, '_> {
    /// Removes one step's worth; returns how many rows (executions, attempts, keys) went.
    pub(in crate::store::sqlite) fn purge(&self, retention: &Retention) -> Done<u32> {
        let mut left = retention.rows_max;
        left -= self.purge_executions(retention.executions_before, left)?;
        left -= self.purge_bundles(retention.executions_before, left)?;
        left -= self.purge_keys(retention.keys_before, left)?;
        Ok(retention.rows_max - left)
    }

    fn purge_executions(&self, before: Timestamp, rows_max: u32) -> Done<u32> {
        let old = self
            .connection
            .prepare_cached(
                "SELECT id, seq FROM executions INDEXED BY executions_by_end \
                 WHERE finished_at < ?1 AND input_kept < 2 ORDER BY finished_at LIMIT ?2",
            )?
            .query_map(params![before.0, rows_max], |row| {
                Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut left = rows_max;
        for (id, seq) in old {
            // One execution can have very many attempts: it may take several steps.
            left -= self.remove(
                "DELETE FROM attempts WHERE seq = ?1 AND fence IN (SELECT fence FROM attempts WHERE seq = ?1 LIMIT ?2)",
                params![seq, left],
            )?;
            if left == 0 {
                break;
            }
            self.execute("DELETE FROM inputs WHERE seq = ?1", [seq])?;
            self.execute("DELETE FROM outputs WHERE seq = ?1", [seq])?;
            left -= self.remove("DELETE FROM executions WHERE id = ?1", [id])?;
            if left == 0 {
                break;
            }
        }
        Ok(rows_max - left)
    }

    fn purge_keys(&self, before: Timestamp, rows_max: u32) -> Done<u32> {
        self.remove(
            "DELETE FROM keys WHERE (function_id, key) IN \
             (SELECT function_id, key FROM keys WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)",
            params![before.0, rows_max],
        )
    }

    /// Runs a DELETE that is bounded by a `u32`.
    pub(super) fn remove(&self, sql: &'static str, params: impl rusqlite::Params) -> Done<u32> {
        let gone = self.execute(sql, params)?;
        Ok(u32::try_from(gone).unwrap_or(u32::MAX))
    }
}
