//! Where `run` keeps compiled code, so that the second run of a file need not compile it.
//!
//! **Invariant:** machine code is believed only from a folder that this user owns and nobody else may write to; the
//! folder has a bound, and what was not run for a week leaves it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::super::output;
use crate::config::env;
use crate::runtime::{CodeFolder, Runtime};

/// Compiled code beyond this many bytes makes room for newer: 1 GiB.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// What was not run for as long leaves the folder; the shorter ones are for a folder that is too large.
const KEPT_UNUSED: [Duration; 3] = [
    Duration::from_secs(7 * 24 * 60 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(60),
];

/// A folder for compiled code.
pub(super) struct Folder {
    path: PathBuf,
    /// Of a folder for this run alone, which goes with it.
    temporary: Option<TempDir>,
}

impl Folder {
    /// The folder that was asked for, else the one in the user's cache, else one for this run alone.
    ///
    /// # Errors
    /// The folder that was asked for cannot be used, or no temporary one can be made.
    pub(super) fn open(asked: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(asked) = asked {
            return Self::kept(asked);
        }
        let usual = env::user_cache_dir().map(|cache| Self::kept(&cache.join("pelton")));
        match usual {
            Some(Ok(folder)) => return Ok(folder),
            Some(Err(error)) => output::note(&format!(
                "note: compiled code is not kept: {error:#}; --cache-dir names another folder"
            )),
            None => {}
        }
        let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
        Ok(Self {
            path: temporary.path().to_owned(),
            temporary: Some(temporary),
        })
    }

    fn kept(parent: &Path) -> anyhow::Result<Self> {
        let path = parent.join("run");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let made = builder
            .create(&path)
            .and_then(|()| fs::symlink_metadata(&path));
        let found = made.with_context(|| format!("{} cannot be used", path.display()))?;
        ensure!(
            found.is_dir()
                && found.uid() == rustix::process::geteuid().as_raw()
                && found.mode() & 0o022 == 0,
            "others can write to {}, so machine code in it is not believed",
            path.display()
        );
        Ok(Self {
            path,
            temporary: None,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what was not run for long.
    pub(super) fn tidy(&self, runtime: &Runtime) {
        if self.temporary.is_some() {
            return;
        }
        if let Err(error) = self.sweep(runtime) {
            output::note(&format!(
                "note: old code could not be removed from {}: {error}",
                self.path.display()
            ));
        }
    }

    fn sweep(&self, runtime: &Runtime) -> io::Result<()> {
        let code = CodeFolder::at(&self.path);
        for unused in KEPT_UNUSED {
            runtime.sweep_unused(unused)?;
            if code.machine_code_bytes()? <= CODE_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }
}
