//! Keeps uploads and their machine code as files named by digest.
//!
//! **Invariant:** machine code is handed out only if its MAC, made with a key that never leaves this folder
//! and this process, covers the digest, this exact engine, the label and every byte of it. Every file appears
//! whole: written aside, fsynced, renamed, folder fsynced; the label appears last, and without it nothing is
//! known.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::Hash;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::NamedTempFile;
use wasmtime::Engine;

use super::compile::digest_of;
use super::engine::Flavor;
use super::wire::Label;
use crate::folder;
use crate::model::Digest;

/// The version of wasmtime that this program is built with. A patch release may compile differently, and
/// wasmtime's own check compares only the first number; a test compares this with the lock file.
pub(super) const WASMTIME_VERSION: &str = "48.0.8";
/// Holds the secret that machine code is signed with.
pub(super) const KEY_FILE: &str = "cache.key";
/// Begins the name of a file that is not finished.
pub(super) const UNFINISHED: &str = ".unfinished-";
/// How long a file that nothing refers to is left alone: a deploy may be about to refer to it.
pub(super) const GRACE: Duration = Duration::from_secs(60 * 60);
/// Digits of a digest at the beginning of a file's name.
pub(super) const DIGEST_DIGITS: usize = 64;

/// The folder of uploads and machine code.
pub(super) struct Cache {
    dir: PathBuf,
    secret: [u8; 32],
    keys: EngineKeys,
    /// Held for the moment in which a file appears, is renewed or is removed: never removed just as it is found.
    sweeping: Mutex<()>,
}

/// What the machine code of each engine is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineKeys {
    plain: String,
    with_async: String,
}

impl EngineKeys {
    /// The keys of engines of each flavor.
    pub(super) fn of(
        engine: impl Fn(Flavor) -> wasmtime::Result<Engine>,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            plain: engine_key(&engine(Flavor::Plain)?),
            with_async: engine_key(&engine(Flavor::Async)?),
        })
    }

    fn get(&self, flavor: Flavor) -> &str {
        match flavor {
            Flavor::Plain => &self.plain,
            Flavor::Async => &self.with_async,
        }
    }
}

/// Machine code whose MAC was right, still open.
#[derive(Debug)]
pub(super) struct Artifact {
    /// The file whose bytes were checked.
    pub(super) file: File,
    /// Its size in bytes.
    pub(super) size: u64,
}

