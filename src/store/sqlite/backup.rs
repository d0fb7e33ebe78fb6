//! Copies a database while somebody may be writing it, and puts such a copy into a new folder.
//!
//! The copy is one moment of the source: a read transaction is held over all steps, which in a database
//! with a write-ahead log keeps nobody from writing (the log grows until the copy is done).
//!
//! **Invariant:** the source is never written, and needs no folder lock; a copy is called done only after
//! it was synced, checked page by page and read back.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::connection::{open_copy, open_reading};
use super::inspect::{Contents, contents, first_flaw};
use super::open::{DATABASE, sync_folder};
use super::schema;
use crate::folder;
use crate::model::Digest;
use crate::store::lock::{FILE_NAME as LOCK_FILE, FolderLock, LockError};

/// Pages copied in one step: 4 MiB.
const PAGES_A_STEP: i32 = 512;
/// The copy's pages are brought to the disk after so many steps, so that no long sync at the end keeps the
/// writer's own waiting.
const STEPS_A_SYNC: u32 = 8;
/// How far a restore moves the boot number ahead: fences stay greater than all that the lost time gave out,
/// unless the plane was started more often than this since the backup.
const BOOT_LEAP: u32 = 1000;
/// The restored database before it is complete.
const UNFINISHED: &str = "pelton.db.unfinished";
/// What a folder may hold and still count as empty: our lock, and what a new file system brings along.
const NOTHINGS: [&str; 2] = [LOCK_FILE, "lost+found"];

/// Why a database could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is none.
    #[error("{} holds no database of Pelton's", .0.display())]
    NoDatabase(PathBuf),
    /// A newer Pelton wrote it.
    #[error(
        "its schema has version {found}, and this Pelton knows versions up to {supported}: use a newer Pelton"
    )]
    FromFuture {
        /// Its schema version.
        found: i64,
        /// The newest one that this build knows.
        supported: i64,
    },
    /// The pages do not fit together.
    #[error("the database {} is damaged: {what}", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What the check found first.
        what: String,
    },
    /// A running Pelton has the folder.
    #[error("{} is in use by a Pelton that runs: {advice}", .dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The way out.
        advice: &'static str,
    },
    /// The folder to restore into holds something.
    #[error("{} is not empty (it holds {found}): name a folder that is new or empty", .dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// A file or folder cannot be used.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A record cannot be read.
    #[error("the database {} cannot be read: {cause}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
}

impl CopyError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(super) fn unreadable<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |cause| Self::Unreadable {
            path,
            cause: cause.to_string(),
        }
    }
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// Copied.
    pub done: u32,
    /// In all.
    pub total: u32,
}

/// The digests of all wasm that the versions in a folder's database name. Writes nothing.
///
/// # Errors
/// [`CopyError`].
pub fn digests(dir: &Path) -> Result<HashSet<Digest>, CopyError> {
    let path = existing(dir)?;
    let connection = open_reading(&path).map_err(CopyError::unreadable(&path))?;
    check_version(&path, &connection)?;
    Ok(contents(&connection)
        .map_err(CopyError::unreadable(&path))?
        .digests)
}

/// Copies the database of one folder, which may be in use, into another, which must have none. The copy is a
/// single file, synced and checked. Blocks on the disk.
///
/// # Errors
/// [`CopyError`]; what was written so far is the caller's to remove.
pub fn copy(
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(Pages),
) -> Result<Contents, CopyError> {
    let contents = copy_as(from, &to.join(DATABASE), progress)?;
    sync(to)?;
    Ok(contents)
}

fn copy_as(
    from: &Path,
    target: &Path,
    progress: &mut dyn FnMut(Pages),
) -> Result<Contents, CopyError> {
    let source_path = existing(from)?;
    let source = open_reading(&source_path).map_err(CopyError::unreadable(&source_path))?;
    check_version(&source_path, &source)?;
    // Made here, so that no file of the same name is ever written over.
    let file = folder::new_file(target).map_err(CopyError::io(target))?;
    let mut copy = open_copy(target).map_err(CopyError::unreadable(target))?;
    copy_pages(&source, &mut copy, &file, progress).map_err(CopyError::unreadable(&source_path))?;
    // The log stays behind: a copy is one file.
    copy.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
        .map_err(CopyError::unreadable(target))?;
    drop(copy);
    file.sync_all().map_err(CopyError::io(target))?;
    checked(target)
}

fn copy_pages(
    source: &Connection,
    copy: &mut Connection,
    file: &File,
    progress: &mut dyn FnMut(Pages),
) -> rusqlite::Result<()> {
    // Without a transaction of its own every step sees another moment, and a copy of a database that is
    // being written begins again and again.
    source.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1;")?;
    {
        let backup = Backup::new(source, copy)?;
        let mut steps = 0_u32;
        loop {
            let step = backup.step(PAGES_A_STEP)?;
            let now = backup.progress();
            let total = u32::try_from(now.pagecount).unwrap_or(0);
            let left = u32::try_from(now.remaining).unwrap_or(0);
            progress(Pages {
                done: total.saturating_sub(left),
                total,
            });
            steps = steps.wrapping_add(1);
            if steps.is_multiple_of(STEPS_A_SYNC) {
                // Only to spread the work; whether all of it is on the disk is asked at the end.
                let _ = file.sync_data();
            }
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // Busy or locked: the connection has waited its time already.
                StepResult::Busy | StepResult::Locked | _ => {
                    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                    return Err(rusqlite::Error::SqliteFailure(busy, None));
                }
            }
        }
    }
    source.execute_batch("COMMIT")
}

