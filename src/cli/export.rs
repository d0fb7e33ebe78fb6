//! `pelton executions export`: executions as lines of JSON, to standard output or into a file.
//!
//! **Invariant:** holds no more of an export than arrives at once; ends with 0 only if all of it was written.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::Context;
use super::client::cause_of;
use super::executions::Which;
use super::exit::Failure;
use super::output;

/// The type that an export has.
const NDJSON: &str = "application/x-ndjson";

/// Write executions as lines of JSON, newest first, with their outputs
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Only executions before this one in the list: the last line of an export that broke off
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// Leave the outputs out
    #[arg(long)]
    no_outputs: bool,
    /// Write into this new file instead of standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Args {
    pub(super) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let query = self.which.query([
            ("before", self.before),
            ("outputs", self.no_outputs.then(|| "false".to_owned())),
        ]);
        let client = &context.client;
        let request = client.request(Method::GET, &["v1", "executions:export"]);
        let answer = client.begin(request.query(&query)).await?;
        let is_export = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value == NDJSON);
        if !is_export {
            return Err(Failure::Garbled(format!(
                "the answer is no export ({NDJSON}): is this a Pelton, and new enough?"
            )));
        }
        let mut out = Out::open(self.to)?;
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| out.broke_off(&cause_of(&error)))?;
            out.write(&chunk)?;
        }
        out.end()
    }
}

/// Where the lines go, and how many went.
struct Out {
    file: Option<(PathBuf, File)>,
    lines: usize,
}

impl Out {
    fn open(to: Option<PathBuf>) -> Result<Self, Failure> {
        let file = to.map(|path| match File::create_new(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) => Err(Failure::Usage(format!(
                "cannot make {}: {error}",
                path.display()
            ))),
        });
        Ok(Self {
            file: file.transpose()?,
            lines: 0,
        })
    }

    fn write(&mut self, chunk: &Bytes) -> Result<(), Failure> {
        match &mut self.file {
            Some((_, file)) => file.write_all(chunk).map_err(Failure::Output)?,
            None => output::write_bytes(chunk)?,
        }
        self.lines += chunk.iter().filter(|byte| **byte == b'\n').count();
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        if let Some((path, file)) = self.file {
            file.sync_all().map_err(Failure::Output)?;
            let lines = self.lines;
            output::note(&format!("{lines} executions in {}", path.display()));
        }
        Ok(())
    }

    fn broke_off(&self, cause: &str) -> Failure {
        Failure::Garbled(format!(
            "the export broke off after {} executions ({cause}): --before and the id in the last whole line goes on with it",
            self.lines
        ))
    }
}
