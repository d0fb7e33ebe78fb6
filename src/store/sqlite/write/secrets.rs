//! Secrets, as the writer keeps them.
//!
//! **Invariant:** sees only what is encrypted already.

use std::sync::Arc;

use rusqlite::params;

use super::{Done, Writes};
use crate::model::{SecretName, Timestamp};
use crate::store::{Applied, SecretRecord};

impl Writes<'_, '_> {
    pub(in crate::store::sqlite) fn put_secret(
        &self,
        name: &SecretName,
        sealed: &Arc<[u8]>,
        now: Timestamp,
    ) -> Done<SecretRecord> {
        let created_at = self
            .connection
            .prepare_cached(
                "INSERT INTO secrets (name, sealed, created_at, updated_at) VALUES (?1, ?2, ?3, ?3) \
                 ON CONFLICT (name) DO UPDATE SET sealed = ?2, updated_at = ?3 RETURNING created_at",
            )?
            .query_row(params![name.as_str(), &**sealed, now.0], |row| row.get(0))?;
        Ok(SecretRecord {
            name: name.clone(),
            sealed: Arc::clone(sealed),
            created_at: Timestamp(created_at),
            updated_at: now,
        })
    }

    pub(in crate::store::sqlite) fn delete_secret(&self, name: &SecretName) -> Done<Applied> {
        let removed = self.execute("DELETE FROM secrets WHERE name = ?1", [name.as_str()])?;
        Ok(if removed == 0 {
            Applied::Stale
        } else {
            Applied::Done
        })
    }
}
