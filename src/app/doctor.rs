//! Looks at a data folder and at the machine, and says of each thing whether it is in order and what to do.
//!
//! **Invariant:** changes nothing; one check that cannot be made is a finding of its own and never keeps the
//! others from being made.

mod folder;
mod machine;

use std::fmt;
use std::path::Path;

use crate::config::{Limits, exposed_key_file};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// In order.
    Ok,
    /// It works, but not as it could, or not for ever.
    Warn,
    /// It does not work, or something is lost.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// What became of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found and, unless all is well, what to do.
    pub text: String,
}

impl Finding {
    /// In order.
    pub fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, text)
    }

    /// See [`Level::Warn`].
    pub fn warn(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Warn, subject, text)
    }

    /// See [`Level::Fail`].
    pub fn fail(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Fail, subject, text)
    }

    fn new(level: Level, subject: &'static str, text: impl Into<String>) -> Self {
        Self {
            level,
            subject,
            text: text.into(),
        }
    }
}

/// Checks a data folder and this machine against the limits that a plane would have. Reads the whole
/// database: blocks on the disk.
pub fn examine(data_dir: &Path, limits: &Limits) -> Vec<Finding> {
    let mut findings = folder::examine(data_dir);
    findings.extend(machine::examine(limits));
    findings
}

/// Checks who may read the file with the key that secrets are encrypted with.
pub fn key_file(file: &Path) -> Finding {
    let subject = "secrets key";
    match (std::fs::metadata(file), exposed_key_file(file)) {
        (Err(error), _) => Finding::fail(
            subject,
            format!("{} cannot be looked at: {error}", file.display()),
        ),
        (Ok(_), Some(exposed)) => Finding::warn(subject, exposed),
        (Ok(_), None) => Finding::ok(subject, "not everybody may read its file"),
    }
}

/// A size in bytes, for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}
