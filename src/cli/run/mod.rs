//! `pelton run`: runs a file once, here, as the plane would run its first attempt.
//!
//! A plane in memory takes the file as a deploy, with every check that a deploy has, queues one call and drains it once:
//! the limits, the errors and the meaning of every way to end are therefore a server's.
//!
//! **Invariant:** standard output gets the function's output, byte for byte, or one JSON document, and nothing else;
//! nothing is left behind but compiled code in the cache.

mod folder;
mod secrets;

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use serde_json::{Map, Value};

use self::folder::Folder;
use super::exit::{Answered, Exit, Failure};
use super::output::{self, Format};
use super::progress::Progress;
use super::wire::Problem;
use super::{deploy, input, log, serve};
use crate::api::local;
use crate::clock::Clock;
use crate::config::{Limits, LogOptions, env};
use crate::execution::{State, Status};
use crate::model::{
    Code, ContentType, Encoding, FunctionName, Input, JSON, SecretName, SecretValue, Shape,
};
use crate::net;
use crate::registry::{self, Function, SpecEdit};
use crate::runtime::{self, ChildCompiler, Runtime};
use crate::scheduler::Call;
use crate::secrets::Key;
use crate::store::{AttemptRecord, ExecutionRecord};
use crate::testing::{Harness, Setup};

/// The name of a function whose file's name is none.
const NAMELESS: &str = "function";
/// The media type of input of which nothing is known.
const OCTETS: &str = "application/octet-stream";

/// Run a wasm file once, here: standard input in, the output on standard output
///
/// No server is needed. The file is checked, compiled, limited and judged as by a deploy and its first attempt; a retry or
/// a requeue is told and not waited for. What the function logs goes to standard error once it has ended. Standard input
/// is read unless it is a terminal. As on a server that listens on loopback, services of this machine may be called by a
/// function whose allowHosts names them.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The wasm file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Arguments for a program, after those of the spec (behind -- if the first begins with a dash)
    #[arg(value_name = "ARGS", trailing_var_arg = true)]
    args: Vec<String>,
    /// The input instead of standard input: JSON, @FILE, or @- for standard input
    #[arg(short = 'd', long = "data", value_name = "JSON|@FILE|@-")]
    data: Option<String>,
    /// The media type of the input [default: application/json for -d and for what is JSON]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Set a field of the spec, as in timeoutMs=500, memoryMb=64 or env.NAME=text (repeatable)
    #[arg(long, value_name = "FIELD=VALUE", value_parser = input::pair)]
    set: Vec<(String, String)>,
    /// Read the spec from a JSON file; --set adds to it
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Give the run a secret that the spec names: the value of a variable of the environment (repeatable)
    #[arg(long, value_name = "NAME=VARIABLE")]
    secret: Vec<String>,
    /// Metadata for the function (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = input::pair)]
    metadata: Vec<(String, String)>,
    /// A trace id for the function
    #[arg(long, value_name = "ID")]
    trace_id: Option<String>,
    /// Where compiled code is kept [default: pelton in the user's cache folder]
    #[arg(long, value_name = "DIR", env = env::CACHE_DIR, hide_env_values = true)]
    cache_dir: Option<PathBuf>,
}

/// What one run came to.
struct Once {
    record: ExecutionRecord,
    attempt: AttemptRecord,
    max_attempts: u32,
}

impl Args {
    pub(super) fn execute(self, format: Format) -> Result<Exit, Failure> {
        log::start(&LogOptions {
            log_filter: "warn".to_owned(),
            ..LogOptions::default()
        })?;
        let wasm = input::read_file(&self.file)?;
        let limit = usize::try_from(Limits::default().upload_bytes_max).unwrap_or(usize::MAX);
        if wasm.len() > limit {
            return Err(refused(local::Problem::upload_too_large(limit)));
        }
        let fields = deploy::with_settings(
            match &self.spec {
                Some(file) => deploy::read_spec(file)?,
                None => Map::new(),
            },
            &self.set,
        );
        let secrets = secrets::read(&self.secret)?;
        let given = self.read_input()?;
        let folder = Folder::open(self.cache_dir.as_deref())?;
        let threads = serve::runtime()?;
        let ended = threads.block_on(self.run(wasm.into(), fields, given, secrets, &folder));
        threads.shutdown_background();
        let once = ended?;
        match format {
            Format::Json => print_json(&once)?,
            Format::Human => {
                print_logs(&once.attempt);
                print_output(&once.record)?;
                explain(&once);
            }
        }
        Ok(
            match (once.record.execution.status(), once.attempt.outcome) {
                (Status::Success, _) => Exit::Success,
                (_, "fault") => Exit::Unavailable,
                _ => Exit::Failed,
            },
        )
    }

