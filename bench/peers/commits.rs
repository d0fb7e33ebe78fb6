//! A loop over SQLite and nothing around it: what a durable execution writes, in commits of many.
//!
//! For each batch one transaction inserts the inputs, as when calls are accepted, and one sets the outputs, as
//! when they have ended.
//!
//! **Invariant:** every commit is synced before the next begins.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::bare::Looped;
use crate::machine::Watch;
use crate::{payload, report};

/// What to do; by way of the command line, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Where the database goes.
    pub(crate) folder: PathBuf,
    /// Executions in one transaction.
    pub(crate) batch: u32,
    pub(crate) load_ms: u64,
}

/// The role.
pub(crate) fn run(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let mut connection = Connection::open(job.folder.join("commits.db"))?;
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE execution (id INTEGER PRIMARY KEY, state INTEGER, input BLOB, output BLOB)",
    )?;
    let input = payload::call()["input"].to_string();
    let time = Duration::from_millis(job.load_ms);
    let mut accepts_ms = Vec::new();
    let mut next: i64 = 1;
    let watch = Watch::before_start()?;
    let began = Instant::now();
    while began.elapsed() < time {
        let batch = next..next + i64::from(job.batch);
        next = batch.end;
        let accepting = Instant::now();
        let accept = connection.transaction()?;
        for id in batch.clone() {
            accept
                .prepare_cached("INSERT INTO execution (id, state, input) VALUES (?1, 0, ?2)")?
                .execute(params![id, input.as_bytes()])?;
        }
        accept.commit()?;
        accepts_ms.push(accepting.elapsed().as_secs_f64() * 1e3);
        let finish = connection.transaction()?;
        for id in batch {
            finish
                .prepare_cached("UPDATE execution SET state = 1, output = ?2 WHERE id = ?1")?
                .execute(params![id, input.as_bytes()])?;
        }
        finish.commit()?;
    }
    let looped = Looped {
        calls: u64::try_from(next - 1)?,
        used: watch.end_of_own()?,
        p50_ms: Some(report::median(&accepts_ms)),
    };
    looped.tell()
}
