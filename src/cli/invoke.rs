//! `pelton invoke`: calls a function, waits, and shows its output.
//!
//! **Invariant:** exit code 0 means that the execution ended in success, and nothing else does.

use super::Context;
use super::call::Call;
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::wire::Execution;

/// Call a function, wait for it and print its output
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    call: Call,
    /// How long to wait in all, queueing and retries included; the function's timeoutMs unless given
    #[arg(long, value_name = "N")]
    timeout_ms: Option<u64>,
}

impl Args {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let answer = self
            .call
            .send(&context.client, "invoke", self.timeout_ms)
            .await?;
        let execution: Execution = answer.read()?;
        match context.format {
            Format::Json => output::print(&answer.text())?,
            Format::Human => {
                output::print_output(&execution)?;
                explain(&execution);
            }
        }
        Ok(exit_of(&execution))
    }
}

/// The exit code that an execution means.
pub(crate) fn exit_of(execution: &Execution) -> Exit {
    match execution.status.as_str() {
        "success" => Exit::Success,
        _ => Exit::Failed,
    }
}

/// Says on standard error why there is no output, and where to look next.
fn explain(execution: &Execution) {
    if execution.status == "success" {
        return;
    }
    let id = &execution.execution_id;
    if !execution.has_ended() {
        output::note(&format!(
            "execution {id} is {} still\nhint: `pelton executions get {id}` shows how it goes on",
            execution.status
        ));
        return;
    }
    match &execution.error {
        Some(error) => output::note(&format!(
            "execution {id} ended in {}: {}: {}",
            execution.status,
            output::for_terminal(&error.code),
            output::for_terminal(&error.message)
        )),
        None => output::note(&format!("execution {id} ended in {}", execution.status)),
    }
    output::note(&format!(
        "hint: `pelton logs {id}` shows what the function wrote"
    ));
}
