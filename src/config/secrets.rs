//! Where the key that secrets are encrypted with comes from: a file, or the environment.
//!
//! **Invariant:** no complaint repeats what was found there.

use std::path::Path;

use super::env;
use crate::model::SecretValue;
use crate::secrets::Key;

/// More than any spelling of a key has, in bytes: what is larger is another file.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// The key that the environment holds; a variable that is empty is none.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the configuration; a flag would show the key in lists of processes"
)]
pub(super) fn key_of_environment() -> Option<SecretValue> {
    let text = std::env::var(env::SECRETS_KEY).ok()?;
    (!text.trim().is_empty()).then(|| SecretValue::new(text))
}

/// The key, if one is given.
///
/// # Errors
/// What is wrong with it.
pub(super) fn key(file: Option<&Path>, text: Option<&SecretValue>) -> Result<Option<Key>, String> {
    let variable = env::SECRETS_KEY;
    match (file, text) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(format!(
            "--secrets-key-file and {variable} both name a key for secrets: leave one of the two out"
        )),
        (None, Some(text)) => {
            let key = text.expose().parse();
            key.map(Some).map_err(|error| format!("{variable} {error}"))
        }
        (Some(file), None) => {
            let named = format!("--secrets-key-file {}", file.display());
            let text = read(file).map_err(|error| format!("{named} cannot be read: {error}"))?;
            let key = text.expose().parse();
            key.map(Some).map_err(|error| format!("{named} {error}"))
        }
    }
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