    async fn run(
        &self,
        wasm: Bytes,
        fields: Map<String, Value>,
        given: Given,
        secrets: Vec<(SecretName, SecretValue)>,
        folder: &Folder,
    ) -> Result<Once, Failure> {
        let options = runtime::Options {
            guests_max: 1,
            outgoing: net::Options {
                // Whoever runs a file here is on this machine, and reaches its services without it.
                loopback: net::Loopback::Allowed,
                ..net::Options::default()
            },
            ..runtime::Options::new(folder.path())
        };
        let compiler = ChildCompiler::of_this_program(&options);
        let compiler = compiler.context("cannot prepare the compiler")?;
        let runtime = Runtime::open(&options, Arc::new(compiler)).map_err(anyhow::Error::from)?;
        let mut setup = Setup {
            clock: Clock::system(),
            runtime: Some(runtime.clone()),
            ..Setup::default()
        };
        setup.registry.secrets.key = Some(Key::random().map_err(anyhow::Error::msg)?);
        let plane = Harness::with(setup).await?;
        secrets::set(&plane.registry, secrets).await?;
        let name = name_of(&self.file)?;
        let progress = Progress::on_terminal(&format!("compiling {name}"));
        let deployed = self.deploy(&plane, &name, wasm, fields).await;
        progress.end();
        let function = deployed?;
        let version = &function.active;
        let id = plane
            .scheduler
            .enqueue(Call {
                function: name.clone(),
                input: given.input(&version.code),
                metadata: self.metadata.iter().cloned().collect(),
                trace_id: self.trace_id.as_deref().map(Arc::from),
                traceparent: None,
                key: None,
                wait: None,
                parent: None,
            })
            .await
            .map_err(anyhow::Error::from)?
            .execution
            .id;
        plane.drain_once(name.as_str()).await?;
        let execution = plane.execution(id).await?;
        let run = execution.runs().first().cloned();
        let once = Once {
            record: (*execution).clone(),
            attempt: run.ok_or_else(|| anyhow!("the run was not recorded: {execution}"))?,
            max_attempts: version.spec.max_attempts(),
        };
        folder.tidy(&runtime);
        Ok(once)
    }

    async fn deploy(
        &self,
        plane: &Harness,
        name: &FunctionName,
        wasm: Bytes,
        fields: Map<String, Value>,
    ) -> Result<Arc<Function>, Failure> {
        let (named, args) = (name.clone(), self.args.clone());
        let edit: SpecEdit = Box::new(move |_| {
            let mut spec = local::spec(fields, &named)?;
            spec.version.args.extend(args);
            Ok(spec)
        });
        let deployed = plane.registry.deploy(name, wasm, Some(edit)).await;
        let deployed = deployed.map_err(|error| {
            if let registry::Error::Secrets(crate::secrets::Error::Missing(names)) = &error {
                return not_given(names);
            }
            refused(error.into())
        })?;
        Ok(deployed.function)
    }

    fn read_input(&self) -> Result<Given, Failure> {
        let stated = self.content_type.clone();
        let stated = stated.map(|text| ContentType(text.into()));
        match &self.data {
            Some(data) => Ok(Given {
                content_type: Some(stated.unwrap_or(JSON)),
                body: input::json(data)?.get().to_owned().into(),
            }),
            None => Ok(Given {
                content_type: stated,
                body: read_stdin()?,
            }),
        }
    }
}

/// The input as it was given.
struct Given {
    content_type: Option<ContentType>,
    body: Bytes,
}

impl Given {
    /// The input for this code. A program gets what was piped byte for byte, a JSON string too; for the
    /// others a media type is found.
    fn input(self, code: &Code) -> Input {
        let found = || match code {
            Code::Wasm {
                shape: Shape::Handler | Shape::Http02 | Shape::Http03,
                ..
            } => media_type(&self.body),
            Code::Wasm { .. } | Code::Echo | Code::Endpoint { .. } => OCTETS,
        };
        let content_type = self
            .content_type
            .unwrap_or_else(|| ContentType(found().into()));
        Input {
            content_type,
            body: self.body,
        }
    }
}

