//! Moves what the write-ahead log holds into the database, off the path of the writer.
//!
//! A thread of its own copies the bulk while the writer goes on. What was written meanwhile is a small
//! rest, which the writer copies itself between two batches; after that the log starts again from its
//! beginning. So the log stays bounded although the writer never pauses for long.
//!
//! **Invariant:** never changes what a reader sees; a failure other than "busy" is reported, not retried.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode};

use super::Shared;
use super::connection::open_writing;
use super::options::{OpenError, Synchronous};

/// How many pages the log may have.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Beyond so many the helper is asked; asked again after as many more.
    soft: i64,
    /// Beyond so many the writer copies itself, whatever it costs.
    hard: i64,
}

/// In pages of 4 KiB.
const BOUNDS: Bounds = Bounds {
    soft: 2_000,
    hard: 32_000,
};

/// The writer's side.
pub(super) struct Checkpointer {
    pace: Pace,
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

/// When whom to let copy.
struct Pace {
    bounds: Bounds,
    ask: SyncSender<()>,
    ask_at: Cell<i64>,
    rest_is_left: Arc<AtomicBool>,
}

/// What the writer did about its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    /// The log is short, or asking once more would bring nothing.
    Nothing,
    AskedTheHelper,
    CopiedItself,
}

impl Checkpointer {
    /// Starts the helper.
    ///
    /// # Errors
    /// No connection, or no thread.
    pub(super) fn start(
        path: &Path,
        synchronous: Synchronous,
        shared: Arc<Shared>,
    ) -> Result<Self, OpenError> {
        let connection = open_writing(path, synchronous).map_err(OpenError::database(path))?;
        let (pace, asked) = Pace::new(BOUNDS);
        let rest_is_left = Arc::clone(&pace.rest_is_left);
        let helped = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || help(&connection, &asked, &rest_is_left, &helped))
            .map_err(OpenError::io(path))?;
        Ok(Self {
            pace,
            thread,
            shared,
        })
    }

    /// Called by the writer after a commit, outside any transaction.
    ///
    /// # Errors
    /// The log could not be copied: nothing may be written any more.
    pub(super) fn after_commit(&self, writer: &Connection) -> rusqlite::Result<()> {
        if self.pace.after_commit(writer)? == Did::AskedTheHelper {
            self.shared.counters.checkpoint_asked();
        }
        Ok(())
    }

    /// Waits until the helper has ended.
    pub(super) fn stop(self) {
        drop(self.pace);
        // It reports its own failures; a panic of its has nothing to add.
        let _ = self.thread.join();
    }
}

impl Pace {
    /// And where the helper hears that it is asked.
    fn new(bounds: Bounds) -> (Self, Receiver<()>) {
        let (ask, asked) = sync_channel(1);
        let pace = Self {
            bounds,
            ask,
            ask_at: Cell::new(bounds.soft),
            rest_is_left: Arc::new(AtomicBool::new(false)),
        };
        (pace, asked)
    }

    fn after_commit(&self, writer: &Connection) -> rusqlite::Result<Did> {
        if self.rest_is_left.swap(false, Ordering::AcqRel) {
            checkpoint(writer, "PASSIVE")?;
        }
        let Bounds { soft, hard } = self.bounds;
        let pages = pages_in_log(writer)?;
        if pages < soft {
            self.ask_at.set(soft);
        } else if pages >= self.ask_at.get() {
            // Somebody who reads for long keeps the log from starting again: ask now and then only.
            self.ask_at.set(pages.saturating_add(soft));
            if pages >= hard {
                checkpoint(writer, "PASSIVE")?;
                return Ok(Did::CopiedItself);
            }
            // A full channel means that the helper has not come to the last request yet.
            let _ = self.ask.try_send(());
            return Ok(Did::AskedTheHelper);
        }
        Ok(Did::Nothing)
    }
}

fn help(connection: &Connection, asked: &Receiver<()>, rest_is_left: &AtomicBool, shared: &Shared) {
    while asked.recv().is_ok() {
        shared.counters.checkpoint_asked();
        match copy_bulk(connection, rest_is_left) {
            Ok(()) => shared.counters.checkpointed(),
            Err(error) => {
                shared.poison(&format!("a checkpoint failed: {error}"));
                return;
            }
        }
    }
}

/// The helper's part of a checkpoint; the rest is the writer's.
fn copy_bulk(connection: &Connection, rest_is_left: &AtomicBool) -> rusqlite::Result<()> {
    checkpoint(connection, "PASSIVE")?;
    rest_is_left.store(true, Ordering::Release);
    Ok(())
}

/// Copies what can be copied without waiting for anybody (PASSIVE), or waits and cuts the log back to
/// nothing (TRUNCATE). Being too busy for it is no failure.
///
/// # Errors
/// The disk failed.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    match log_and_copied(connection, mode) {
        Ok(_) => Ok(()),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Ok(()),
            _ => Err(error),
        },
    }
}

fn pages_in_log(connection: &Connection) -> rusqlite::Result<i64> {
    log_and_copied(connection, "NOOP").map(|(pages, _)| pages)
}

/// Pages in the log, and how many of them are in the database already.
fn log_and_copied(connection: &Connection, mode: &str) -> rusqlite::Result<(i64, i64)> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

#[cfg(test)]
mod tests;
