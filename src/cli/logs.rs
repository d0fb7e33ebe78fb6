//! `pelton logs`: what the attempts of an execution wrote.
//!
//! **Invariant:** shows lines in the order they were written, and says where the server cut them.

use super::Context;
use super::exit::{Exit, Failure};
use super::output;
use super::wire::{AttemptLogs, ExecutionLogs};

/// Print what the attempts of an execution wrote, each once it has ended
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
        context.show(&answer, |logs: ExecutionLogs| {
            if logs.attempts.is_empty() {
                output::note("no attempt has ended yet");
            }
            let mut attempts = logs.attempts.iter();
            attempts.try_for_each(|attempt| print_attempt(attempt, ""))
        })?;
        Ok(Exit::Success)
    }
}

/// Shows one attempt, each line after `indent`.
pub(super) fn print_attempt(attempt: &AttemptLogs, indent: &str) -> Result<(), Failure> {
    let print = |text: &str| output::print(&format!("{indent}{text}"));
    let safe = output::for_terminal;
    print(&match &attempt.error {
        None => format!("attempt {}: {}", attempt.attempt, attempt.outcome),
        Some(error) => format!(
            "attempt {}: {} {}: {}",
            attempt.attempt,
            attempt.outcome,
            safe(&error.code),
            safe(&error.message)
        ),
    })?;
    for line in &attempt.lines {
        print(&format!("  {} | {}", line.stream, safe(&line.for_people())))?;
    }
    if attempt.truncated {
        print("  (cut here: the function's logBytesMax was reached)")?;
    }
    Ok(())
}
