//! How a command ends: its exit code, and what it says about a failure and the way out of it.
//!
//! **Invariant:** every failure of every command passes through [`Failure::report`], so the same thing
//! always reads the same and always has the same code.

use std::io::{self, Write};
use std::process::ExitCode;

use super::output;
use super::wire::Problem;

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Success,
    /// 1: the execution did not end in success; for `serve` and `demo`: it could not do its work.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: the server refused (4xx).
    Refused,
    /// 4: the server cannot be reached, or it failed (5xx).
    Unavailable,
    /// 74: the store takes no writes any more.
    StoreFailed,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unavailable => 4,
            Self::StoreFailed => 74,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was typed cannot be meant.
    Usage(String),
    /// The server answered with an error.
    Answered(Box<Answered>),
    /// There was no answer.
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// Why there was none.
        cause: String,
    },
    /// The server's answer makes no sense: a Pelton of another version, or no Pelton.
    Garbled(String),
    /// Standard output took no more; a closed pipe is no failure.
    Output(io::Error),
    /// Anything else that stopped the command.
    Other(anyhow::Error),
}

/// An error as the server told it.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The error, as far as the body could be read as one.
    pub(crate) problem: Problem,
    /// What to try next, if the command knows.
    pub(crate) hint: Option<String>,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Answered(answer) if (400..500).contains(&answer.status) => Exit::Refused,
            Self::Answered(_) | Self::Unreachable { .. } | Self::Garbled(_) => Exit::Unavailable,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Output(_) | Self::Other(_) => Exit::Failed,
        }
    }

    /// The same failure with advice, unless it has some already.
    pub(crate) fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Answered(answer) = &mut self {
            answer.hint.get_or_insert(text.into());
        }
        self
    }

    /// Whether the server said this, as the code of its error.
    pub(crate) fn is_code(&self, code: &str) -> bool {
        matches!(self, Self::Answered(answer) if answer.problem.error == code)
    }

    /// Whether the server answered with this status.
    pub(crate) fn is_status(&self, status: u16) -> bool {
        matches!(self, Self::Answered(answer) if answer.status == status)
    }

    /// Writes the failure to standard error. Nothing can be done about an error of standard error itself.
    pub(crate) fn report(&self) {
        let mut text = String::new();
        self.describe(&mut text);
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn describe(&self, text: &mut String) {
        let mut line = |start: &str, rest: &str| {
            text.push_str(start);
            text.push_str(rest);
            text.push('\n');
        };
        match self {
            Self::Usage(message) | Self::Garbled(message) => line("error: ", message),
            Self::Answered(answer) => {
                let Answered {
                    status,
                    problem,
                    hint,
                } = &**answer;
                line(
                    "error: ",
                    &output::for_terminal(&format!(
                        "{} ({status}): {}",
                        problem.error, problem.message
                    )),
                );
                for detail in problem.detail_lines() {
                    // A single complaint is the message already.
                    if detail != problem.message {
                        line("  - ", &output::for_terminal(&detail));
                    }
                }
                if let Some(hint) = hint {
                    line("hint: ", hint);
                }
            }
            Self::Unreachable { server, cause } => {
                line("error: ", &format!("no answer from {server}: {cause}"));
                line(
                    "hint: ",
                    "is `pelton serve` running there? --server or PELTON_SERVER says where to look",
                );
            }
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Self::Output(error) => line("error: ", &format!("cannot write the output: {error}")),
            Self::Other(error) => {
                line("error: ", &error.to_string());
                for cause in error.chain().skip(1) {
                    line("  caused by: ", &cause.to_string());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Failure {
        Failure::Answered(Box::new(Answered {
            status,
            problem: Problem::default(),
            hint: None,
        }))
    }

    #[test]
    fn codes_tell_whose_fault_it_is() {
        assert_eq!(Failure::Usage(String::new()).exit().code(), 2);
        assert_eq!(answered(404).exit().code(), 3);
        assert_eq!(answered(429).exit().code(), 3);
        assert_eq!(answered(503).exit().code(), 4);
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::Output(pipe).exit().code(), 0);
    }

    #[test]
    fn a_refusal_shows_code_message_details_and_hint() {
        let mut failure = answered(400);
        if let Failure::Answered(answer) = &mut failure {
            answer.problem = serde_json::from_str(
                r#"{"error": "INVALID_SPEC", "message": "two mistakes", "details": ["a: no", {"field": "b"}]}"#,
            )
            .unwrap();
        }
        let mut text = String::new();
        failure.hint("look").hint("ignored").describe(&mut text);
        assert_eq!(
            text,
            "error: INVALID_SPEC (400): two mistakes\n  - a: no\n  - {\"field\":\"b\"}\nhint: look\n"
        );
    }
}
