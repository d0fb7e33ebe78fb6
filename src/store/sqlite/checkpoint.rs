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

/// Pages in the log (4 KiB each) beyond which the helper is asked; asked again after as many more.
const PAGES_SOFT: i64 = 2_000;
/// Pages in the log beyond which the writer copies itself, whatever it costs.
const PAGES_HARD: i64 = 32_000;

/// The writer's side.
pub(super) struct Checkpointer {
    ask: SyncSender<()>,
    rest_is_left: Arc<AtomicBool>,
    ask_at: Cell<i64>,
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
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
        let (ask, asked) = sync_channel(1);
        let rest_is_left = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&rest_is_left);
        let helped = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || help(&connection, &asked, &flag, &helped))
            .map_err(OpenError::io(path))?;
        Ok(Self {
            ask,
            rest_is_left,
            ask_at: Cell::new(PAGES_SOFT),
            thread,
            shared,
        })
    }

    /// Called by the writer after a commit, outside any transaction.
    ///
    /// # Errors
    /// The log could not be copied: nothing may be written any more.
    pub(super) fn after_commit(&self, writer: &Connection) -> rusqlite::Result<()> {
        if self.rest_is_left.swap(false, Ordering::AcqRel) {
            checkpoint(writer, "PASSIVE")?;
        }
        let pages = pages_in_log(writer)?;
        if pages < PAGES_SOFT {
            self.ask_at.set(PAGES_SOFT);
        } else if pages >= self.ask_at.get() {
            // Somebody who reads for long keeps the log from starting again: ask now and then only.
            self.ask_at.set(pages.saturating_add(PAGES_SOFT));
            if pages >= PAGES_HARD {
                checkpoint(writer, "PASSIVE")?;
            } else {
                self.shared.counters.checkpoint_asked();
                // A full channel means that the helper has not come to the last request yet.
                let _ = self.ask.try_send(());
            }
        }
        Ok(())
    }

    /// Waits until the helper has ended.
    pub(super) fn stop(self) {
        drop(self.ask);
        // It reports its own failures; a panic of its has nothing to add.
        let _ = self.thread.join();
    }
}

fn help(connection: &Connection, asked: &Receiver<()>, rest_is_left: &AtomicBool, shared: &Shared) {
    while asked.recv().is_ok() {
        shared.counters.checkpoint_asked();
        match checkpoint(connection, "PASSIVE") {
            Ok(()) => {
                shared.counters.checkpointed();
                rest_is_left.store(true, Ordering::Release);
            }
            Err(error) => {
                shared.poison(&format!("a checkpoint failed: {error}"));
                return;
            }
        }
    }
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
