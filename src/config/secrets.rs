//! Where the key that secrets are encrypted with comes from, and the one before it: a file, or the environment.
//!
//! **Invariant:** no complaint repeats what was found there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Options, env};
use crate::model::SecretValue;
use crate::secrets::Key;

/// More than any spelling of a key has, in bytes: what is larger is another file.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// That others than the owner and its group may read a file.
const READ_BY_OTHERS: u32 = 0o004;

/// The keys of a server.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// What secrets are encrypted with, if there may be any.
    pub(super) key: Option<Key>,
    /// What they were encrypted with before.
    pub(super) old: Option<Key>,
}

/// One of the keys, as it may be given.
#[derive(Debug, Clone, Copy)]
struct Given<'a> {
    flag: &'static str,
    file: Option<&'a Path>,
    variable: &'static str,
    text: Option<&'a SecretValue>,
}

/// The keys, as far as they are given.
///
/// # Errors
/// What is wrong with them.
pub(super) fn keys(typed: &Options) -> Result<Keys, String> {
    let keys = Keys {
        key: key(Given {
            flag: "--secrets-key-file",
            file: typed.secrets_key_file.as_deref(),
            variable: env::SECRETS_KEY,
            text: typed.secrets_key.as_ref(),
        })?,
        old: key(Given {
            flag: "--secrets-old-key-file",
            file: typed.secrets_old_key_file.as_deref(),
            variable: env::SECRETS_OLD_KEY,
            text: typed.secrets_old_key.as_ref(),
        })?,
    };
    match &keys {
        Keys {
            key: None,
            old: Some(_),
        } => Err(format!(
            "there is an old key for secrets and no new one to encrypt them with: give that with --secrets-key-file \
             or {}",
            env::SECRETS_KEY
        )),
        Keys { .. } => Ok(keys),
    }
}

/// The key that a variable of the environment holds; one that is empty is none.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the configuration; a flag would show the key in lists of processes"
)]
pub(super) fn key_of_environment(variable: &str) -> Option<SecretValue> {
    let text = std::env::var(variable).ok()?;
    (!text.trim().is_empty()).then(|| SecretValue::new(text))
}

fn key(given: Given<'_>) -> Result<Option<Key>, String> {
    let Given { flag, variable, .. } = given;
    match (given.file, given.text) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(format!(
            "{flag} and {variable} both name a key for secrets: leave one of the two out"
        )),
        (None, Some(text)) => {
            let key = text.expose().parse();
            key.map(Some).map_err(|error| format!("{variable} {error}"))
        }
        (Some(file), None) => {
            let named = format!("{flag} {}", file.display());
            let text = read(file).map_err(|error| format!("{named} cannot be read: {error}"))?;
            let key = text.expose().parse();
            key.map(Some).map_err(|error| format!("{named} {error}"))
        }
    }
}

/// What is said of the key files that everybody may read: they are taken, and nobody may notice otherwise.
pub(super) fn warnings(typed: &Options) -> Vec<String> {
    let files = [&typed.secrets_key_file, &typed.secrets_old_key_file];
    let files = files.into_iter().flatten();
    files.filter_map(|file| exposed_key_file(file)).collect()
}

/// What is wrong with who may read a file with a key, if anything is.
pub fn exposed_key_file(file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & READ_BY_OTHERS != 0).then(|| {
        let (file, mode) = (file.display(), mode & 0o777);
        format!(
            "everybody on this machine may read {file} (mode {mode:03o}), and with it and the data all secrets: \
             chmod go= {file}"
        )
    })
}

fn read(file: &Path) -> std::io::Result<SecretValue> {
    if std::fs::metadata(file)?.len() > KEY_FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is too large for a key"));
    }
    std::fs::read_to_string(file).map(SecretValue::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";

    fn key(file: Option<&Path>, text: Option<&SecretValue>) -> Result<Option<Key>, String> {
        super::key(Given {
            flag: "--a-file",
            file,
            variable: "A_VARIABLE",
            text,
        })
    }

    #[test]
    fn an_old_key_needs_a_new_one() {
        let text = || Some(SecretValue::new(KEY.to_owned()));
        let with = |secrets_key, secrets_old_key| {
            keys(&Options {
                secrets_key,
                secrets_old_key,
                ..Options::default()
            })
        };
        let both = with(text(), text()).unwrap();
        assert!(both.key.is_some() && both.old.is_some());
        assert!(with(text(), None).unwrap().old.is_none());
        let alone = with(None, text()).unwrap_err();
        assert!(alone.contains("no new one"), "{alone}");
        let wrong = with(text(), Some(SecretValue::new("hunter2".to_owned()))).unwrap_err();
        assert!(
            wrong.starts_with("PELTON_SECRETS_OLD_KEY is no key"),
            "{wrong}"
        );
    }

    #[test]
    fn a_key_comes_from_a_file_or_from_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{KEY}\n")).unwrap();
        let text = SecretValue::new(KEY.to_owned());
        assert!(key(None, None).unwrap().is_none());
        assert!(key(Some(&file), None).unwrap().is_some());
        assert!(key(None, Some(&text)).unwrap().is_some());
        let both = key(Some(&file), Some(&text)).unwrap_err();
        assert!(both.contains("leave one of the two out"), "{both}");
    }

    #[test]
    fn a_key_file_that_everybody_may_read_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, KEY).unwrap();
        let warnings = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&file, permissions).unwrap();
            let config = super::super::Config::try_from(Options {
                secrets_key_file: Some(file.clone()),
                ..Options::default()
            });
            config.unwrap().warnings
        };
        for private in [0o400, 0o600, 0o640, 0o660] {
            assert_eq!(warnings(private), [""; 0], "{private:o}");
        }
        for open in [0o604, 0o644, 0o444] {
            let told = warnings(open);
            let [one] = &*told else {
                panic!("{told:?}");
            };
            let mode = format!("(mode {open:o})");
            assert!(one.contains(&mode) && one.contains("chmod go="), "{one}");
        }
        assert_eq!(exposed_key_file(&folder.path().join("none")), None);
    }

    #[test]
    fn complaints_do_not_repeat_what_they_are_about() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "hunter2").unwrap();
        let text = SecretValue::new("hunter2".to_owned());
        for wrong in [key(Some(&file), None), key(None, Some(&text))] {
            let complaint = wrong.unwrap_err();
            assert!(complaint.contains("openssl rand -base64 32"), "{complaint}");
            assert!(!complaint.contains("hunter2"), "{complaint}");
        }
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        for (file, why) in [
            (file, "too large"),
            (folder.path().join("none"), "No such file"),
        ] {
            let complaint = key(Some(&file), None).unwrap_err();
            assert!(complaint.contains(why), "{complaint}");
        }
    }
}
