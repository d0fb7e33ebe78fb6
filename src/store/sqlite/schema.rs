//! The schema and how it grows: one step per version, each in a transaction of its own.
//!
//! **Invariant:** a step that was released never changes; a database is at a version completely or not
//! at all, and one from the future is refused before anything is written.

use rusqlite::{Connection, TransactionBehavior};

/// The steps; step `n` (from 1) takes a database from version `n - 1` to `n`.
pub(super) const STEPS: &[&str] = &[
    STEP_1, STEP_2, STEP_3, STEP_4, STEP_5, STEP_6, STEP_7, STEP_8,
];

/// Version 1.
///
/// - Execution ids are UUIDv7: new rows go to the end of the tree, and newest first is the key backwards.
/// - `standing` is what few rows have and lists and starts look for: 0 not ended, 3 error, 4 timeout,
///   5 cancelled; NULL for success. So a success costs its index one entry that comes and goes.
/// - `fence` is the last logged claim, or 0. A running execution runs under it.
/// - `seq` joins a small state row with its payload, whose tables are keyed by integers because rows
///   in them are large. It grows with each start and each row.
/// - `deadline` is of a synchronous caller; a redrive has none.
const STEP_1: &str = "
CREATE TABLE plane (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    boot INTEGER NOT NULL
) STRICT;
INSERT INTO plane (id, boot) VALUES (1, 0);

