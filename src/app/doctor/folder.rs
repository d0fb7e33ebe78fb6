//! The data folder: who may use it, who does, and whether what is in it is whole.
//!
//! **Invariant:** a folder that does not exist yet is in order.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::{Finding, size};
use crate::app::settings::CODE_DIR;
use crate::clock::Clock;
use crate::model::Digest;
use crate::runtime::{CodeFolder, KeyState};
use crate::store::sqlite::{self, Inspection};

/// Less free space than this is too little to work with, in bytes.
const SPACE_LEAST: u64 = 64 << 20;
/// Less free space than this deserves attention, in bytes.
const SPACE_LOW: u64 = 1 << 30;
/// A write-ahead log beyond this size is not being copied back as it should, in bytes.
const LOG_LARGE: u64 = 256 << 20;
/// Free pages of a database that are worth a word, in bytes.
const FREE_LARGE: u64 = 256 << 20;
/// How far ahead of the clock the newest execution may be, in ms.
const AHEAD_MAX_MS: u64 = 60_000;

/// Checks a data folder.
pub(super) fn examine(dir: &Path) -> Vec<Finding> {
    if !dir.exists() {
        let text = format!("{} does not exist: the first start makes it", dir.display());
        return vec![Finding::ok("folder", text)];
    }
    let mut findings = vec![permissions(dir), space(dir), lock(dir)];
    match sqlite::inspect(dir) {
        Ok(None) => findings.push(Finding::ok(
            "database",
            "none yet: the first start makes it",
        )),
        Ok(Some(found)) => {
            findings.extend(database(&found));
            findings.push(clock(&found));
            if let Some(contents) = &found.contents {
                findings.extend(code(dir, &contents.digests));
            }
        }
        Err(cause) => findings.push(Finding::fail(
            "database",
            format!(
                "cannot be opened: {cause}; restore a backup into a new folder (`pelton restore`)"
            ),
        )),
    }
    findings.push(key(dir));
    findings
}

fn permissions(dir: &Path) -> Finding {
    let subject = "folder";
    let shown = dir.display();
    let found = match fs::metadata(dir) {
        Ok(found) => found,
        Err(error) => {
            return Finding::fail(subject, format!("{shown} cannot be looked at: {error}"));
        }
    };
    if !found.is_dir() {
        return Finding::fail(
            subject,
            format!("{shown} is no folder: name another --data-dir"),
        );
    }
    if let Err(error) = access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        return Finding::fail(
            subject,
            format!("{shown} is not ours to use ({error}): run as its owner, or chown it"),
        );
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Finding::warn(
            subject,
            format!("{shown} can be used by others (mode {mode:o}): chmod 700 it"),
        );
    }
    Finding::ok(subject, format!("{shown} is ours alone"))
}

fn space(dir: &Path) -> Finding {
    let subject = "space";
    let free = match statvfs(dir) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => return Finding::warn(subject, format!("cannot be asked for: {error}")),
    };
    let text = format!("{} free", size(free));
    if free < SPACE_LEAST {
        Finding::fail(
            subject,
            format!(
                "{text}: the store stops taking writes when it is full; make room or lower --retention-ms"
            ),
        )
    } else if free < SPACE_LOW {
        Finding::warn(
            subject,
            format!("{text}: make room, or lower --retention-ms"),
        )
    } else {
        Finding::ok(subject, text)
    }
}

fn lock(dir: &Path) -> Finding {
    let text = if sqlite::is_in_use(dir) {
        let holder = fs::read_to_string(dir.join("pelton.lock")).unwrap_or_default();
        format!("a Pelton runs on this folder (process {})", holder.trim())
    } else {
        "no Pelton runs on this folder".to_owned()
    };
    Finding::ok("lock", text)
}