impl Cache {
    /// Opens the folder, and makes it and its secret if they are missing. `keys` are those of the engines
    /// that will load the code.
    pub(super) fn open(dir: &Path, keys: EngineKeys) -> io::Result<Self> {
        folder::make(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            secret: secret(dir)?,
            keys,
            sweeping: Mutex::new(()),
        })
    }

    /// What is known of a file; marks it as just used, so that no sweep removes it before it is referred to.
    pub(super) fn known(&self, digest: &Digest) -> Option<Label> {
        let _sweeping = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        let label = self.label(digest)?;
        let renewed = File::options()
            .append(true)
            .open(self.label_path(digest))
            .and_then(|file| {
                let now = rustix::fs::Timespec {
                    tv_sec: 0,
                    tv_nsec: rustix::fs::UTIME_NOW,
                };
                let times = rustix::fs::Timestamps {
                    last_access: now,
                    last_modification: now,
                };
                Ok(rustix::fs::futimens(&file, &times)?)
            });
        if let Err(error) = renewed {
            tracing::warn!(code.digest = %digest, %error, "a kept file cannot be renewed");
        }
        Some(label)
    }

    /// The label of a file whose wasm is kept too.
    pub(super) fn label(&self, digest: &Digest) -> Option<Label> {
        let label = fs::read(self.label_path(digest)).ok()?;
        let label: Label = serde_json::from_slice(&label).ok()?;
        let size = fs::metadata(self.wasm_path(digest)).ok()?.len();
        (size == label.size).then_some(label)
    }

    /// The upload, if it is kept and whole.
    pub(super) fn wasm(&self, digest: &Digest) -> Option<Bytes> {
        let wasm = fs::read(self.wasm_path(digest)).ok()?;
        if digest_of(&wasm) == *digest {
            return Some(wasm.into());
        }
        tracing::error!(code.digest = %digest, "a kept file of wasm is damaged");
        None
    }

    /// Keeps an upload whose machine code is kept already; the label comes last.
    pub(super) fn keep(&self, digest: &Digest, wasm: &[u8], label: &Label) -> io::Result<()> {
        self.write(&self.wasm_path(digest), wasm)?;
        self.keep_label(digest, label)
    }

    /// Keeps what is known of an upload that is kept already.
    pub(super) fn keep_label(&self, digest: &Digest, label: &Label) -> io::Result<()> {
        self.write(&self.label_path(digest), &serde_json::to_vec(label)?)?;
        self.sync()
    }

    /// Keeps machine code.
    pub(super) fn keep_artifact(
        &self,
        digest: &Digest,
        label: &Label,
        artifact: &[u8],
    ) -> io::Result<()> {
        let mac = {
            let mut mac = self.mac(digest, label)?;
            mac.update(artifact);
            mac.finalize().to_hex()
        };
        self.write(&self.artifact_path(digest, label.flavor), artifact)?;
        self.write(&self.mac_path(digest, label.flavor), mac.as_bytes())?;
        self.sync()
    }

    /// Forgets machine code that turned out to be of no use.
    pub(super) fn drop_artifact(&self, digest: &Digest, flavor: Flavor) -> io::Result<()> {
        found(fs::remove_file(self.mac_path(digest, flavor)))?;
        found(fs::remove_file(self.artifact_path(digest, flavor)))?;
        self.sync()
    }

    /// Machine code of this very engine, if it is kept and nobody changed it.
    pub(super) fn artifact(&self, digest: &Digest, label: &Label) -> io::Result<Option<Artifact>> {
        let (Some(mut file), Some(mac)) = (
            found(File::open(self.artifact_path(digest, label.flavor)))?,
            found(fs::read_to_string(self.mac_path(digest, label.flavor)))?,
        ) else {
            return Ok(None);
        };
        let mut hasher = self.mac(digest, label)?;
        let size = io::copy(&mut file, &mut hasher)?;
        // Comparing hashes takes the same time wherever they differ.
        let right = blake3::Hash::from_hex(mac.trim()).is_ok_and(|mac| hasher.finalize() == mac);
        if !right {
            tracing::warn!(
                code.digest = %digest,
                "kept machine code is damaged or not ours: compiling it again"
            );
            return Ok(None);
        }
        file.rewind()?;
        Ok(Some(Artifact { file, size }))
    }

    /// The MAC of an artifact, before the artifact itself.
    fn mac(&self, digest: &Digest, label: &Label) -> io::Result<blake3::Hasher> {
        let engine_key = self.keys.get(label.flavor);
        let label = serde_json::to_vec(label)?;
        let mut mac = blake3::Hasher::new_keyed(&self.secret);
        for part in [digest.as_bytes(), engine_key.as_bytes(), &label[..]] {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            mac.update(part);
        }
        Ok(mac)
    }

    /// Removes the files of every digest that is not in `kept` and was not touched for as long as `unused`, and
    /// machine code that only another engine could load. Returns the digests that are gone.
    pub(super) fn sweep(
        &self,
        kept: &HashSet<Digest>,
        unused: Duration,
    ) -> io::Result<HashSet<Digest>> {
        let deadline = self
            .now()?
            .checked_sub(unused)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name else { continue };
            let digest: Option<Digest> = name.get(..DIGEST_DIGITS).and_then(|d| d.parse().ok());
            if digest.is_some() || name.starts_with(UNFINISHED) {
                files.push((path, digest));
            }
        }
        // Labels first: a file that is half removed must not be known.
        files.sort_by_key(|(path, _)| !has_extension(path, "json"));
        let mut gone = HashSet::new();
        for (path, digest) in files {
            let wanted = digest.is_some_and(|digest| kept.contains(&digest));
            let foreign = self.is_foreign_code(&path);
            if wanted && !foreign {
                continue;
            }
            // Asked again under the lock: someone may have found the file since it was listed.
            let _sweeping = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
            let label = digest.map(|digest| self.label_path(&digest));
            let recent = |path: &Path| modified(path).is_none_or(|time| time >= deadline);
            let found_again = label.is_some_and(|label| label.exists() && recent(&label));
            if recent(&path) || (found_again && !wanted && !foreign) {
                continue;
            }
            fs::remove_file(&path)?;
            if !wanted {
                gone.extend(digest);
            }
        }
        Ok(gone)
    }

    /// Whether this is machine code, or the MAC of such, for engines that are none of ours.
    fn is_foreign_code(&self, path: &Path) -> bool {
        let is_code = has_extension(path, "cwasm") || has_extension(path, "mac");
        let ours = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .is_some_and(|stem| {
                Flavor::ALL
                    .iter()
                    .any(|flavor| stem.ends_with(self.keys.get(*flavor)))
            });
        is_code && !ours
    }

    /// The time as the file system has it, which is what files are stamped with.
    fn now(&self) -> io::Result<SystemTime> {
        let mut file = unfinished(&self.dir)?;
        file.write_all(b"now")?;
        file.as_file().metadata()?.modified()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = unfinished(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        let _sweeping = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn wasm_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.wasm"))
    }

    fn label_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.json"))
    }

    fn artifact_path(&self, digest: &Digest, flavor: Flavor) -> PathBuf {
        self.dir
            .join(format!("{digest}.{}.cwasm", self.keys.get(flavor)))
    }

    fn mac_path(&self, digest: &Digest, flavor: Flavor) -> PathBuf {
        self.dir
            .join(format!("{digest}.{}.mac", self.keys.get(flavor)))
    }
}

pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

/// `None` for what is not there.
pub(super) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that is not finished, readable by us alone; what a crash leaves of it is swept.
pub(super) fn unfinished(dir: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)
}

/// The secret of this folder; made, readable by us alone, if there is none or only a part of one.
fn secret(dir: &Path) -> io::Result<[u8; 32]> {
    let path = dir.join(KEY_FILE);
    if let Some(mut file) = found(File::open(&path))? {
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        if let Ok(secret) = text.try_into() {
            return Ok(secret);
        }
        tracing::warn!("the cache's key is damaged: all code will be compiled again");
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a secret, which nobody may repeat"
    )]
    let secret: [u8; 32] = rand::random();
    let mut file = unfinished(dir)?;
    file.write_all(&secret)?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()?;
    Ok(secret)
}

/// Names everything that decides whether an engine can load machine code.
fn engine_key(engine: &Engine) -> String {
    let mut hasher = Blake3Hasher(blake3::Hasher::new());
    WASMTIME_VERSION.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let hash = hasher.0.finalize().to_hex();
    hash.as_str().get(..16).unwrap_or_default().to_owned()
}

/// A hash that is the same in every build and at every start, which the standard library's is not.
struct Blake3Hasher(blake3::Hasher);

impl std::hash::Hasher for Blake3Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        let first = hash.as_bytes().first_chunk::<8>();
        first.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}
