//! The one row of what was changed of the runtime config.
//!
//! **Invariant:** the row is replaced only by the successor of what it holds.

use rusqlite::{OptionalExtension, params};

use super::{Done, Writes, int};
use crate::model::RuntimeRevision;
use crate::store::{Applied, record};

impl Writes<'_, '_> {
    pub(in crate::store::sqlite) fn set_runtime_config(
        &self,
        expected: u64,
        next: &RuntimeRevision,
    ) -> Done<Applied> {
        let standing: Option<i64> = self
            .connection
            .prepare_cached("SELECT revision FROM runtime_config WHERE id = 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        if standing.unwrap_or(0) != int(expected)? {
            return Ok(Applied::Stale);
        }
        self.execute(
            "INSERT OR REPLACE INTO runtime_config (id, revision, changed_at, record) VALUES (1, ?1, ?2, ?3)",
            params![
                int(next.number)?,
                next.changed_at.0,
                record::encode_runtime_overrides(&next.overrides)?
            ],
        )?;
        Ok(Applied::Done)
    }
}