fn database(found: &Inspection) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match &found.flaw {
        None => Finding::ok("database", format!("{}, sound", size(found.bytes))),
        Some(flaw) => Finding::fail(
            "database",
            format!("damaged ({flaw}): restore a backup into a new folder (`pelton restore`)"),
        ),
    });
    let (schema, supported) = (found.schema, found.schema_supported);
    findings.push(if schema > supported {
        Finding::fail(
            "schema",
            format!("version {schema} is from a newer Pelton, this one knows {supported}: use that one, or a backup from before the upgrade"),
        )
    } else if schema < supported {
        Finding::warn(
            "schema",
            format!("version {schema}: the next start brings it to {supported}, for good; make a backup before"),
        )
    } else {
        Finding::ok("schema", format!("version {schema}"))
    });
    findings.push(if found.log_bytes > LOG_LARGE {
        Finding::warn(
            "log",
            format!("the write-ahead log has {}: something reads for very long (a backup, a shell); it shrinks after that", size(found.log_bytes)),
        )
    } else {
        Finding::ok("log", format!("the write-ahead log has {}", size(found.log_bytes)))
    });
    if found.free_bytes > FREE_LARGE && found.free_bytes > found.bytes / 2 {
        findings.push(Finding::warn(
            "free pages",
            format!("{} of the database are free and will be used again; to give them back, stop, `pelton backup`, and `pelton restore` into a new folder", size(found.free_bytes)),
        ));
    }
    findings
}

fn clock(found: &Inspection) -> Finding {
    let now = Clock::system().now();
    let ahead = found.newest.map_or(0, |newest| newest.ms_since(now));
    if ahead > AHEAD_MAX_MS {
        return Finding::warn(
            "clock",
            format!(
                "the newest execution was created {} s in the future: the clock was set back; check the time service, deferred work waits that much longer",
                ahead / 1000
            ),
        );
    }
    // 2025-01-01: before that, nobody had this program.
    if now.0 < 1_735_689_600_000 {
        return Finding::fail(
            "clock",
            "the clock is years behind: set it before anything is accepted",
        );
    }
    Finding::ok("clock", "not behind what was recorded")
}

fn code(dir: &Path, wanted: &HashSet<Digest>) -> Vec<Finding> {
    let folder = CodeFolder::at(dir.join(CODE_DIR));
    let (kept, machine_code) = match (folder.digests(), folder.machine_code_bytes()) {
        (Ok(kept), Ok(bytes)) => (kept, bytes),
        (Err(error), _) | (_, Err(error)) => {
            return vec![Finding::fail(
                "code",
                format!("the folder of code cannot be read: {error}"),
            )];
        }
    };
    let mut missing: Vec<_> = wanted.iter().filter(|digest| !folder.has(digest)).collect();
    missing.sort_by_key(|digest| *digest.as_bytes());
    let mut findings = Vec::new();
    if let Some(first) = missing.first() {
        findings.push(Finding::fail(
            "code",
            format!("{} of {} files are missing, {first} first: their functions fail; deploy them again, or restore a backup", missing.len(), wanted.len()),
        ));
    } else {
        findings.push(Finding::ok(
            "code",
            format!(
                "all {} files are there, and {} of machine code",
                wanted.len(),
                size(machine_code)
            ),
        ));
    }
    let orphans = kept.difference(wanted).count();
    if orphans > 0 {
        findings.push(Finding::ok(
            "unused code",
            format!("{orphans} files that no version names: a running plane removes them an hour after they were last deployed"),
        ));
    }
    findings
}

fn key(dir: &Path) -> Finding {
    let subject = "cache key";
    match CodeFolder::at(dir.join(CODE_DIR)).key() {
        Ok(KeyState::Sound) => Finding::ok(subject, "there, and ours alone"),
        Ok(KeyState::Missing) => Finding::ok(subject, "none yet: the next start makes one"),
        Ok(KeyState::Damaged) => Finding::warn(
            subject,
            "damaged: the next start makes a new one, and compiles all code again at its first call",
        ),
        Ok(KeyState::Exposed) => Finding::fail(
            subject,
            "others may read it and make this plane run machine code: stop it, remove code/cache.key and code/*.cwasm, chmod 700 the folder",
        ),
        Err(error) => Finding::fail(subject, format!("cannot be looked at: {error}")),
    }
}
