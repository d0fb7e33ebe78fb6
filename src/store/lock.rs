//! One process per data folder: a lock on a file in it, which the system releases when the process ends.
//!
//! **Invariant:** the file is never removed: a second process must meet the same file, not a new one of
//! the same name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;

/// Name of the lock file.
pub(crate) const FILE_NAME: &str = "pelton.lock";

/// The right to use a folder, until it is dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

/// Why a folder cannot be had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody else has it.
    InUse,
    /// The file cannot be opened or locked.
    Io(io::Error),
}

impl FolderLock {
    /// Takes the folder, at once or not at all.
    pub(crate) fn take(dir: &Path) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(FILE_NAME))
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::InUse),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        // For people who look at the file; the lock does not depend on it.
        let pid = format!("{}\n", std::process::id());
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(pid.as_bytes()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_had_once_and_free_again_after() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(dir.path()).unwrap();
        assert!(matches!(
            FolderLock::take(dir.path()),
            Err(LockError::InUse)
        ));
        drop(first);
        assert!(FolderLock::take(dir.path()).is_ok());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(
            FolderLock::take(&missing),
            Err(LockError::Io(error)) if error.kind() == io::ErrorKind::NotFound
        ));
    }
}
