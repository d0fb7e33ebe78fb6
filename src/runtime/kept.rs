//! The folder of code as files, for those who work on it without a runtime: backup, restore, checks.
//!
//! What a backup needs is the wasm and its label. Machine code and the key that signs it stay behind: code is
//! compiled again at its first call, and whoever can change a backup cannot make a plane run machine code.
//!
//! **Invariant:** never writes a file that is there already, and removes nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::cache::{DIGEST_DIGITS, KEY_FILE, UNFINISHED, found, has_extension};
use super::compile::digest_of;
use super::wire::Label;
use crate::folder;
use crate::model::Digest;

/// Bytes of the key.
const KEY_BYTES: u64 = 32;

/// What is kept of one upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All that is needed.
    Whole {
        /// Size of the wasm in bytes.
        bytes: u64,
    },
    /// The wasm or its label is not there.
    Missing,
    /// The wasm or its label is not what it was.
    Damaged,
}

/// What became of the key that signs machine code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It is there, for its owner only.
    Sound,
    /// There is none yet: the next start makes one.
    Missing,
    /// It is not as long as a key is: the next start makes a new one.
    Damaged,
    /// Others than the owner may read it, and sign machine code with it.
    Exposed,
}

/// The files of one upload, as they were read.
struct Files {
    wasm: Vec<u8>,
    label: Vec<u8>,
}

/// A folder of code that may be another process's.
#[derive(Debug, Clone)]
pub struct CodeFolder {
    dir: PathBuf,
}

impl CodeFolder {
    /// The folder at this path, which need not exist.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Makes the folder, for its owner only.
    ///
    /// # Errors
    /// The system's.
    pub fn create(&self) -> io::Result<()> {
        folder::make(&self.dir)
    }

    /// Looks at the files of a digest, and reads all of the wasm.
    ///
    /// # Errors
    /// They are there and cannot be read.
    pub fn check(&self, digest: &Digest) -> io::Result<Kept> {
        match self.read(digest)? {
            Ok(files) => Ok(Kept::Whole {
                bytes: u64::try_from(files.wasm.len()).unwrap_or(u64::MAX),
            }),
            Err(kept) => Ok(kept),
        }
    }

    /// Whether the files of a digest are there; does not read the wasm.
    pub fn has(&self, digest: &Digest) -> bool {
        self.wasm_path(digest).is_file() && self.label_path(digest).is_file()
    }

    /// Copies wasm and label to another folder, unless they are there; each is synced, the folder is not.
    ///
    /// # Errors
    /// The system's. [`Kept::Missing`] and [`Kept::Damaged`] are answers, and nothing was copied.
    pub fn copy_to(&self, digest: &Digest, to: &Self) -> io::Result<Kept> {
        if let kept @ Kept::Whole { .. } = to.check(digest)? {
            return Ok(kept);
        }
        let files = match self.read(digest)? {
            Ok(files) => files,
            Err(kept) => return Ok(kept),
        };
        write_new(&to.wasm_path(digest), &files.wasm)?;
        write_new(&to.label_path(digest), &files.label)?;
        Ok(Kept::Whole {
            bytes: u64::try_from(files.wasm.len()).unwrap_or(u64::MAX),
        })
    }

    /// Makes the folder's entries durable.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// The digests that have files here.
    ///
    /// # Errors
    /// The folder cannot be read; one that is missing has none.
    pub fn digests(&self) -> io::Result<HashSet<Digest>> {
        let mut digests = HashSet::new();
        for path in self.files()? {
            let name = path.file_name().and_then(|name| name.to_str());
            let digits = name.and_then(|name| name.get(..DIGEST_DIGITS));
            digests.extend(digits.and_then(|digits| digits.parse::<Digest>().ok()));
        }
        Ok(digests)
    }

    /// Bytes of machine code, which can be had again.
    ///
    /// # Errors
    /// See [`CodeFolder::digests`].
    pub fn machine_code_bytes(&self) -> io::Result<u64> {
        let files = self.files()?.into_iter();
        let code = files.filter(|path| has_extension(path, "cwasm"));
        Ok(code
            .filter_map(|path| fs::metadata(path).ok())
            .map(|file| file.len())
            .fold(0, u64::saturating_add))
    }

    /// The key that signs machine code.
    ///
    /// # Errors
    /// The system's.
    pub fn key(&self) -> io::Result<KeyState> {
        use std::os::unix::fs::PermissionsExt as _;
        let Some(file) = found(fs::metadata(self.dir.join(KEY_FILE)))? else {
            return Ok(KeyState::Missing);
        };
        Ok(if file.len() != KEY_BYTES {
            KeyState::Damaged
        } else if file.permissions().mode() & 0o077 != 0 {
            KeyState::Exposed
        } else {
            KeyState::Sound
        })
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let Some(entries) = found(fs::read_dir(&self.dir))? else {
            return Ok(Vec::new());
        };
        let unfinished = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(UNFINISHED))
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let paths: io::Result<Vec<_>> = paths.collect();
        Ok(paths?
            .into_iter()
            .filter(|path| !unfinished(path))
            .collect())
    }

    fn read(&self, digest: &Digest) -> io::Result<Result<Files, Kept>> {
        let (Some(wasm), Some(label)) = (
            found(fs::read(self.wasm_path(digest)))?,
            found(fs::read(self.label_path(digest)))?,
        ) else {
            return Ok(Err(Kept::Missing));
        };
        let readable = serde_json::from_slice::<Label>(&label).is_ok();
        if !readable || digest_of(&wasm) != *digest {
            return Ok(Err(Kept::Damaged));
        }
        Ok(Ok(Files { wasm, label }))
    }

    fn wasm_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.wasm"))
    }

    fn label_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.json"))
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = folder::new_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
