//! `pelton deploy`: uploads a wasm file with its spec, or registers a function that needs no file.
//!
//! **Invariant:** when it ends with 0, the version it names is active; when it does not, nothing changed.

use std::path::PathBuf;

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
use super::output::{self, Format};
use super::progress::Progress;
use super::wire::Function;

/// How much is handed to the connection at once: the grain of the progress bar.
const CHUNK_BYTES: usize = 64 * 1024;

/// Deploy a wasm file as a function, or as a new version of one
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The function
    #[arg(value_name = "NAME")]
    function: String,
    /// The wasm file; without one the spec names an image or an endpointUrl
    #[arg(value_name = "FILE", required_unless_present_any = ["set", "spec"])]
    file: Option<PathBuf>,
    /// Set a field of the spec, as in timeoutMs=500, retryBackoff.baseDelayMs=0 or env.NAME=text (repeatable)
    #[arg(long, value_name = "FIELD=VALUE", value_parser = input::pair)]
    set: Vec<(String, String)>,
    /// Read the spec from a JSON file; --set adds to it
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
}

impl Args {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let spec = self.read_spec()?;
        let answer = match &self.file {
            Some(file) => {
                let wasm = std::fs::read(file)
                    .map_err(|error| input::unreadable(&file.display().to_string(), &error))?;
                upload(&context.client, &self.function, wasm.into(), spec).await?
            }
            None => create(&context.client, &self.function, spec.unwrap_or_default()).await?,
        };
        match context.format {
            Format::Json => output::print(&answer.text())?,
            Format::Human => {
                let function: Function = answer.read()?;
                let what = if answer.status == 201 {
                    "created"
                } else {
                    "updated"
                };
                output::print(&format!("{what} {}", function.summary()))?;
                if let Some(ignored) = function.ignored() {
                    output::note(&format!("ignored, for they mean nothing here: {ignored}"));
                }
            }
        }
        Ok(Exit::Success)
    }

    fn read_spec(&self) -> Result<Option<Map<String, Value>>, Failure> {
        if self.spec.is_none() && self.set.is_empty() {
            return Ok(None);
        }
        let mut spec = Map::new();
        if let Some(file) = &self.spec {
            let text = std::fs::read_to_string(file)
                .map_err(|error| input::unreadable(&file.display().to_string(), &error))?;
            spec = serde_json::from_str(&text).map_err(|error| {
                Failure::Usage(format!("{} is no JSON object: {error}", file.display()))
            })?;
        }
        for (name, value) in &self.set {
            input::set_field(&mut spec, name, value);
        }
        Ok(Some(spec))
    }
}

/// Uploads wasm, with a spec or with the one that stands, and shows how far it is.
///
/// # Errors
/// See [`Client::send`].
pub(crate) async fn upload(
    client: &Client,
    function: &str,
    wasm: Bytes,
    spec: Option<Map<String, Value>>,
) -> Result<Answer, Failure> {
    let length = u64::try_from(wasm.len()).unwrap_or(u64::MAX);
    let progress = Progress::bytes(
        &format!("uploading {function}, {}", output::bytes(length)),
        length,
    );
    let request = client.request(Method::PUT, &["v1", "functions", function]);
    let body = body_with_progress(wasm, progress.clone(), format!("compiling {function}"));
    let request = match spec {
        None => request
            .header(CONTENT_TYPE, "application/wasm")
            .header(CONTENT_LENGTH, length)
            .body(body),
        Some(spec) => {
            let part = |part: Part, media_type| {
                part.mime_str(media_type)
                    .context("cannot write the upload's head")
            };
            let spec = part(
                Part::text(Value::Object(spec).to_string()),
                "application/json",
            )?;
            let wasm = part(
                Part::stream_with_length(body, length).file_name(format!("{function}.wasm")),
                "application/wasm",
            )?;
            request.multipart(Form::new().part("spec", spec).part("wasm", wasm))
        }
    };
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
