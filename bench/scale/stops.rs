//! How long a guest outlives its time limit in the one thing that cannot be interrupted: a single bulk instruction.
//!
//! **Invariant:** the guest is cut for its time, and by nothing else.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::pelton::{self, Client};
use crate::server::{self, Server};
use crate::{Row, Setup, http, row, say};

/// The limit of the attempt, in ms.
const TIMEOUT_MS: i64 = 20;
/// Repeats; the longest counts.
const REPEATS: u32 = 5;
/// Sizes of the memory that is filled, in MiB.
const SIZES_MIB: [u64; 3] = [16, 256, 4096];
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS_MAX: u32 = 3000;

pub(crate) async fn measure(setup: &Setup) -> Result<Vec<Row>> {
    let folder = server::folder()?;
    let server = Server::pelton_with(&setup.pelton, folder.path(), &[])?;
    let mut client = Client::new(server.address).await?;
    say("filling memory in one instruction");
    let mut rows = Vec::new();
    for mib in SIZES_MIB {
        let name = format!("fills-{mib}");
        client.deploy(&name, &fills(mib)?, 10).await?;
        let spec = json!({"memoryMb": mib, "timeoutMs": TIMEOUT_MS, "maxRetries": 1});
        client.patch(&name, &spec).await?;
        let mut longest_ms = 0;
        for _ in 0..REPEATS {
            let id = client.enqueue(&name).await?;
            longest_ms = client.ran_ms(&id).await?.max(longest_ms);
        }
        rows.push(row(
            format!("memory.fill over {mib} MiB in a loop, cut after {TIMEOUT_MS} ms: ended after, at most"),
            format!("{longest_ms} ms"),
        ));
    }
    server.stop()?;
    Ok(rows)
}

/// Fills all of its memory, again and again, in one instruction each time.
fn fills(mib: u64) -> Result<Vec<u8>> {
    let pages = mib * 16;
    // The last byte stays as it is: a length has 32 bits.
    let length = u32::try_from(mib * 1024 * 1024 - 1)?;
    let text = format!(
        r#"(module (memory (export "memory") 1) (func (export "_start")
            (drop (memory.grow (i32.const {})))
            (loop $on
                (memory.fill (i32.const 0) (i32.const 7) (i32.const {length}))
                (br $on))))"#,
        pages - 1,
    );
    wat::parse_str(text).context("the function's text")
}

impl Client {
    async fn enqueue(&mut self, name: &str) -> Result<String> {
        let path = pelton::enqueue_path(name);
        let answer = self.post(&path, br#"{"input": 1}"#).await?.json(&[202])?;
        let id = answer["executionId"].as_str();
        Ok(id.context("no executionId")?.to_owned())
    }

    /// How long an execution ran, once it has ended.
    async fn ran_ms(&mut self, id: &str) -> Result<i64> {
        let path = format!("/v1/executions/{id}");
        for _ in 0..LOOKS_MAX {
            let execution = self.get(&path).await?.json(&[200])?;
            if execution["finishedAt"].is_string() {
                ensure!(execution["status"] == "timeout", "{execution}");
                let at = |field: &str| time_ms(&execution[field]);
                return Ok(at("finishedAt")? - at("startedAt")?);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::bail!("{id} does not end")
    }

    async fn get(&mut self, path: &str) -> Result<http::Answer<'_>> {
        self.ask("GET", path, b"").await
    }

    async fn post(&mut self, path: &str, body: &[u8]) -> Result<http::Answer<'_>> {
        self.ask("POST", path, body).await
    }
}

fn time_ms(value: &Value) -> Result<i64> {
    let text = value.as_str().context("no time")?;
    let time: jiff::Timestamp = text.parse().context("no time")?;
    Ok(time.as_millisecond())
}
