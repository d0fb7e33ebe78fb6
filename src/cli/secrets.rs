//! `pelton secrets`: sets, lists and removes secrets.
//!
//! **Invariant:** a value comes from a file or from standard input, never from an argument, and is never written
//! anywhere but into the request.

use std::fmt;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use zeroize::Zeroizing;

use super::Context;
use super::exit::{Exit, Failure};
use super::input::unreadable;
use super::output::{self, Format};
use super::wire::{Listed, Secret};

/// Set, list and remove secrets, which functions are given by name
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List all secrets: names and times, never values
    Ls,
    /// Set a secret from a file or from standard input; one line end at its end is left out
    Set {
        /// The secret
        #[arg(value_name = "NAME")]
        name: String,
        /// Where the value is
        #[arg(value_name = "@FILE|@-", default_value = "@-")]
        value: Typed,
    },
    /// Remove a secret that no function uses
    Rm {
        /// The secret
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// What was typed where a place should be named. Never shown, for it may be the value itself: so it is looked at here
/// and not by the command line's parser, which repeats what it refuses.
#[derive(Clone)]
pub(crate) struct Typed(String);

impl From<String> for Typed {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// Where a value is read from.
#[derive(Debug, Clone)]
enum Source {
    Stdin,
    File(PathBuf),
}

impl Typed {
    fn source(&self) -> Result<Source, Failure> {
        match self.0.strip_prefix('@') {
            Some("-") => Ok(Source::Stdin),
            Some(path) if !path.is_empty() => Ok(Source::File(path.into())),
            _ => Err(Failure::Usage(
                "a value is not typed here, where it would stay in the shell's history: name a file (@FILE), or pipe \
                 it in (@-)"
                    .to_owned(),
            )),
        }
    }
}

impl Source {
    fn read(&self) -> Result<Zeroizing<String>, Failure> {
        let mut text = Zeroizing::new(match self {
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|error| unreadable(&path.display().to_string(), &error))?,
            Self::Stdin if io::stdin().is_terminal() => {
                return Err(Failure::Usage(
                    "a terminal would show the value: name a file (@FILE), or pipe the value in"
                        .to_owned(),
                ));
            }
            Self::Stdin => {
                let mut text = String::new();
                io::stdin()
                    .lock()
                    .read_to_string(&mut text)
                    .map_err(|error| unreadable("standard input", &error))?;
                text
            }
        });
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }
}

impl Command {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let client = &context.client;
        let answer = match &self {
            Self::Ls => client.get(&["v1", "secrets"], &[]).await,
            Self::Set { name, value } => {
                let value = value.source()?.read()?;
                let body = serde_json::json!({ "value": value.as_str() }).to_string();
                let request = client
                    .request(Method::PUT, &["v1", "secrets", name])
                    .header(CONTENT_TYPE, "application/json")
                    .body(body);
                client.send(request).await
            }
            Self::Rm { name } => {
                let request = client.request(Method::DELETE, &["v1", "secrets", name]);
                client.send(request).await
            }
        };
        let answer = answer.map_err(|failure| {
            if failure.is_code("SECRET_NOT_FOUND") {
                failure.hint("`pelton secrets ls` shows what there is")
            } else {
                failure
            }
        })?;
        match (&self, context.format) {
            (Self::Rm { .. }, Format::Json) => {}
            (_, Format::Json) => output::print(&answer.text())?,
            (Self::Ls, Format::Human) => print_list(answer.read::<Listed<Secret>>()?)?,
            (Self::Set { name, .. }, Format::Human) if answer.status == 201 => {
                output::print(&format!("set {name}"))?;
            }
            (Self::Set { name, .. }, Format::Human) => {
                output::print(&format!(
                    "set {name} anew: attempts that begin from now on get it"
                ))?;
            }
            (Self::Rm { name }, Format::Human) => output::print(&format!("removed {name}"))?,
        }
        Ok(Exit::Success)
    }
}

fn print_list(secrets: Listed<Secret>) -> Result<(), Failure> {
    let rows: Vec<_> = secrets
        .into_items()
        .into_iter()
        .map(|secret| {
            [
                secret.name,
                secret.created_at.unwrap_or_default(),
                secret.updated_at.unwrap_or_default(),
            ]
        })
        .collect();
    if rows.is_empty() {
        output::note("no secrets yet: `pelton secrets set NAME @FILE` makes one");
        return Ok(());
    }
    output::print(&output::table(["NAME", "SET FIRST", "SET LAST"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_with_an_at_sign() {
        let source = |typed: &str| Typed::from(typed.to_owned()).source();
        for typed in ["hunter2", "", "@"] {
            assert!(matches!(source(typed), Err(Failure::Usage(_))), "{typed}");
        }
        assert!(matches!(source("@-"), Ok(Source::Stdin)));
        assert!(matches!(source("@a"), Ok(Source::File(path)) if path.as_os_str() == "a"));
    }

    #[test]
    fn one_line_end_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("value");
        for (written, read) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("", ""),
        ] {
            std::fs::write(&file, written).unwrap();
            assert_eq!(*Source::File(file.clone()).read().unwrap(), read);
        }
    }
}
