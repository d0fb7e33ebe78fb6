//! Callers that wait at the same time, far more than guests may run.
//!
//! **Invariant:** every caller is answered: rightly, or refused with the reason and the time after which it may come again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::{JoinSet, LocalSet};

use crate::figures::{self, Meter};
use crate::http::{self, Answer, Connection};
use crate::load::Served;
use crate::pelton::{self, Client};
use crate::server::{self, Server};
use crate::{Row, Setup, row, say, seconds};

/// The function's name.
const NAPS: &str = "naps";
/// Guests at once: the default of `--guests-max`.
const AT_ONCE: u32 = 256;
/// How long a caller waits: with so many at once, the last of ten thousand has its turn after forty seconds.
const TIMEOUT_MS: u32 = 300_000;
/// Time between two looks at how many callers wait.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Files that are open beside the callers' connections.
const FILES_BESIDE: u64 = 200;

/// A command that sleeps and answers nothing.
pub(crate) fn naps(ms: u32) -> Result<Vec<u8>> {
    let ns = u64::from(ms) * 1_000_000;
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (i32.store (i32.const 32) (i32.const 1))
                (i64.store (i32.const 40) (i64.const {ns}))
                (drop (call $poll (i32.const 16) (i32.const 128) (i32.const 1) (i32.const 8)))))"#
    );
    wat::parse_str(text).context("the function's text")
}

/// What a server lets in.
struct Scene {
    what: &'static str,
    flags: Vec<String>,
    /// All connections are open before the first call is sent: the server has room for them.
    opens_first: bool,
    /// All callers have to be answered with a result.
    refuses: bool,
}

pub(crate) async fn measure(setup: &Setup, callers: u32) -> Result<Vec<Row>> {
    allow_files(callers)?;
    let room = (callers + 100).to_string();
    let connections = ["--connections-max".to_owned(), room.clone()];
    let waiting = ["--sync-queue-max-depth".to_owned(), room];
    let scenes = [
        Scene {
            what: "as it comes",
            flags: Vec::new(),
            opens_first: false,
            refuses: false,
        },
        Scene {
            what: "room for all connections",
            flags: connections.to_vec(),
            opens_first: true,
            refuses: true,
        },
        Scene {
            what: "room for all connections and callers",
            flags: [connections, waiting].concat(),
            opens_first: true,
            refuses: false,
        },
    ];
    let mut rows = Vec::new();
    for scene in scenes {
        rows.extend(play(setup, callers, &scene).await?);
    }
    Ok(rows)
}

/// Lets this program hold the connections; the server lets itself.
fn allow_files(callers: u32) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::from(callers) + FILES_BESIDE;
    ensure!(
        limit.maximum.is_none_or(|files| files >= needed),
        "{callers} callers need {needed} open files (`ulimit -Hn`)"
    );
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}

async fn play(setup: &Setup, callers: u32, scene: &Scene) -> Result<Vec<Row>> {
    let what = format!("{callers} callers, {}", scene.what);
    say(&what);
    let folder = server::folder()?;
    let flags: Vec<&str> = scene.flags.iter().map(String::as_str).collect();
    let began = Instant::now();
    let server = Server::pelton_with(&setup.pelton, folder.path(), &flags)?;
    let started = seconds(began);
    let mut client = Client::new(server.address).await?;
    client.deploy(NAPS, &naps(1_000)?, callers).await?;
    let spec = json!({"concurrency": AT_ONCE, "timeoutMs": TIMEOUT_MS});
    client.patch(NAPS, &spec).await?;
    let meter = Meter::begin(&server)?;
    let began = Instant::now();
    let came = come(&server, &mut client, callers, scene).await?;
    let took = seconds(began);
    let used = meter.used()?;
    let (answered, refused) = (came.answered_us.len(), came.refused_us.len());
    ensure!(
        answered + refused == usize::try_from(callers)? && (scene.refuses || refused == 0),
        "{answered} answered and {refused} refused of {callers}"
    );
    let succeeded = client.succeeded(NAPS).await?;
    ensure!(
        succeeded == u64::try_from(answered)?,
        "{succeeded} succeeded, {answered} were told so"
    );
    let mut rows = vec![
        row(
            format!("{what}: answered; refused; most at once; took"),
            format!("{answered}; {refused}; {}; {took}", came.most),
        ),
        row(
            format!("{what}: p50 / p99 of an answer"),
            figures::tail(&Served::from(came.answered_us)),
        ),
    ];
    if refused > 0 {
        rows.push(row(
            format!("{what}: p50 / p99 of a refusal"),
            figures::tail(&Served::from(came.refused_us)),
        ));
    }
    rows.push(row(
        format!("{what}: server's CPU; start"),
        format!("{:.2} s; {started}", used.server_s),
    ));
    rows.push(meter.memory(&what)?);
    server.stop()?;
    Ok(rows)
}

/// What became of the callers.
#[derive(Default)]
struct Came {
    answered_us: Vec<u32>,
    refused_us: Vec<u32>,
    /// The most that were seen in the server at once.
    most: u64,
}

async fn come(server: &Server, client: &mut Client, callers: u32, scene: &Scene) -> Result<Came> {
    let came = Rc::new(RefCell::new(Came::default()));
    let address = server.address;
    let parties = if scene.opens_first { callers } else { 1 };
    let opened = Rc::new(Barrier::new(usize::try_from(parties)?));
    LocalSet::new()
        .run_until(async {
            let mut waiting = JoinSet::new();
            for _ in 0..callers {
                let (came, opened) = (Rc::clone(&came), Rc::clone(&opened));
                waiting.spawn_local(async move {
                    let began = Instant::now();
                    let connection = Connection::open(address).await?;
                    opened.wait().await;
                    call(connection, began, &came).await
                });
            }
            let mut look = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    answered = waiting.join_next() => match answered {
                        Some(answered) => answered.context("a caller panicked")??,
                        None => return anyhow::Ok(()),
                    },
                    _ = look.tick() => {
                        let live = client.metric("pelton_live_executions").await?;
                        let most = &mut came.borrow_mut().most;
                        *most = live.max(*most);
                    }
                }
            }
        })
        .await?;
    Ok(came.take())
}

/// One caller: its time begins with its connection.
async fn call(mut connection: Connection, began: Instant, came: &RefCell<Came>) -> Result<()> {
    let body = br#"{"input": 1}"#;
    let path = pelton::invoke_path(NAPS);
    let answer = connection.send("POST", &path, http::JSON, body).await?;
    let took_us = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
    if answer.status == 200 {
        let execution: Value = answer.json(&[200])?;
        ensure!(execution["status"] == "success", "{execution}");
        came.borrow_mut().answered_us.push(took_us);
    } else {
        refused(&answer)?;
        came.borrow_mut().refused_us.push(took_us);
    }
    Ok(())
}

/// An error, unless this is how a call is refused for want of room.
pub(crate) fn refused(answer: &Answer<'_>) -> Result<()> {
    let said = answer.json(&[429, 503])?;
    match (said["error"].as_str(), answer.retry_after_s) {
        (Some("QUEUE_FULL" | "QUEUE_TOO_LONG" | "BUSY"), Some(1..)) => Ok(()),
        _ => bail!("no refusal for want of room: {answer:?}"),
    }
}
