//! The secrets of a run: each is the value of a variable of the environment.
//!
//! **Invariant:** no complaint repeats what was typed behind the name: it may be the value itself.

use std::env::VarError;

use super::super::exit::Failure;
use crate::config::env;
use crate::model::{SecretName, SecretValue, limits};
use crate::registry::Registry;

/// What is typed, as one learns of it.
pub(super) const HINT: &str = "`--secret NAME=VARIABLE` gives a run a secret: the name that the spec has for it, and \
     the variable of the environment that has its value";

/// The secrets that are named as `NAME=VARIABLE`. They are read here and not by the parser of arguments, which shows
/// what it cannot make sense of.
///
/// # Errors
/// One is not written so, or has no value.
pub(super) fn read(named: &[String]) -> Result<Vec<(SecretName, SecretValue)>, Failure> {
    named.iter().map(|text| read_one(text)).collect()
}

fn read_one(text: &str) -> Result<(SecretName, SecretValue), Failure> {
    let (name, variable) = text.split_once('=').ok_or_else(|| {
        Failure::Usage(
            "--secret: write it as NAME=VARIABLE, with a variable of the environment that has the value"
                .to_owned(),
        )
    })?;
    let name: SecretName = name
        .parse()
        .map_err(|error| Failure::Usage(format!("--secret: {error}")))?;
    let wrong = |why: &str| Failure::Usage(format!("--secret {name}: {why}"));
    let value = env::secret(variable).map_err(|error| match error {
        VarError::NotPresent => wrong(
            "the environment has no such variable: what stands behind = is the name of one, never the value itself",
        ),
        VarError::NotUnicode(_) => wrong("the value of its variable is no text in UTF-8"),
    })?;
    let bytes = u64::try_from(value.expose().len()).unwrap_or(u64::MAX);
    let range = limits::SECRET_BYTES;
    if !range.contains(&bytes) {
        let (least, most) = (range.start(), range.end());
        return Err(wrong(&format!(
            "its value has {bytes} bytes, and may have {least} to {most}"
        )));
    }
    Ok((name, value))
}

/// Gives them to the plane of the run.
///
/// # Errors
/// The plane's.
pub(super) async fn set(
    registry: &Registry,
    secrets: Vec<(SecretName, SecretValue)>,
) -> anyhow::Result<()> {
    for (name, value) in secrets {
        registry.vault().set(&name, value).await?;
    }
    Ok(())
}