fn media_type(body: &[u8]) -> &'static str {
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        "application/json"
    } else if std::str::from_utf8(body).is_ok() && !body.is_empty() {
        "text/plain; charset=utf-8"
    } else {
        OCTETS
    }
}

/// Standard input, unless it is a terminal; at most what a server takes.
fn read_stdin() -> Result<Bytes, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(Bytes::new());
    }
    let limit = Limits::default().body_bytes_max;
    let mut body = Vec::new();
    stdin
        .lock()
        .take(limit.saturating_add(1))
        .read_to_end(&mut body)
        .map_err(|error| input::unreadable("standard input", &error))?;
    if u64::try_from(body.len()).unwrap_or(u64::MAX) > limit {
        return Err(Failure::Usage(format!(
            "the input has more than {limit} bytes, which is what a server takes at most"
        )));
    }
    Ok(body.into())
}

/// The file's name without its extension, as far as functions may be named so.
fn name_of(file: &Path) -> anyhow::Result<FunctionName> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let named = stem.and_then(|stem| stem.parse().ok());
    Ok(match named {
        Some(name) => name,
        None => NAMELESS.parse()?,
    })
}

fn refused(problem: local::Problem) -> Failure {
    Failure::Answered(Box::new(Answered {
        status: problem.status,
        problem: Problem {
            error: problem.code.into_owned(),
            message: problem.message,
            details: problem.details.into(),
        },
        hint: None,
    }))
}

/// The spec names secrets that nobody gave to this run.
fn not_given(names: &[SecretName]) -> Failure {
    let code = Cow::Borrowed("UNKNOWN_SECRET");
    let names: Vec<_> = names.iter().map(SecretName::as_str).collect();
    refused(local::Problem {
        status: 422,
        code,
        message: format!(
            "the spec names secrets that this run is not given: {}",
            names.join(", ")
        ),
        details: Vec::new(),
    })
    .hint(secrets::HINT)
}

fn print_json(once: &Once) -> Result<(), Failure> {
    let shown = local::execution_with(&once.record, &once.attempt);
    output::print(&String::from_utf8_lossy(&shown))
}

fn print_logs(attempt: &AttemptRecord) {
    for line in &attempt.logs.lines {
        if io::stderr().is_terminal() {
            output::note(&output::for_terminal(&line.text));
        } else {
            output::note(&line.text);
        }
    }
    if attempt.logs.truncated {
        output::note("(cut here: the function's logBytesMax was reached)");
    }
}

/// The output's bytes as they are; on a terminal nothing that could steer it.
fn print_output(record: &ExecutionRecord) -> Result<(), Failure> {
    let Some(shown) = &record.output else {
        return Ok(());
    };
    if !io::stdout().is_terminal() {
        return output::write_bytes(&shown.body);
    }
    match (shown.encoding, std::str::from_utf8(&shown.body)) {
        (Encoding::Json | Encoding::Text, Ok(text)) => output::print(&output::for_terminal(text)),
        (Encoding::Json | Encoding::Text | Encoding::Base64, _) => {
            output::note(&format!(
                "the output is {} bytes that are not text: redirect it to get them",
                shown.body.len()
            ));
            Ok(())
        }
    }
}

/// Says on standard error how it ended, unless well.
fn explain(once: &Once) {
    let Once {
        record,
        attempt,
        max_attempts,
    } = once;
    let why = attempt.failure.as_ref().map_or(String::new(), |failure| {
        format!(
            ": {}: {}",
            output::for_terminal(&failure.code),
            output::for_terminal(&failure.message)
        )
    });
    let text = match &record.execution.state {
        State::Success => return,
        State::Queued { due } if attempt.outcome == "requeue" => {
            let delay_ms = due.ms_since(attempt.finished_at);
            format!("it asks to be run again in {delay_ms} ms: a server would do so")
        }
        State::Queued { .. } if attempt.outcome == "fault" => {
            let reason = "pelton could not run it; what was wrong is not the function's fault";
            format!("{reason}{why}")
        }
        State::Queued { .. } => {
            let left = max_attempts.saturating_sub(attempt.number);
            format!("it failed{why}\na server would try again, {left} more at most")
        }
        State::Running { .. } | State::Error(_) | State::Timeout(_) | State::Cancelled(_) => {
            format!("it ended in {}{why}", record.execution.status().as_str())
        }
    };
    output::note(&text);
}
