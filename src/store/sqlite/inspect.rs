//! Looks at a folder's database from outside: what is in it, and whether it is sound.
//!
//! **Invariant:** writes nothing, needs no lock, and asks nothing that a large database answers slowly,
//! but for the check of its pages.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::connection::open_reading;
use super::open::DATABASE;
use super::read;
use super::schema;
use crate::model::{Code, Digest, Timestamp};
use crate::store::{Error, Result as StoreResult};

/// What a database holds, as far as a backup has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Its schema version.
    pub schema: i64,
    /// The number of the last start.
    pub boot: u32,
    /// Functions.
    pub functions: u64,
    /// The wasm that their versions name.
    pub digests: HashSet<Digest>,
    /// Executions that have not ended, by function.
    pub unfinished: BTreeMap<String, u64>,
}

/// What an inspection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its schema version.
    pub schema: i64,
    /// The newest schema version that this build knows.
    pub schema_supported: i64,
    /// The first thing that the check of its pages complained of.
    pub flaw: Option<String>,
    /// Size of the database's file in bytes.
    pub bytes: u64,
    /// Of these, in pages that hold nothing at the moment.
    pub free_bytes: u64,
    /// Size of the write-ahead log in bytes.
    pub log_bytes: u64,
    /// When its newest execution was created.
    pub newest: Option<Timestamp>,
    /// What it holds; `None` if its schema is not this build's.
    pub contents: Option<Contents>,
}

/// Looks at the database of a folder; `None` if there is none. Reads all of it: blocks on the disk.
///
/// # Errors
/// A sentence, if it cannot be read at all.
pub fn inspect(dir: &Path) -> Result<Option<Inspection>, String> {
    let path = dir.join(DATABASE);
    let Ok(file) = fs::metadata(&path) else {
        return Ok(None);
    };
    let text = |error: rusqlite::Error| error.to_string();
    let connection = open_reading(&path).map_err(text)?;
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(text)
    };
    let schema = pragma("user_version")?;
    let schema_supported = schema::newest(schema::STEPS);
    let free = pragma("freelist_count")?.saturating_mul(pragma("page_size")?);
    let flaw = first_flaw(&connection, "quick_check").map_err(text)?;
    let readable = flaw.is_none() && schema == schema_supported;
    let (newest, contents) = if readable {
        let contents = contents(&connection).map_err(|error| error.to_string())?;
        (newest(&connection).map_err(text)?, Some(contents))
    } else {
        (None, None)
    };
    Ok(Some(Inspection {
        schema,
        schema_supported,
        flaw,
        bytes: file.len(),
        free_bytes: u64::try_from(free).unwrap_or(0),
        log_bytes: fs::metadata(dir.join(format!("{DATABASE}-wal"))).map_or(0, |log| log.len()),
        newest,
        contents,
    }))
}

/// The first complaint of `quick_check` or `integrity_check`.
pub(super) fn first_flaw(connection: &Connection, check: &str) -> rusqlite::Result<Option<String>> {
    let found: String =
        connection.query_row(&format!("PRAGMA {check}(1)"), [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

/// What a database of this build's schema, or an older one, holds.
///
/// # Errors
/// A row cannot be read.
pub(super) fn contents(connection: &Connection) -> StoreResult<Contents> {
    let failed = |error: rusqlite::Error| Error::Failed(error.to_string().into());
    let functions = read::functions(connection)?;
    let versions = functions.iter().flat_map(|function| &function.versions);
    let digests = versions.filter_map(|version| match version.code {
        Code::Wasm { digest, .. } => Some(digest),
        Code::Echo | Code::Endpoint { .. } => None,
    });
    Ok(Contents {
        schema: connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?,
        boot: connection
            .query_row("SELECT boot FROM plane WHERE id = 1", [], |row| row.get(0))
            .map_err(failed)?,
        functions: u64::try_from(functions.len()).unwrap_or(u64::MAX),
        digests: digests.collect(),
        unfinished: unfinished(connection).map_err(failed)?,
    })
}

fn unfinished(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut statement = connection.prepare(
        "SELECT function, count(*) FROM executions WHERE standing = 0 GROUP BY function",
    )?;
    let counts = statement.query_map([], |row| {
        let count: i64 = row.get(1)?;
        Ok((row.get(0)?, u64::try_from(count).unwrap_or(0)))
    })?;
    counts.collect()
}

/// Ids begin with the time, so the greatest is the newest.
fn newest(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let newest = "SELECT (SELECT created_at FROM executions ORDER BY id DESC LIMIT 1)";
    let newest: Option<i64> = connection.query_row(newest, [], |row| row.get(0))?;
    Ok(newest.map(Timestamp))
}
