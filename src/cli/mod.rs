//! The command line: one file per command, each a set of flags and an `execute`.
//!
//! Client commands talk HTTP to a server and know nothing of its insides; `serve` and `demo` start one; `run` needs
//! none; `backup`, `restore` and `doctor` work on its folder.
//!
//! **Invariant:** the only code that writes to standard output, and the only one that decides exit codes.

mod backup;
mod call;
mod client;
mod config;
mod demo;
mod deploy;
mod doctor;
mod drain;
mod enqueue;
mod executions;
mod exit;
mod export;
mod functions;
mod input;
mod invoke;
mod log;
mod logs;
mod output;
mod progress;
mod redrive;
mod run;
mod secrets;
mod serve;
mod wire;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::client::{Answer, Client};
use self::exit::{Exit, Failure};
use self::output::Format;
use self::wire::Recognised;
use crate::config::env;

/// A control plane for functions written as WebAssembly: upload, call, queue, and never lose what was accepted
#[derive(Debug, Parser)]
#[command(name = "pelton", version, after_help = EXIT_CODES)]
struct Cli {
    /// The server that client commands talk to
    #[arg(long, global = true, value_name = "URL", env = env::SERVER, hide_env_values = true, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// Print the server's JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success; 1 the execution did not end in success (serve, demo: failed; doctor: something fails); \
2 usage; 3 refused (4xx); 4 unreachable or 5xx; 74 the store failed";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Demo(demo::Args),
    Run(Box<run::Args>),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

/// Commands that talk to a server.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    Deploy(deploy::Args),
    Invoke(invoke::Args),
    Enqueue(enqueue::Args),
    Drain(drain::Args),
    #[command(subcommand)]
    Functions(functions::Command),
    #[command(subcommand)]
    Executions(executions::Command),
    #[command(subcommand)]
    Secrets(secrets::Command),
    Logs(logs::Args),
    #[command(subcommand)]
    Config(config::Command),
    Doctor(doctor::Args),
}

/// What every client command is given.
struct Context {
    client: Client,
    format: Format,
}

impl Context {
    /// Shows an answer: to machines as it came, to people as `human` shows it.
    ///
    /// # Errors
    /// [`Failure::Garbled`] if it is no answer of Pelton's, whoever it is shown to.
    fn show<T: Recognised>(
        &self,
        answer: &Answer,
        human: impl FnOnce(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let read = answer.read()?;
        match self.format {
            Format::Json => output::print(&answer.text()),
            Format::Human => human(read),
        }
    }
}

/// Parses the command line, does what it says and reports failures.
pub fn run() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" that go to standard output. A closed pipe is nobody's concern.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit().into()
        }
    }
}

fn parse() -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches()?)
}

/// The command line's grammar. Commands that start a server take no flags of a client's.
pub fn command() -> clap::Command {
    let without_client_flags = |command: clap::Command| {
        command
            .arg(clap::Arg::new("server").long("server").hide(true))
            .arg(
                clap::Arg::new("json")
                    .long("json")
                    .hide(true)
                    .action(clap::ArgAction::SetTrue),
            )
    };
    let without_server =
        |command: clap::Command| command.arg(clap::Arg::new("server").long("server").hide(true));
    Cli::command()
        .mut_subcommand("backup", without_server)
        .mut_subcommand("restore", without_server)
        .mut_subcommand("run", without_server)
        .mut_subcommand("serve", without_client_flags)
        .mut_subcommand("demo", without_client_flags)
}

fn execute(cli: Cli) -> Result<Exit, Failure> {
    let format = if cli.json {
        Format::Json
    } else {
        Format::Human
    };
    let command = match cli.command {
        Command::Serve(args) => return args.execute(),
        Command::Demo(args) => return args.execute(),
        Command::Run(args) => return args.execute(format),
        Command::Backup(args) => return args.execute(format),
        Command::Restore(args) => return args.execute(format),
        Command::Client(command) => command,
    };
    let context = Context {
        client: Client::new(&cli.server)?,
        format,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::new(error).context("cannot start"))?;
    runtime.block_on(command.execute(&context))
}

impl ClientCommand {
    async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Deploy(args) => args.execute(context).await,
            Self::Invoke(args) => args.execute(context).await,
            Self::Enqueue(args) => args.execute(context).await,
            Self::Drain(args) => args.execute(context).await,
            Self::Functions(command) => command.execute(context).await,
            Self::Executions(command) => command.execute(context).await,
            Self::Secrets(command) => command.execute(context).await,
            Self::Logs(args) => args.execute(context).await,
            Self::Config(command) => command.execute(context).await,
            Self::Doctor(args) => args.execute(context).await,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammar_is_sound() {
        super::command().debug_assert();
    }
}
