//! `pelton drain`: dispatches queued work by hand and waits until it is recorded.
//!
//! **Invariant:** what it prints has happened: every dispatch is recorded before the server answers.

use reqwest::header::HeaderMap;

use super::Context;
use super::call::if_unknown_function;
use super::client::action;
use super::exit::{Exit, Failure};
use super::output;
use super::wire::Drained;

/// Run queued work of a function now, deferred work too, and wait for it
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The function
    #[arg(value_name = "NAME")]
    function: String,
    /// Dispatches at most [default: 1; with --recursive 10000]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Leave deferred work alone until it is due
    #[arg(long)]
    respect_schedule: bool,
    /// Go on until nothing is left but what was put back during this drain
    #[arg(long)]
    recursive: bool,
}

impl Args {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let mut body = serde_json::json!({
            "respectSchedule": self.respect_schedule,
            "recursive": self.recursive,
        });
        if let Some(limit) = self.limit {
            body["limit"] = limit.into();
        }
        let path = action(&self.function, "drain-once");
        let answer = context
            .client
            .post(
                &["v1", "internal", "functions", &path],
                HeaderMap::new(),
                body.to_string(),
            )
            .await
            .map_err(if_unknown_function)?;
        context.show(&answer, |drained| print_drained(&drained))?;
        Ok(Exit::Success)
    }
}

fn print_drained(drained: &Drained) -> Result<(), Failure> {
    for item in &drained.items {
        output::print(&format!("{}  {}", item.execution_id, item.status))?;
    }
    if !drained.dispatched {
        output::note(match drained.reason.as_deref() {
            Some("BUSY") => "nothing dispatched: every slot of the function is taken",
            _ => "nothing dispatched: nothing is waiting",
        });
    }
    Ok(())
}
