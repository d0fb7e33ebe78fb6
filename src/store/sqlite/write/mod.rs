//! The SQL of writes, run by the writer inside its open transaction.
//!
//! **Invariant:** whoever gets [`Problem::Refused`] has written nothing; after [`Problem::Broken`] and
//! [`Problem::Sql`] the caller rolls back.

mod behind;
mod executions;
mod plain;
mod purge;
mod runtime_config;
mod secrets;
mod spans;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{
    ExecutionId, FunctionId, FunctionName, FunctionSettings, Timestamp, Version, VersionNumber,
};
use crate::store::record::{self, Unreadable};
use crate::store::sqlite::bundle::Bundle;
use crate::store::sqlite::statements::Statements;
use crate::store::{Error, FunctionRecord, KeyClaim, KeyHolder, NewExecution};

/// Why an operation was not done.
#[derive(Debug)]
pub(in crate::store::sqlite) enum Problem {
    /// It is against the rules, and was not begun.
    Refused(Error),
    /// It met a value that cannot be written or read; it may be half done.
    Broken(String),
    /// The database failed; it may be half done.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Unreadable> for Problem {
    fn from(error: Unreadable) -> Self {
        Self::Broken(error.to_string())
    }
}

pub(in crate::store::sqlite) type Done<T> = Result<T, Problem>;

/// An unsigned number as SQLite keeps it.
fn int(value: u64) -> Done<i64> {
    i64::try_from(value).map_err(|_| Problem::Broken(format!("{value} is too large to be stored")))
}

fn len(bytes: usize) -> Done<i64> {
    i64::try_from(bytes).map_err(|_| Problem::Broken("too many bytes to be stored".to_owned()))
}

/// The writer's connection inside an open transaction.
pub(in crate::store::sqlite) struct Writes<'w, 'c> {
    connection: &'w Connection,
    statements: &'w Statements<'c>,
    next_seq: &'w Cell<i64>,
    bundle: &'w RefCell<Bundle>,
}

impl<'w, 'c> Writes<'w, 'c> {
    /// `next_seq` is the number of the next row; gaps do no harm. `bundle` is where bundles are filled.
    pub(in crate::store::sqlite) fn new(
        connection: &'w Connection,
        statements: &'w Statements<'c>,
        next_seq: &'w Cell<i64>,
        bundle: &'w RefCell<Bundle>,
    ) -> Self {
        Self {
            connection,
            statements,
            next_seq,
            bundle,
        }
    }

    fn execute(&self, sql: &'static str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.statements.execute(sql, params)
    }

    fn exists(&self, sql: &'static str, params: impl rusqlite::Params) -> rusqlite::Result<bool> {
        self.statements.exists(sql, params)
    }

    fn take_seq(&self) -> Done<i64> {
        let seq = self.next_seq.get();
        let next = seq
            .checked_add(1)
            .ok_or_else(|| Problem::Broken("the row numbers are used up".to_owned()))?;
        self.next_seq.set(next);
        Ok(seq)
    }

    pub(in crate::store::sqlite) fn create_function(
        &self,
        name: &FunctionName,
        settings: &FunctionSettings,
        version: &Arc<Version>,
    ) -> Done<FunctionRecord> {
        if self.exists("SELECT 1 FROM functions WHERE name = ?1", [name.as_str()])? {
            return Err(Problem::Refused(Error::NameTaken));
        }
        let created_at = version.created_at;
        self.execute(
            "INSERT INTO functions (name, settings, active, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)",
            params![
                name.as_str(),
                record::encode_settings(settings)?,
                int(version.number.0)?,
                created_at.0
            ],
        )?;
        let id = FunctionId(self.connection.last_insert_rowid());
        self.insert_version(id, version)?;
        Ok(FunctionRecord {
            id,
            name: name.clone(),
            settings: settings.clone(),
            active: version.number,
            versions: vec![Arc::clone(version)],
            created_at,
            updated_at: created_at,
        })
    }

    fn insert_version(&self, id: FunctionId, version: &Version) -> Done<()> {
        self.execute(
            "INSERT INTO versions (function_id, number, created_at, record) VALUES (?1, ?2, ?3, ?4)",
            params![
                id.0,
                int(version.number.0)?,
                version.created_at.0,
                record::encode_version(version)?
            ],
        )?;
        Ok(())
    }

    fn has_version(&self, id: FunctionId, number: VersionNumber) -> Done<bool> {
        Ok(self.exists(
            "SELECT 1 FROM versions WHERE function_id = ?1 AND number = ?2",
            params![id.0, int(number.0)?],
        )?)
    }

    pub(in crate::store::sqlite) fn add_version(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        version: &Version,
    ) -> Done<()> {
        if self.has_version(id, version.number)? {
            let taken = format!("version {} exists", version.number);
            return Err(Problem::Refused(Error::Failed(taken.into())));
        }
        self.update_function(id, settings, version.number, version.created_at)?;
        self.insert_version(id, version)
    }

    pub(in crate::store::sqlite) fn set_function(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        active: VersionNumber,
        now: Timestamp,
    ) -> Done<()> {
        if !self.has_version(id, active)? {
            return Err(Problem::Refused(Error::NoSuchFunction));
        }
        self.update_function(id, settings, active, now)
    }

    fn update_function(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        active: VersionNumber,
        now: Timestamp,
    ) -> Done<()> {
        let changed = self.execute(
            "UPDATE functions SET settings = ?2, active = ?3, updated_at = ?4 WHERE id = ?1",
            params![
                id.0,
                record::encode_settings(settings)?,
                int(active.0)?,
                now.0
            ],
        )?;
        if changed == 0 {
            return Err(Problem::Refused(Error::NoSuchFunction));
        }
        Ok(())
    }

    /// Its keys go a bounded number at once; the rest cannot be reached any more (ids are never used
    /// again) and goes with [`Writes::purge_keys`].
    pub(in crate::store::sqlite) fn delete_function(&self, id: FunctionId) -> Done<()> {
        if self.execute("DELETE FROM functions WHERE id = ?1", [id.0])? == 0 {
            return Err(Problem::Refused(Error::NoSuchFunction));
        }
        self.execute("DELETE FROM versions WHERE function_id = ?1", [id.0])?;
        self.execute(
            "DELETE FROM keys WHERE function_id = ?1 AND key IN (SELECT key FROM keys WHERE function_id = ?1 LIMIT 4096)",
            [id.0],
        )?;
        Ok(())
    }

    fn replace_key(&self, new: &NewExecution, claim: &KeyClaim) -> Done<()> {
        self.execute(
            "INSERT OR REPLACE INTO keys (function_id, key, execution_id, body_hash, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                new.function_id.0,
                claim.key.as_str(),
                new.id.as_bytes(),
                claim.body_hash,
                claim.expires_at.0
            ],
        )?;
        Ok(())
    }
}

/// Who holds a key at this time; a deleted function's keys are nobody's.
pub(in crate::store::sqlite) fn key_holder(
    connection: &Connection,
    function: FunctionId,
    key: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<KeyHolder>> {
    connection
        .prepare_cached(
            "SELECT execution_id, body_hash FROM keys \
             WHERE function_id = ?1 AND key = ?2 AND expires_at > ?3 \
             AND EXISTS (SELECT 1 FROM functions WHERE id = ?1)",
        )?
        .query_row(params![function.0, key, now.0], |row| {
            Ok(KeyHolder {
                id: ExecutionId::from_bytes(row.get(0)?),
                body_hash: row.get(1)?,
            })
        })
        .optional()
}
