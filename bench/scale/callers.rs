//! Callers that wait at the same time, far more than guests may run.
//!
//! **Invariant:** every caller is answered, and rightly.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use crate::http::{self, Connection};
use crate::pelton::{self, Client};
use crate::server::{self, Server};
use crate::{Row, Setup, machine, megabytes, row, say, seconds};

/// The function's name.
const NAPS: &str = "naps";
/// Time between two looks at how many callers wait.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time within which all must have been seen waiting.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// A command that sleeps for a second and answers nothing.
const WAT: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 32) (i32.const 1))
        (i64.store (i32.const 40) (i64.const 1000000000))
        (drop (call $poll (i32.const 16) (i32.const 128) (i32.const 1) (i32.const 8)))))"#;

pub(crate) async fn measure(setup: &Setup, callers: u32) -> Result<Vec<Row>> {
    let folder = server::folder()?;
    let server = Server::pelton_with(&setup.pelton, folder.path(), &[])?;
    let mut client = Client::new(server.address).await?;
    let wasm = wat::parse_str(WAT).context("the function's text")?;
    client.deploy(NAPS, &wasm, callers).await?;
    client.patch(NAPS, &json!({"concurrency": 256})).await?;
    say(&format!("{callers} callers at once"));
    let idle_mb = machine::resident_mb(server.pid())?;
    let began = Instant::now();
    let (open_mb, took) = LocalSet::new()
        .run_until(async {
            let mut waiting = JoinSet::new();
            for _ in 0..callers {
                waiting.spawn_local(call(server.address));
            }
            let opened = all_open(&mut client, u64::from(callers)).await;
            let open_mb = machine::resident_mb(server.pid())?;
            while let Some(answered) = waiting.join_next().await {
                answered.context("a caller panicked")??;
            }
            opened?;
            anyhow::Ok((open_mb, seconds(began)))
        })
        .await?;
    let succeeded = client.succeeded(NAPS).await?;
    ensure!(
        succeeded == u64::from(callers),
        "{succeeded} of {callers} succeeded"
    );
    Ok(vec![
        row(
            format!("resident idle / with {callers} callers waiting"),
            format!("{} / {}", megabytes(idle_mb), megabytes(open_mb)),
        ),
        row(
            format!("{callers} callers of a function that sleeps 1 s, 256 at once, all answered"),
            took,
        ),
    ])
}

async fn call(address: SocketAddr) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let body = br#"{"input": 1}"#;
    let path = pelton::invoke_path(NAPS);
    let answer = connection.send("POST", &path, http::JSON, body).await?;
    let answer: Value = answer.json(&[200])?;
    ensure!(answer["status"] == "success", "{answer}");
    Ok(())
}

/// Waits until all of them are seen waiting at once.
async fn all_open(client: &mut Client, callers: u64) -> Result<()> {
    let began = Instant::now();
    let mut most = 0;
    while began.elapsed() < OPEN_WITHIN {
        most = client.metric("pelton_live_executions").await?.max(most);
        if most == callers {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    anyhow::bail!("only {most} of {callers} callers were waiting at once")
}
