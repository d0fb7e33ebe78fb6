//! `pelton deploy`: uploads a wasm file, creates a function that needs none, or changes fields of a spec.
//!
//! What `--set` does not name stays as it is; only `--spec` says a whole spec.
//!
//! **Invariant:** when it ends with 0, the version it names is active; when it does not, nothing changed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::multipart::{Form, Part};
use serde_json::{Map, Value};

use super::Context;
use super::client::{Answer, Client};
use super::exit::{Exit, Failure};
use super::input;
use super::output;
use super::progress::Progress;
use super::wire::Function;
use crate::model::{FunctionName, InvalidFunctionName};

/// How much is handed to the connection at once: the grain of the progress bar.
const CHUNK_BYTES: usize = 64 * 1024;

/// Deploy a wasm file as a function or as a new version of one, or change fields of a function's spec
///
/// A file alone keeps the spec of a function that exists. --set changes the fields that it names and keeps
/// the others, with a file or without one. --spec is the whole spec: what it leaves out goes to its default.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The function
    #[arg(value_name = "NAME", value_parser = function_name)]
    function: String,
    /// The wasm file; a new function without one needs an image or an endpointUrl
    #[arg(value_name = "FILE", required_unless_present_any = ["set", "spec"])]
    file: Option<PathBuf>,
    /// Set a field of the spec and keep the others, as in timeoutMs=500, retryBackoff.baseDelayMs=0 or
    /// env.NAME=text; null goes back to the default (repeatable)
    #[arg(long, value_name = "FIELD=VALUE", value_parser = input::pair)]
    set: Vec<(String, String)>,
    /// Read the whole spec from a JSON file: what it leaves out goes to its default; --set adds to it
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
}

impl Args {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let client = &context.client;
        let answer = match &self.file {
            Some(file) => {
                let wasm = input::read_file(file)?;
                upload(client, &self.function, wasm.into(), self.beside_wasm()?).await?
            }
            None => self.without_wasm(client).await?,
        };
        context.show(&answer, |function: Function| {
            let what = if answer.status == 201 {
                "created"
            } else {
                "updated"
            };
            output::print(&format!("{what} {}", function.summary()))?;
            if let Some(ignored) = function.ignored() {
                output::note(&format!("ignored, for they mean nothing here: {ignored}"));
            }
            Ok(())
        })?;
        Ok(Exit::Success)
    }

    /// What goes with a file: nothing if the function keeps the spec that it has. What --set changes is merged
    /// by the server, so that nobody's change in between is undone.
    fn beside_wasm(&self) -> Result<Beside, Failure> {
        Ok(match &self.spec {
            Some(file) => Beside::Spec(self.with_settings(read_spec(file)?)),
            None if self.set.is_empty() => Beside::Nothing,
            None => Beside::Patch(self.with_settings(Map::new())),
        })
    }

    /// Changes fields of a function that exists, or creates one that needs no file.
    async fn without_wasm(&self, client: &Client) -> Result<Answer, Failure> {
        let function = &self.function;
        if let Some(file) = &self.spec {
            let spec = self.with_settings(read_spec(file)?);
            let hint =
                format!("`pelton deploy {function} --set FIELD=VALUE` changes one that exists");
            return create(client, function, spec).await.map_err(|failure| {
                match failure.is_status(409) {
                    true => failure.hint(hint),
                    false => failure,
                }
            });
        }
        let fields = self.with_settings(Map::new());
        let request = client
            .request(Method::PATCH, &["v1", "functions", function])
            .header(CONTENT_TYPE, "application/merge-patch+json")
            .body(Value::Object(fields.clone()).to_string());
        match client.send(request).await {
            Err(failure) if failure.is_status(404) => create(client, function, fields).await,
            answer => answer,
        }
    }

    fn with_settings(&self, spec: Map<String, Value>) -> Map<String, Value> {
        with_settings(spec, &self.set)
    }
}

/// A spec with fields set as `--set` says.
pub(super) fn with_settings(
    mut spec: Map<String, Value>,
    settings: &[(String, String)],
) -> Map<String, Value> {
    for (name, value) in settings {
        input::set_field(&mut spec, name, value);
    }
    spec
}

/// Refuses here what no path could carry, such as an empty name.
fn function_name(text: &str) -> Result<String, InvalidFunctionName> {
    text.parse::<FunctionName>().map(|_| text.to_owned())
}

/// Reads the JSON object in a file.
///
/// # Errors
/// [`Failure::Usage`] if it is none, or cannot be read.
pub(super) fn read_spec(file: &Path) -> Result<Map<String, Value>, Failure> {
    serde_json::from_slice(&input::read_file(file)?)
        .map_err(|error| Failure::Usage(format!("{} is no JSON object: {error}", file.display())))
}

/// What is uploaded beside wasm.
#[derive(Debug, Clone)]
pub(crate) enum Beside {
    /// Nothing: the spec stays as it is.
    Nothing,
    /// A whole spec.
    Spec(Map<String, Value>),
    /// What changes of the spec.
    Patch(Map<String, Value>),
}

/// Uploads wasm and what goes with it, and shows how far it is.
///
/// # Errors
/// See [`Client::send`].
pub(crate) async fn upload(
    client: &Client,
    function: &str,
    wasm: Bytes,
    beside: Beside,
) -> Result<Answer, Failure> {
    let length = u64::try_from(wasm.len()).unwrap_or(u64::MAX);
    let progress = Progress::bytes(
        &format!("uploading {function}, {}", output::bytes(length)),
        length,
    );
    let request = client.request(Method::PUT, &["v1", "functions", function]);
    let body = body_with_progress(wasm, progress.clone(), format!("compiling {function}"));
    let (name, json) = match beside {
        Beside::Nothing => {
            let request = request
                .header(CONTENT_TYPE, "application/wasm")
                .header(CONTENT_LENGTH, length)
                .body(body);
            let answer = client.send(request).await;
            progress.end();
            return answer;
        }
        Beside::Spec(spec) => ("spec", spec),
        Beside::Patch(patch) => ("patch", patch),
    };
    let part = |part: Part, media_type| {
        part.mime_str(media_type)
            .context("cannot write the upload's head")
    };
    let json = part(
        Part::text(Value::Object(json).to_string()),
        "application/json",
    )?;
    let wasm = part(
        Part::stream_with_length(body, length).file_name(format!("{function}.wasm")),
        "application/wasm",
    )?;
    let request = request.multipart(Form::new().part(name, json).part("wasm", wasm));
    let answer = client.send(request).await;
    progress.end();
    answer
}

/// Registers a function by its spec alone.
async fn create(
    client: &Client,
    function: &str,
    mut spec: Map<String, Value>,
) -> Result<Answer, Failure> {
    spec.entry("name").or_insert_with(|| function.into());
    let body = Value::Object(spec).to_string();
    client
        .post(&["v1", "functions"], HeaderMap::new(), body)
        .await
}

/// A body that tells how much of it was taken, and what comes after it.
fn body_with_progress(bytes: Bytes, progress: Progress, then: String) -> reqwest::Body {
    let state = (bytes, progress, then);
    reqwest::Body::wrap_stream(stream::unfold(state, |(mut rest, progress, then)| async {
        if rest.is_empty() {
            return None;
        }
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
        progress.advance(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if rest.is_empty() {
            progress.next_step(&then);
        }
        Some((Ok::<_, std::io::Error>(chunk), (rest, progress, then)))
    }))
}