/// Reads a copy back, every page of it.
fn checked(path: &Path) -> Result<Contents, CopyError> {
    let connection = open_reading(path).map_err(CopyError::unreadable(path))?;
    let flaw = first_flaw(&connection, "integrity_check").map_err(CopyError::unreadable(path))?;
    if let Some(what) = flaw {
        let path = path.to_owned();
        return Err(CopyError::Damaged { path, what });
    }
    contents(&connection).map_err(CopyError::unreadable(path))
}

fn existing(dir: &Path) -> Result<PathBuf, CopyError> {
    let path = dir.join(DATABASE);
    match fs::metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        Ok(_) => Err(CopyError::NoDatabase(dir.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(CopyError::NoDatabase(dir.to_owned()))
        }
        Err(error) => Err(CopyError::io(&path)(error)),
    }
}

fn check_version(path: &Path, connection: &Connection) -> Result<(), CopyError> {
    match schema::check(connection, schema::STEPS) {
        Ok(0) => Err(CopyError::NoDatabase(path.to_owned())),
        Ok(_) => Ok(()),
        Err(schema::MigrateError::FromFuture(found)) => Err(CopyError::FromFuture {
            found,
            supported: schema::newest(schema::STEPS),
        }),
        Err(schema::MigrateError::Sql(error)) => Err(CopyError::unreadable(path)(error)),
    }
}

fn sync(dir: &Path) -> Result<(), CopyError> {
    sync_folder(dir).map_err(|source| CopyError::Unreadable {
        path: dir.to_owned(),
        cause: source.to_string(),
    })
}

/// A folder that is being restored into: empty but for what the restore puts there, and locked, so that no
/// plane starts on half of it. The database appears last and at once.
#[derive(Debug)]
pub struct Target {
    dir: PathBuf,
    _lock: FolderLock,
}

impl Target {
    /// Takes a folder, which is made if missing.
    ///
    /// # Errors
    /// [`CopyError::NotEmpty`], [`CopyError::InUse`], [`CopyError::Io`].
    pub fn take(dir: &Path) -> Result<Self, CopyError> {
        // Looked at before anything is made in it, even a lock.
        if dir.exists() {
            Self::check_empty(dir)?;
        }
        folder::make(dir).map_err(CopyError::io(dir))?;
        let lock = FolderLock::take(dir).map_err(|error| match error {
            LockError::InUse => CopyError::InUse {
                dir: dir.to_owned(),
                advice: "stop it, or restore into another folder",
            },
            LockError::Io(source) => CopyError::io(dir)(source),
        })?;
        Self::check_empty(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    fn check_empty(dir: &Path) -> Result<(), CopyError> {
        for entry in fs::read_dir(dir).map_err(CopyError::io(dir))? {
            let name = entry.map_err(CopyError::io(dir))?.file_name();
            let found = name.to_string_lossy();
            if !NOTHINGS.contains(&&*found) {
                return Err(CopyError::NotEmpty {
                    dir: dir.to_owned(),
                    found: found.into_owned(),
                });
            }
        }
        Ok(())
    }

    /// Puts the database of a backup into the folder, brought to this build's schema, its free pages given
    /// back and its boot number moved ahead. Everything else must be there already.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn install(
        self,
        from: &Path,
        progress: &mut dyn FnMut(Pages),
    ) -> Result<Contents, CopyError> {
        let unfinished = self.dir.join(UNFINISHED);
        copy_as(from, &unfinished, progress)?;
        self.prepare(&unfinished)
            .map_err(CopyError::unreadable(&unfinished))?;
        let contents = checked(&unfinished)?;
        File::open(&unfinished)
            .and_then(|file| file.sync_all())
            .map_err(CopyError::io(&unfinished))?;
        let path = self.dir.join(DATABASE);
        fs::rename(&unfinished, &path).map_err(CopyError::io(&path))?;
        sync(&self.dir)?;
        Ok(contents)
    }

    fn prepare(&self, path: &Path) -> Result<(), String> {
        let text = |error: rusqlite::Error| error.to_string();
        let mut connection = open_copy(path).map_err(text)?;
        schema::migrate(&mut connection, schema::STEPS).map_err(|error| match error {
            schema::MigrateError::FromFuture(found) => format!("schema version {found}"),
            schema::MigrateError::Sql(error) => error.to_string(),
        })?;
        connection
            .execute(
                "UPDATE plane SET boot = min(boot + ?1, (1 << 23) - 1) WHERE id = 1",
                [BOOT_LEAP],
            )
            .map_err(text)?;
        connection.execute_batch("VACUUM").map_err(text)
    }
}

/// Whether a running plane has this folder. Asks for a lock that others may share, for an instant.
pub fn is_in_use(dir: &Path) -> bool {
    File::open(dir.join(LOCK_FILE))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests;
