//! `pelton executions redrive`: one by its id, or all of a function that failed in some way at some time.
//!
//! **Invariant:** a dry run changes nothing; what was redriven before something failed is told.

use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

use super::Context;
use super::call::if_unknown_function;
use super::client::action;
use super::executions::order;
use super::exit::Failure;
use super::output::{self, Format};
use super::progress::Progress;
use super::wire::Redriven;

/// Send executions that ended as error or timeout back to their queue: one by its id, or all of a function that
/// ended so
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The execution's id
    #[arg(value_name = "ID", required_unless_present = "function")]
    id: Option<String>,
    /// All executions of this function that ended as --status, oldest first
    #[arg(long, value_name = "NAME", requires = "status", conflicts_with = "id")]
    function: Option<String>,
    /// How they ended: error or timeout
    #[arg(long, value_name = "STATUS", requires = "function")]
    status: Option<String>,
    /// Created then or later, as in 2026-11-23T08:00:00Z
    #[arg(long, value_name = "TIME", requires = "function")]
    since: Option<String>,
    /// Created before then
    #[arg(long, value_name = "TIME", requires = "function")]
    until: Option<String>,
    /// Only count them, and show the first ids
    #[arg(long, requires = "function")]
    dry_run: bool,
    /// Run this version of the function instead of the active one
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

impl Args {
    pub(super) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let Some(function) = &self.function else {
            let id = self.id.as_deref().unwrap_or_default();
            let body = json!({ "version": self.version });
            return order(context, &action(id, "redrive"), body).await;
        };
        let redriven = self.all_of(context, function).await?;
        match context.format {
            Format::Json => {
                let text = serde_json::to_string(&redriven).unwrap_or_default();
                output::print(&text)
            }
            Format::Human => print(function, &redriven),
        }
    }

    /// Asks as often as it takes to come to the end.
    async fn all_of(&self, context: &Context, function: &str) -> Result<Redriven, Failure> {
        let verb = if self.dry_run {
            "counting"
        } else {
            "redriving"
        };
        let progress = Progress::step(&format!("{verb} executions of {function}"));
        let mut answer = self.ask(context, function, None).await;
        if let Ok(sum) = &mut answer {
            while let Some(cursor) = sum.next.take() {
                match self.ask(context, function, Some(cursor)).await {
                    Ok(more) => sum.add(more),
                    Err(failure) => {
                        output::note(&format!("{} before this went wrong", sum.redriven));
                        answer = Err(failure);
                        break;
                    }
                }
            }
        }
        progress.end();
        answer
    }

    async fn ask(
        &self,
        context: &Context,
        function: &str,
        cursor: Option<String>,
    ) -> Result<Redriven, Failure> {
        let mut body = Map::new();
        for (name, text) in [
            ("status", &self.status),
            ("since", &self.since),
            ("until", &self.until),
            ("cursor", &cursor),
        ] {
            if let Some(text) = text {
                body.insert(name.to_owned(), text.as_str().into());
            }
        }
        if let Some(version) = self.version {
            body.insert("version".to_owned(), version.into());
        }
        body.insert("dryRun".to_owned(), self.dry_run.into());
        let segment = action(function, "redrive");
        let path = ["v1", "functions", &segment];
        let body = Value::Object(body).to_string();
        let answer = context.client.post(&path, HeaderMap::new(), body).await;
        answer.map_err(if_unknown_function)?.read()
    }
}

impl Redriven {
    fn add(&mut self, more: Self) {
        self.redriven += more.redriven;
        self.input_not_kept += more.input_not_kept;
        self.skipped += more.skipped;
        self.next = more.next;
    }
}

fn print(function: &str, redriven: &Redriven) -> Result<(), Failure> {
    let (count, verb) = (
        redriven.redriven,
        if redriven.dry_run {
            "would be redriven"
        } else {
            "redriven"
        },
    );
    output::print(&format!("{count} executions of {function} {verb}"))?;
    if redriven.input_not_kept > 0 {
        let count = redriven.input_not_kept;
        output::print(&format!(
            "{count} cannot run again: their input was not kept"
        ))?;
    }
    if redriven.skipped > 0 {
        let count = redriven.skipped;
        output::print(&format!(
            "{count} left alone: they moved on meanwhile, or belong to an earlier function of this name"
        ))?;
    }
    for id in &redriven.sample {
        output::print(&format!("  {id}"))?;
    }
    if usize::try_from(count).is_ok_and(|count| count > redriven.sample.len()) {
        output::print("  …")?;
    }
    Ok(())
}
