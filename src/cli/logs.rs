//! `pelton logs`: what the attempts of an execution wrote.
//!
//! **Invariant:** shows lines in the order they were written, and says where the server cut them.

use super::Context;
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::wire::AttemptLogs;

/// Print what the attempts of an execution wrote
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The execution's id
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let answer = context
            .client
            .get(&["v1", "executions", &self.id, "logs"], &[])
            .await
            .map_err(super::executions::if_unknown)?;
        match context.format {
            Format::Json => output::print(&answer.text())?,
            Format::Human => {
                let logs: super::wire::ExecutionLogs = answer.read()?;
                for attempt in &logs.attempts {
                    print_attempt(attempt)?;
                }
            }
        }
        Ok(Exit::Success)
    }
}

fn print_attempt(attempt: &AttemptLogs) -> Result<(), Failure> {
    output::print(&format!("attempt {}: {}", attempt.attempt, attempt.outcome))?;
    if let Some(error) = &attempt.error {
        output::print(&format!(
            "  {}: {}",
            error.code,
            output::for_terminal(&error.message)
        ))?;
    }
    for line in &attempt.lines {
        output::print(&format!(
            "  {} | {}",
            line.stream,
            output::for_terminal(&line.text)
        ))?;
    }
    if attempt.truncated {
        output::print("  (cut here: the function's logBytesMax was reached)")?;
    }
    Ok(())
}
