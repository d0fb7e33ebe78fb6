//! What `invoke` and `enqueue` share: a call's flags, its body and its headers.
//!
//! **Invariant:** one place builds calls, so both commands send the same thing.

use anyhow::Context as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

use super::client::{Answer, Client, action};
use super::exit::Failure;
use super::input::{self, Payload};

/// The flags of a call.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Call {
    /// The function
    #[arg(value_name = "NAME")]
    function: String,
    #[command(flatten)]
    payload: Payload,
    /// A key under which this call is made at most once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// An id of yours, handed on to the function and shown with the execution
    #[arg(long, value_name = "ID")]
    trace_id: Option<String>,
    /// Metadata for the function (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = input::pair)]
    metadata: Vec<(String, String)>,
}

/// The body of a call.
#[derive(Serialize)]
struct Body<'a> {
    input: &'a RawValue,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
}

impl Call {
    /// Makes the call; `verb` is `invoke` or `enqueue`.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub(crate) async fn send(
        &self,
        client: &Client,
        verb: &str,
        timeout_ms: Option<u64>,
    ) -> Result<Answer, Failure> {
        let input = self.payload.read()?;
        let body = serde_json::to_vec(&Body {
            input: &input,
            metadata: self
                .metadata
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
        })
        .context("cannot write the call's body")?;
        let mut headers = HeaderMap::new();
        add_header(
            &mut headers,
            "idempotency-key",
            self.idempotency_key.as_deref(),
        )?;
        add_header(&mut headers, "x-trace-id", self.trace_id.as_deref())?;
        let timeout_ms = timeout_ms.map(|ms| ms.to_string());
        add_header(&mut headers, "x-timeout-ms", timeout_ms.as_deref())?;
        let path = action(&self.function, verb);
        client
            .post(&["v1", "functions", &path], headers, body)
            .await
            .map_err(if_unknown_function)
    }
}

/// Where to look when a function is unknown.
pub(crate) fn if_unknown_function(failure: Failure) -> Failure {
    if failure.is_status(404) {
        failure.hint("`pelton functions ls` shows the functions of this server")
    } else {
        failure
    }
}

fn add_header(
    headers: &mut HeaderMap,
    name: &'static str,
    value: Option<&str>,
) -> Result<(), Failure> {
    let Some(value) = value else { return Ok(()) };
    let value = HeaderValue::from_str(value).map_err(|_| {
        Failure::Usage(format!(
            "{value:?} cannot be sent as {name}: use visible characters only"
        ))
    })?;
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}
