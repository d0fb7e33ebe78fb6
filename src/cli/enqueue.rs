//! `pelton enqueue`: hands a call over and does not wait for it.
//!
//! **Invariant:** when it ends with 0, the execution is on the server's disk.

use super::Context;
use super::call::Call;
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::wire::Execution;

/// Queue a call; prints the execution's id once it is on disk
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    call: Call,
}

impl Args {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let answer = self.call.send(&context.client, "enqueue", None).await?;
        match context.format {
            Format::Json => output::print(&answer.text())?,
            Format::Human => {
                let execution: Execution = answer.read()?;
                output::print(&execution.execution_id)?;
                let id = &execution.execution_id;
                output::note(&format!(
                    "{}; `pelton executions get {id}` shows how it goes on",
                    execution.status
                ));
            }
        }
        Ok(Exit::Success)
    }
}
