//! What a client asks of Pelton: deploy, call, count, look at a result.
//!
//! **Invariant:** whatever is asked here is part of the public HTTP API.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::http::Connection;
use crate::load::Check;

/// Calls that may run at once: more than any load here has connections, so that slots are no bottleneck.
const CONCURRENCY: u32 = 64;

/// A connection for what is no load.
pub(crate) struct Client {
    connection: Connection,
}

impl Client {
    pub(crate) async fn new(address: SocketAddr) -> Result<Self> {
        let connection = Connection::open(address).await?;
        Ok(Self { connection })
    }

    /// Deploys code under a name, with room for `queue` waiting calls.
    pub(crate) async fn deploy(&mut self, name: &str, wasm: &[u8], queue: u32) -> Result<()> {
        self.put(name, wasm).await?;
        let spec = json!({"concurrency": CONCURRENCY, "queueSize": queue});
        self.patch(name, &spec).await
    }

    /// Deploys code under a name, and no more.
    pub(crate) async fn put(&mut self, name: &str, wasm: &[u8]) -> Result<()> {
        let path = format!("/v1/functions/{name}");
        let put = self.connection.send("PUT", &path, "application/wasm", wasm);
        put.await?.expect(&[200, 201])
    }

    /// Deploys code that may want to call out, to be called by as many at once as [`Client::deploy`] allows.
    pub(crate) async fn deploy_closed(&mut self, name: &str, wasm: &[u8]) -> Result<()> {
        const BOUNDARY: &str = "between-two-parts";
        let patch = json!({"allowHosts": [], "concurrency": CONCURRENCY});
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"patch\"\r\n\r\n{patch}\r\n\
             --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"wasm\"\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(wasm);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let path = format!("/v1/functions/{name}");
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let put = self.connection.send("PUT", &path, &content_type, &body);
        put.await?.expect(&[200, 201])
    }

    /// Changes the spec of a function.
    pub(crate) async fn patch(&mut self, name: &str, spec: &Value) -> Result<()> {
        let (path, spec) = (format!("/v1/functions/{name}"), spec.to_string());
        let answer = self.ask("PATCH", &path, spec.as_bytes()).await?;
        answer.expect(&[200])
    }

    /// Calls a function and waits for its result, which must be its input.
    pub(crate) async fn invoke(&mut self, name: &str, call: &Value) -> Result<()> {
        let check = echoed(call);
        let body = call.to_string();
        let answer = self
            .ask("POST", &invoke_path(name), body.as_bytes())
            .await?;
        answer.expect(&[200])?;
        check(&answer)
    }

    /// How many executions of a function ended well, by the metrics.
    pub(crate) async fn succeeded(&mut self, name: &str) -> Result<u64> {
        self.counted(&format!("function_success_total{{function=\"{name}\"}}"))
            .await
    }

    /// What a series of the metrics has counted.
    pub(crate) async fn counted(&mut self, series: &str) -> Result<u64> {
        let metrics = self.metrics().await?;
        let mut lines = metrics.lines();
        let Some(line) = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')) else {
            // A series appears with its first event.
            return Ok(0);
        };
        line.trim()
            .parse()
            .with_context(|| format!("no count: {line}"))
    }

    /// All metrics, as text.
    pub(crate) async fn metrics(&mut self) -> Result<&str> {
        let answer = self.ask("GET", "/actuator/prometheus", b"").await?;
        answer.expect(&[200])?;
        Ok(str::from_utf8(answer.body)?)
    }

    /// Compares the newest executions of a function, one page of them, with what was sent.
    pub(crate) async fn check_newest(&mut self, name: &str, call: &Value) -> Result<()> {
        let path = format!("/v1/executions?function={name}&status=success&limit=20");
        let page = self.ask("GET", &path, b"").await?.json(&[200])?;
        let items = page["items"].as_array().context("no items in the list")?;
        ensure!(!items.is_empty(), "the list of executions is empty");
        for item in items {
            let id = item["executionId"].as_str().context("no executionId")?;
            let path = format!("/v1/executions/{id}");
            let answer = self.ask("GET", &path, b"").await?;
            answer.expect(&[200])?;
            echoed(call)(&answer)?;
        }
        Ok(())
    }

    /// The answer to a request with a JSON body.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<crate::http::Answer<'_>> {
        self.connection
            .send(method, path, crate::http::JSON, body)
            .await
    }
}

pub(crate) fn invoke_path(name: &str) -> String {
    format!("/v1/functions/{name}:invoke")
}

pub(crate) fn enqueue_path(name: &str) -> String {
    format!("/v1/functions/{name}:enqueue")
}

/// Checks that an execution ended well and its output is its input.
pub(crate) fn echoed(call: &Value) -> Check {
    let input = call["input"].clone();
    Rc::new(move |answer| {
        let execution: Value = serde_json::from_slice(answer.body)?;
        ensure!(
            execution["status"] == "success" && execution["output"] == input,
            "not what was sent: {execution}"
        );
        Ok(())
    })
}

/// Checks that an answer names an execution.
pub(crate) fn accepted() -> Check {
    Rc::new(|answer| {
        let execution: Value = serde_json::from_slice(answer.body)?;
        ensure!(execution["executionId"].is_string(), "no id: {execution}");
        Ok(())
    })
}

/// The same component, told apart by a custom section, so that it is stored and compiled by itself.
pub(crate) fn with_mark(wasm: &[u8], number: u32) -> Vec<u8> {
    const CUSTOM: u8 = 0;
    const NAME: &[u8] = b"\x04mark";
    let mut marked = wasm.to_vec();
    marked.extend([CUSTOM, 9]);
    marked.extend(NAME);
    marked.extend(number.to_le_bytes());
    marked
}
