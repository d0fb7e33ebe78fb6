//! `pelton executions`: shows and exports executions, cancels and redrives them.
//!
//! **Invariant:** showing an execution changes nothing and ends with 0, however the execution ended.

use reqwest::header::HeaderMap;
use serde_json::json;

use super::client::action;
use super::exit::{Exit, Failure};
use super::output;
use super::wire::{Execution, Page};
use super::{Context, export, redrive};

/// List, show, export, cancel and redrive executions
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List executions, newest first
    Ls(List),
    /// Show one execution
    Get {
        /// The execution's id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// End an execution as cancelled, unless it has ended
    Cancel {
        /// The execution's id
        #[arg(value_name = "ID")]
        id: String,
    },
    Redrive(redrive::Args),
    Export(export::Args),
}

/// Which executions a list or an export is about.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Which {
    /// Of this function only
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// In this state only: queued, running, success, error, timeout or cancelled
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Created then or later, as in 2026-11-23T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Created before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Which {
    /// The parameters of a query, with further ones.
    pub(super) fn query<const N: usize>(
        self,
        further: [(&'static str, Option<String>); N],
    ) -> Vec<(&'static str, String)> {
        let own = [
            ("function", self.function),
            ("status", self.status),
            ("since", self.since),
            ("until", self.until),
        ];
        let all = own.into_iter().chain(further);
        all.filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

/// Which page of executions.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// How many, at most 500
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Where the list before ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

impl Command {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Ls(list) => list.execute(context).await?,
            Self::Get { id } => {
                let answer = context.client.get(&["v1", "executions", &id], &[]).await;
                let answer = answer.map_err(if_unknown)?;
                context.show(&answer, |execution| print_one(&execution))?;
            }
            Self::Cancel { id } => order(context, &action(&id, "cancel"), json!({})).await?,
            Self::Redrive(args) => args.execute(context).await?,
            Self::Export(args) => args.execute(context).await?,
        }
        Ok(Exit::Success)
    }
}

impl List {
    async fn execute(self, context: &Context) -> Result<(), Failure> {
        let query = self.which.query([
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("cursor", self.cursor),
        ]);
        let answer = context.client.get(&["v1", "executions"], &query).await?;
        context.show(&answer, print_page)
    }
}

fn print_page(page: Page<Execution>) -> Result<(), Failure> {
    let rows: Vec<_> = page
        .items
        .iter()
        .map(|item| {
            [
                item.execution_id.clone(),
                item.function.clone(),
                shown(item.version.as_ref()),
                item.status.clone(),
                shown(item.attempts.as_ref()),
                shown(item.created_at.as_ref()),
                item.error
                    .as_ref()
                    .map(|error| output::for_terminal(&error.code).into_owned())
                    .unwrap_or_default(),
            ]
        })
        .collect();
    let heading = [
        "ID", "FUNCTION", "VERSION", "STATUS", "ATTEMPTS", "CREATED", "ERROR",
    ];
    output::print(&output::table(heading, &rows))?;
    if let Some(next) = page.next {
        output::note(&format!("more: --cursor {next}"));
    }
    Ok(())
}

/// Gives an order about one execution and shows how it stands then.
pub(super) async fn order(
    context: &Context,
    segment: &str,
    body: serde_json::Value,
) -> Result<(), Failure> {
    let path = ["v1", "executions", segment];
    let answer = context
        .client
        .post(&path, HeaderMap::new(), body.to_string())
        .await
        .map_err(if_unknown)?;
    context.show(&answer, |execution| print_one(&execution))
}

/// Where to look when an execution is unknown.
pub(crate) fn if_unknown(failure: Failure) -> Failure {
    if failure.is_status(404) {
        failure.hint("`pelton executions ls` shows what this server remembers")
    } else {
        failure
    }
}

/// Shows everything known of one execution, its output last.
fn print_one(execution: &Execution) -> Result<(), Failure> {
    let error = execution.error.as_ref().map(|error| {
        output::for_terminal(&format!("{}: {}", error.code, error.message)).into_owned()
    });
    let facts = [
        ("execution", Some(execution.execution_id.clone())),
        ("function", Some(execution.function.clone())),
        (
            "version",
            execution.version.map(|number| number.to_string()),
        ),
        ("status", Some(execution.status.clone())),
        (
            "attempts",
            execution.attempts.map(|count| count.to_string()),
        ),
        (
            "requeues",
            execution.requeues.map(|count| count.to_string()),
        ),
        ("faults", execution.faults.map(|count| count.to_string())),
        ("created", execution.created_at.clone()),
        ("due", execution.due_at.clone()),
        ("started", execution.started_at.clone()),
        ("finished", execution.finished_at.clone()),
        ("error", error),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            output::print(&format!("{name:<10} {value}"))?;
        }
    }
    output::print_output(execution)
}

fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}
