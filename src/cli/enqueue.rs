//! `pelton enqueue`: hands a call over and does not wait for it.
//!
//! **Invariant:** when it ends with 0, the execution is on the server's disk.

use super::Context;
use super::call::Call;
use super::exit::{Exit, Failure};
use super::output;
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
        context.show(&answer, |execution: Execution| {
            let id = &execution.execution_id;
            output::print(id)?;
            output::note(&format!(
                "{}; `pelton executions get {id}` shows how it goes on",
                execution.status
            ));
            Ok(())
        })?;
        Ok(Exit::Success)
    }
}
