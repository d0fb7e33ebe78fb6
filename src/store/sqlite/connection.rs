//! How connections are opened and which failures of SQLite are the end.
//!
//! **Invariant:** every connection to the database is opened here, with the same precautions.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::gather;
use super::options::Synchronous;

/// How long a statement waits for another program (a backup) that holds a lock.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 64;
/// The log file is cut back to this size when it starts again from its beginning.
const WAL_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// Size of a page of a new database, in bytes. With 8 KiB instead of SQLite's 4 KiB a recorded call of 1 KB
/// costs the writer a little less: fewer pages split, and a checkpoint copies in larger pieces. An existing
/// database keeps its size.
const PAGE_BYTES: i64 = 8 * 1024;

/// A connection that may write; the caller sees to it that one at a time does.
pub(super) fn open_writing(path: &Path, synchronous: Synchronous) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match synchronous {
        Synchronous::Full => Connection::open_with_flags_and_vfs(path, flags, gather::name()?)?,
        // What is not synced must not be held back either: others would look for it.
        Synchronous::Off => Connection::open_with_flags(path, flags)?,
    };
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    prepare(&connection, -16_384)?;
    connection.pragma_update(
        None,
        "synchronous",
        match synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Off => "OFF",
        },
    )?;
    // Checkpoints are made when the writer says so, and at an orderly close.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
    Ok(connection)
}

/// Makes the database use a write-ahead log, for good.
pub(super) fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    let message = format!("this file system allows no write-ahead log (journal mode {mode})");
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
        Some(message),
    ))
}

/// A connection that cannot write.
pub(super) fn open_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection, -2_048)?;
    Ok(connection)
}

/// A connection to a copy that nobody else knows of yet. It is not synced: whoever made it does that once.
pub(super) fn open_copy(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    prepare(&connection, -16_384)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    Ok(connection)
}

/// `cache_size` is negative, in KiB.
fn prepare(connection: &Connection, cache_size: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "cache_size", cache_size)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // A mapped file turns an I/O error into a signal.
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))?;
    // A database that somebody else prepared must not run code of theirs.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    Ok(())
}

/// Whether a failure is about one statement and its values, so that others may go on. Anything else
/// (disk full, I/O, a damaged file, no memory, locks that are not given back) is the end of writing.
pub(super) fn is_about_one_statement(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        None => true,
        Some(code) => matches!(
            code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TooBig
                | ErrorCode::TypeMismatch
                | ErrorCode::ParameterOutOfRange
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `PRAGMA synchronous` says for FULL: every commit is synced.
    const FULL: i64 = 2;

    #[test]
    fn a_store_that_promises_syncs_every_commit_to_a_write_ahead_log() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.db");
        let connection = open_writing(&path, Synchronous::Full).unwrap();
        use_wal(&connection).unwrap();
        let ask = |name: &str| {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        assert_eq!(ask("synchronous").unwrap(), FULL.into());
        assert_eq!(ask("journal_mode").unwrap(), "wal".to_owned().into());
        assert_eq!(
            super::super::Options::new(home.path()).synchronous,
            Synchronous::Full
        );
    }
}
