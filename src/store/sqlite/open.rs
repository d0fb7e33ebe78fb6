//! Opening a data folder: the lock, the schema, the boot number, the threads.
//!
//! **Invariant:** nothing is written before the lock is held and the schema's version is known; the
//! boot number is durable before anybody sees it.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::watch;

use super::buffer::Buffer;
use super::checkpoint::Checkpointer;
use super::connection::{open_writing, use_wal};
use super::inbox::Inbox;
use super::options::{OpenError, Options};
use super::readers::Readers;
use super::schema::{self, MigrateError};
use super::stats::Counters;
use super::writer::Writer;
use super::{Shared, SqliteStore};
use crate::folder;
use crate::store::lock::{FolderLock, LockError};

/// Name of the database in the data folder.
pub(super) const DATABASE: &str = "pelton.db";
/// Bits of a row number below the boot number.
const SEQ_COUNTER_BITS: u32 = 40;

impl SqliteStore {
    /// Opens the store in a folder, which is created if missing and brought to this build's schema.
    /// Blocks on the disk: call it before serving, or on a thread that may block.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let dir = options.dir.as_path();
        create(dir)?;
        let lock = FolderLock::take(dir).map_err(|error| match error {
            LockError::InUse => OpenError::InUse {
                dir: dir.to_owned(),
            },
            LockError::Io(source) => OpenError::io(dir)(source),
        })?;
        let path = dir.join(DATABASE);
        let (connection, boot) = prepare(&path, &options)?;
        sync_folder(dir)?;
        let readers = Readers::open(&path, options.readers).map_err(OpenError::database(&path))?;
        let shared = Arc::new(Shared {
            inbox: Inbox::new(&options),
            buffer: Buffer::new(options.write_behind_bytes_max),
            poison: watch::Sender::new(None),
            ended: watch::Sender::new(false),
            counters: Counters::new(),
            lock: Mutex::new(Some(lock)),
        });
        let writer = Writer {
            connection,
            next_seq: Cell::new(i64::from(boot) << SEQ_COUNTER_BITS),
            bundle: RefCell::default(),
            checkpointer: Checkpointer::start(&path, options.synchronous, Arc::clone(&shared))?,
            faults: options.faults,
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::io(&path))?;
        Ok(Self {
            boot,
            readers,
            shared,
            closing: AtomicBool::new(false),
        })
    }
}

fn create(dir: &Path) -> Result<(), OpenError> {
    folder::make(dir).map_err(OpenError::io(dir))
}

/// Opens the database, migrates it and takes the next boot number.
fn prepare(path: &Path, options: &Options) -> Result<(Connection, u32), OpenError> {
    let failed = |error: MigrateError| match error {
        MigrateError::FromFuture(found) => OpenError::FromFuture {
            path: path.to_owned(),
            found,
            supported: schema::newest(schema::STEPS),
        },
        MigrateError::Sql(error) => OpenError::database(path)(error),
    };
    let mut connection =
        open_writing(path, options.synchronous).map_err(OpenError::database(path))?;
    schema::check(&connection, schema::STEPS).map_err(failed)?;
    use_wal(&connection).map_err(OpenError::database(path))?;
    schema::migrate(&mut connection, schema::STEPS).map_err(failed)?;
    let boot = next_boot(&connection).map_err(OpenError::database(path))?;
    Ok((connection, boot))
}

/// Raises the boot number: one statement, durable when it returns. The limit keeps fences and row
/// numbers, which begin with it, positive; it is eight million starts away.
fn next_boot(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row(
        "UPDATE plane SET boot = boot + 1 WHERE id = 1 AND boot < (1 << 23) - 1 RETURNING boot",
        [],
        |row| row.get(0),
    )
}

/// Makes the folder's entries durable, and the folder's own entry.
pub(super) fn sync_folder(dir: &Path) -> Result<(), OpenError> {
    let sync = |path: &Path| folder::sync(path).map_err(OpenError::io(path));
    sync(dir)?;
    match dir.canonicalize().map_err(OpenError::io(dir))?.parent() {
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}