CREATE TABLE functions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    active INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    function_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (function_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE executions (
    id BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    seq INTEGER NOT NULL,
    function_id INTEGER NOT NULL,
    function TEXT NOT NULL,
    version INTEGER NOT NULL,
    status INTEGER NOT NULL,
    standing INTEGER,
    fence INTEGER NOT NULL,
    due INTEGER,
    attempts INTEGER NOT NULL,
    faults INTEGER NOT NULL,
    requeues INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    age_since INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    deadline INTEGER,
    error_code TEXT,
    error_message TEXT,
    input_bytes INTEGER NOT NULL,
    input_kept INTEGER NOT NULL,
    output_bytes INTEGER,
    cold_start INTEGER NOT NULL,
    init_ms INTEGER,
    trace_id TEXT,
    parent BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX executions_by_standing ON executions (standing, id) WHERE standing IS NOT NULL;
CREATE INDEX executions_by_function ON executions (function, id);
CREATE INDEX executions_failed ON executions (function, standing, id) WHERE standing > 0;
CREATE INDEX executions_by_end ON executions (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE inputs (
    seq INTEGER PRIMARY KEY,
    content_type TEXT,
    body BLOB NOT NULL,
    metadata TEXT,
    traceparent TEXT,
    idempotency_key TEXT
) STRICT;

CREATE TABLE outputs (
    seq INTEGER PRIMARY KEY,
    content_type TEXT,
    encoding INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE attempts (
    seq INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    cold_start INTEGER NOT NULL,
    init_ms INTEGER,
    run_us INTEGER NOT NULL,
    cpu_us INTEGER,
    logs BLOB,
    PRIMARY KEY (seq, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    function_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    execution_id BLOB NOT NULL,
    body_hash BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (function_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_expiry ON keys (expires_at);
";

/// Version 2: what waits or runs is found without passing over what does so for other functions, or only waits.
/// A list of either stays fast behind a million queued executions.
const STEP_2: &str = "
DROP INDEX executions_failed;
CREATE INDEX executions_of_function ON executions (function, standing, id) WHERE standing IS NOT NULL;
CREATE INDEX executions_running ON executions (id) WHERE status = 1;
";

/// Version 3: one row at most, what was changed of the runtime config while the plane ran. The record holds the
/// changed values alone.
const STEP_3: &str = "
CREATE TABLE runtime_config (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
";

/// Version 4: secrets. `sealed` is encrypted with a key that the database has not.
const STEP_4: &str = "
CREATE TABLE secrets (
    name TEXT PRIMARY KEY NOT NULL,
    sealed BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Version 5: calls that lived in memory share a row for their payloads; see [`super::bundle`].
///
/// - `executions.input_kept` tells where a payload is: 0 nowhere (runs may have rows), 1 in `inputs`, 2 in a bundle;
///   3 says that its runs are in a bundle and an input is nowhere; -1 that runs may have rows, and 0 of a row that is
///   written from now on that nothing of it is kept.
/// - What is in a bundle grows old with it, so its state rows need no entry in an index of their own.
const STEP_5: &str = "
CREATE TABLE bundles (
    first_seq INTEGER PRIMARY KEY,
    newest_end INTEGER NOT NULL,
    ids BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX bundles_by_end ON bundles (newest_end);

DROP INDEX executions_by_end;
CREATE INDEX executions_by_end ON executions (finished_at)
    WHERE finished_at IS NOT NULL AND input_kept < 2;
";

/// Version 6: lists of successes do not pass over what else there is.
///
/// - One index per function for every standing, NULL included; lists of any status merge its parts. It takes
///   the place of two, of which a success had an entry in one.
/// - `success_spans` has the spans of time (ids by their first five bytes: 256 ms) in which an execution began
///   that ended well, so that a success needs no entry of its own for lists of all functions. `last` is the
///   greatest id that a span can have. Whoever writes a success sees to its span, and the purge to those of
///   which no success is left.
const STEP_6: &str = "
DROP INDEX executions_by_function;
DROP INDEX executions_of_function;
CREATE INDEX executions_of_function ON executions (function, standing, id);

CREATE TABLE success_spans (
    first BLOB PRIMARY KEY NOT NULL CHECK (length(first) = 5),
    last BLOB NOT NULL CHECK (length(last) = 16)
) STRICT, WITHOUT ROWID;
INSERT INTO success_spans (first, last)
    SELECT span, unhex(hex(span) || 'FFFFFFFFFFFFFFFFFFFFFF')
    FROM (SELECT DISTINCT substr(id, 1, 5) AS span FROM executions WHERE standing IS NULL);
";

/// Version 7: how many of an execution's faults were deaths of the process. What was counted before is taken for
/// other faults: the next deaths show what it is.
const STEP_7: &str = "
ALTER TABLE executions ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
";

/// Version 8: bundles may be packed. Nothing that is there changes; a program that could not read such a bundle is
/// kept from trying.
const STEP_8: &str = "";

/// Where an execution's input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputKept {
    /// Nowhere.
    No,
    /// In a row of its own.
    Row,
    /// In a bundle, together with output and runs.
    Bundle,
    /// Nowhere, but the runs are in a bundle.
    BundleOfRuns,
    /// Nowhere, but runs have rows of their own, or will when they come late.
    RowsOfRuns,
}

impl InputKept {
    /// Whether a row with this number has an input somewhere.
    pub(super) fn has_input(code: i64) -> bool {
        code == Self::Row.code() || code == Self::Bundle.code()
    }

    /// Whether a row with this number has something in a bundle.
    pub(super) fn is_bundled(code: i64) -> bool {
        code >= Self::Bundle.code()
    }

    /// Whether runs of a row with this number are kept: not of a summary.
    pub(super) fn keeps_runs(code: i64) -> bool {
        code != Self::No.code()
    }

    /// The number that stands for it; below 2, the row is purged by itself.
    pub(super) fn code(self) -> i64 {
        match self {
            Self::No => 0,
            Self::Row => 1,
            Self::Bundle => 2,
            Self::BundleOfRuns => 3,
            Self::RowsOfRuns => -1,
        }
    }
}

/// Why a database could not be brought to the newest version.
#[derive(Debug)]
pub(super) enum MigrateError {
    /// It has a version beyond the last step.
    FromFuture(i64),
    /// A step failed; the steps before it stand.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// The version that `steps` lead to.
pub(super) fn newest(steps: &[&str]) -> i64 {
    i64::try_from(steps.len()).unwrap_or(i64::MAX)
}

/// The version that a database is at; an empty one is at 0.
///
/// # Errors
/// [`MigrateError::FromFuture`] if `steps` do not lead that far. Writes nothing.
pub(super) fn check(connection: &Connection, steps: &[&str]) -> Result<i64, MigrateError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found < 0 || found > newest(steps) {
        return Err(MigrateError::FromFuture(found));
    }
    Ok(found)
}

/// Takes a database through the steps that it has not seen.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), MigrateError> {
    let mut version = check(connection, steps)?;
    let seen = usize::try_from(version).unwrap_or(usize::MAX);
    for step in steps.iter().skip(seen) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        version += 1;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
