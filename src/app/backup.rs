//! Backup of a data folder, in use or not, and its way back.
//!
//! A backup is a data folder of its own: database, wasm, labels. It needs no machine code (see
//! [`CodeFolder`]) and no log.
//!
//! **Invariant:** a backup is under its name whole, synced and checked, or not at all; nothing is ever
//! written over, and the source is only read. Nobody but its owner can read a backup.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::settings::CODE_DIR;
use crate::clock::Clock;
use crate::folder;
use crate::model::{Digest, Timestamp};
use crate::runtime::{CodeFolder, Kept};
use crate::store::sqlite::{self, Contents, Pages};

/// Says when a backup was made, and by whom. Nothing depends on it.
const NOTE: &str = "backup.json";
/// Begins the name of a folder that is not a backup yet.
const UNFINISHED: &str = ".unfinished-backup-";

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The database is being copied.
    Database(Pages),
    /// Files of wasm are being copied.
    Code {
        /// Copied.
        done: usize,
        /// In all.
        total: usize,
    },
    /// All of it is being read back.
    Checking,
}

/// Who is told how far the work is.
pub type Tell<'a> = &'a mut dyn FnMut(Progress);

/// What a backup or a restore came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// What the database holds.
    pub contents: Contents,
    /// Bytes of wasm.
    pub code_bytes: u64,
    /// When the backup was made, where that is known.
    pub made_at: Option<Timestamp>,
}

/// Copies a data folder, whether a plane is using it or not. Blocks on the disk.
///
/// # Errors
/// `to` exists; the source is damaged or from the future; a file of wasm is missing; the disk. Nothing is
/// left of a backup that failed.
pub fn backup(data_dir: &Path, to: &Path, tell: Tell<'_>) -> anyhow::Result<Summary> {
    if fs::symlink_metadata(to).is_ok() {
        bail!(
            "{} exists: name a folder that does not, it will be made",
            to.display()
        );
    }
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    // Beside its place, so that it can be renamed; removed again if anything fails.
    let unfinished = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    let source = CodeFolder::at(data_dir.join(CODE_DIR));
    let target = CodeFolder::at(unfinished.path().join(CODE_DIR));
    target.create().context("cannot make the folder of code")?;

    // Code that is there now may be removed while the database is copied, and code may come: what is known
    // now is copied first, and the rest afterwards, within the hour in which no sweep touches what is new.
    let early = sqlite::digests(data_dir)?;
    for (done, digest) in early.iter().enumerate() {
        // Missing: its function was deleted just now, or the check below says so.
        source.copy_to(digest, &target)?;
        let (done, total) = (done + 1, early.len());
        tell(Progress::Code { done, total });
    }
    let contents = sqlite::copy(data_dir, unfinished.path(), &mut |pages| {
        tell(Progress::Database(pages));
    })?;
    let code_bytes = copy_code(&source, &target, &contents.digests)?;
    tell(Progress::Checking);
    check_code(&target, &contents.digests)?;
    let made_at = Clock::system().now();
    write_note(unfinished.path(), &contents, made_at).context("cannot write the note")?;

    rename_new(unfinished.path(), to)?;
    // It has its name: what was temporary is gone, and must not be removed.
    let _ = unfinished.keep();
    File::open(&parent)
        .and_then(|parent| parent.sync_all())
        .with_context(|| format!("cannot sync {}", parent.display()))?;
    Ok(Summary {
        contents,
        code_bytes,
        made_at: Some(made_at),
    })
}

/// Puts a backup into a data folder that is new or empty. Blocks on the disk.
///
/// # Errors
/// The target holds something or is in use; the backup is in use, damaged, incomplete or from the future; the
/// disk. A restore that failed leaves no database behind, but may leave files: the error says so.
pub fn restore(from: &Path, data_dir: &Path, tell: Tell<'_>) -> anyhow::Result<Summary> {
    if sqlite::is_in_use(from) {
        bail!(
            "{} is in use by a Pelton that runs, so it is no backup: two planes must not go on with the same work. \
             Make a backup of it first (`pelton backup`)",
            from.display()
        );
    }
    // Before anything is made in the target.
    let digests = sqlite::digests(from)?;
    let source = CodeFolder::at(from.join(CODE_DIR));
    check_code(&source, &digests)?;
    let place = sqlite::Target::take(data_dir)?;
    let code = CodeFolder::at(data_dir.join(CODE_DIR));
    let restored = (|| {
        code.create().context("cannot make the folder of code")?;
        let code_bytes = copy_code(&source, &code, &digests)?;
        let total = digests.len();
        tell(Progress::Code { done: total, total });
        let contents = place.install(from, &mut |pages| tell(Progress::Database(pages)))?;
        Ok::<_, anyhow::Error>((contents, code_bytes))
    })();
    let (contents, code_bytes) = restored.with_context(|| {
        format!(
            "the restore failed; remove {} and try again",
            data_dir.display()
        )
    })?;
    Ok(Summary {
        contents,
        code_bytes,
        made_at: read_note(from),
    })
}

/// Copies what is not there yet; returns the bytes of wasm that are there then.
fn copy_code(
    source: &CodeFolder,
    target: &CodeFolder,
    digests: &HashSet<Digest>,
) -> anyhow::Result<u64> {
    let mut bytes = 0_u64;
    for digest in digests {
        let kept = source
            .copy_to(digest, target)
            .with_context(|| format!("cannot copy the code {digest}"))?;
        bytes = bytes.saturating_add(whole(digest, kept)?);
    }
    target.sync().context("cannot sync the folder of code")?;
    Ok(bytes)
}

fn check_code(folder: &CodeFolder, digests: &HashSet<Digest>) -> anyhow::Result<()> {
    for digest in digests {
        let kept = folder
            .check(digest)
            .with_context(|| format!("cannot read the code {digest}"))?;
        whole(digest, kept)?;
    }
    Ok(())
}

fn whole(digest: &Digest, kept: Kept) -> anyhow::Result<u64> {
    match kept {
        Kept::Whole { bytes } => Ok(bytes),
        Kept::Missing => bail!(
            "the code {digest} is missing: deploy the file again, or delete the functions whose versions name it"
        ),
        Kept::Damaged => bail!(
            "the code {digest} is damaged: remove its files and deploy it again, or delete the functions whose \
             versions name it"
        ),
    }
}

/// Renames a folder to a name that must be free.
fn rename_new(from: &Path, to: &Path) -> anyhow::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that does not know the flag; a folder that holds something is refused all the same.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::rename(from, to).with_context(|| format!("cannot rename to {}", to.display()))
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot give the backup its name {}", to.display()))
        }
    }
}

fn write_note(dir: &Path, contents: &Contents, made_at: Timestamp) -> anyhow::Result<()> {
    let note = json!({
        "madeAtMs": made_at.0,
        "pelton": env!("CARGO_PKG_VERSION"),
        "schema": contents.schema,
        "boot": contents.boot,
        "functions": contents.functions,
        "unfinished": contents.unfinished,
    });
    let path = dir.join(NOTE);
    let mut file = folder::new_file(&path)?;
    file.write_all(format!("{note:#}\n").as_bytes())?;
    file.sync_all()?;
    Ok(folder::sync(dir)?)
}

fn read_note(folder: &Path) -> Option<Timestamp> {
    let note: Value = serde_json::from_slice(&fs::read(folder.join(NOTE)).ok()?).ok()?;
    note["madeAtMs"].as_i64().map(Timestamp)
}
