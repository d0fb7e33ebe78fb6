//! `pelton functions`: shows functions and their versions, removes them, rolls them back.
//!
//! **Invariant:** each subcommand is one request; what it prints is what the server answered.

use reqwest::Method;
use reqwest::header::HeaderMap;

use super::Context;
use super::call::if_unknown_function;
use super::client::{Answer, Client, action};
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::wire::{Function, Listed, Version};

/// List, show, remove and roll back functions
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List all functions
    Ls,
    /// Show one function with its whole spec
    Get(Named),
    /// Remove a function; what waits in its queue ends as FUNCTION_REMOVED
    Rm(Named),
    /// List a function's versions
    Versions(Named),
    /// Make an older version the active one
    Rollback {
        #[command(flatten)]
        named: Named,
        /// The version
        #[arg(long, value_name = "N")]
        version: u64,
    },
}

/// Which function.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Named {
    /// The function
    #[arg(value_name = "NAME")]
    name: String,
}

impl Command {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let answer = self.ask(&context.client).await;
        let answer = answer.map_err(|failure| self.where_to_look(failure))?;
        match &self {
            Self::Ls => context.show(&answer, print_list)?,
            Self::Get(_) => context.show(&answer, |_: Function| {
                output::print(&output::indent_json(&answer.text()))
            })?,
            Self::Rm(Named { name }) => {
                answer.expect_empty()?;
                if context.format == Format::Human {
                    output::print(&format!("removed {name}"))?;
                }
            }
            Self::Versions(_) => context.show(&answer, print_versions)?,
            Self::Rollback { .. } => context.show(&answer, |function: Function| {
                output::print(&function.summary())
            })?,
        }
        Ok(Exit::Success)
    }

    async fn ask(&self, client: &Client) -> Result<Answer, Failure> {
        match self {
            Self::Ls => client.get(&["v1", "functions"], &[]).await,
            Self::Get(Named { name }) => client.get(&["v1", "functions", name], &[]).await,
            Self::Rm(Named { name }) => {
                let request = client.request(Method::DELETE, &["v1", "functions", name]);
                client.send(request).await
            }
            Self::Versions(Named { name }) => {
                let path = ["v1", "functions", name, "versions"];
                client.get(&path, &[]).await
            }
            Self::Rollback { named, version } => {
                let path = action(&named.name, "rollback");
                let body = serde_json::json!({ "version": version }).to_string();
                let path = ["v1", "functions", &path];
                client.post(&path, HeaderMap::new(), body).await
            }
        }
    }
}

impl Command {
    fn where_to_look(&self, failure: Failure) -> Failure {
        match self {
            Self::Rollback { named, .. } if failure.is_code("VERSION_NOT_FOUND") => {
                failure.hint(format!(
                    "`pelton functions versions {}` shows what there is",
                    named.name
                ))
            }
            Self::Ls | Self::Get(_) | Self::Rm(_) | Self::Versions(_) | Self::Rollback { .. } => {
                if_unknown_function(failure)
            }
        }
    }
}

fn print_list(list: Listed<Function>) -> Result<(), Failure> {
    let rows: Vec<_> = list
        .into_items()
        .into_iter()
        .map(|function| {
            [
                function.name.clone(),
                function.version_text(),
                function.code_text(),
                function.updated_at.unwrap_or_default(),
            ]
        })
        .collect();
    if rows.is_empty() {
        output::note("no functions yet: `pelton deploy NAME FILE` makes one");
        return Ok(());
    }
    output::print(&output::table(
        ["NAME", "VERSION", "CODE", "UPDATED"],
        &rows,
    ))
}

fn print_versions(list: Listed<Version>) -> Result<(), Failure> {
    let rows: Vec<_> = list
        .into_items()
        .into_iter()
        .map(|version| {
            [
                version
                    .version
                    .map(|number| number.to_string())
                    .unwrap_or_default(),
                if version.active {
                    "yes".to_owned()
                } else {
                    String::new()
                },
                version
                    .digest
                    .or(version.endpoint_url)
                    .or(version.image)
                    .unwrap_or_default(),
                version.created_at.unwrap_or_default(),
            ]
        })
        .collect();
    output::print(&output::table(
        ["VERSION", "ACTIVE", "CODE", "DEPLOYED"],
        &rows,
    ))
}
