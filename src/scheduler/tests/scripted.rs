//! A runner that does what the input says.
//!
//! **Invariant:** waits for no real time; the same attempt does the same again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::trace::Trace;
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{ExecutionId, Failure, Fence, JSON, LogLine, LogStream};
use crate::scheduler::Runner;
use crate::shutdown::chaos::Chaos;

/// Runs what the input says: words, one per run. The run's word is found from its attempt and requeue
/// numbers, so that a run that is repeated (a fault, an interruption) does the same again; the last word
/// goes on for ever.
#[derive(Debug)]
pub(super) struct ScriptedRunner {
    /// Every run that began.
    pub(super) runs: watch::Sender<Vec<ExecutionId>>,
    /// Every run that came to an outcome.
    pub(super) returned: Mutex<Vec<(ExecutionId, Fence)>>,
    /// `hold` waits for one of these.
    pub(super) held: Semaphore,
    /// The process that dies of `poison`.
    pub(super) dies: Mutex<Option<Chaos>>,
    /// Runs that panic, whatever their word.
    pub(super) panics: AtomicU32,
    /// Runs under way.
    pub(super) running: watch::Sender<u32>,
    pub(super) trace: Trace,
}

impl Default for ScriptedRunner {
    fn default() -> Self {
        Self::traced(Trace::default())
    }
}

/// The failure that scripts give.
pub(super) fn failure() -> Failure {
    Failure::new("SCRIPTED", "as the script says")
}

/// One of those that a number counts, for as long as it lives.
pub(super) struct Counted<'a>(pub(super) &'a watch::Sender<u32>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Runner for ScriptedRunner {
    async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
        self.running.send_modify(|running| *running += 1);
        let _running = Counted(&self.running);
        let (id, fence) = (attempt.execution_id, attempt.fence);
        self.runs.send_modify(|runs| runs.push(id));
        self.trace.note(|| format!("run {id} {fence} begins"));
        if take_one(&self.panics) {
            panic!("as the test said");
        }
        let script = std::str::from_utf8(&attempt.input.body).unwrap();
        let words: Vec<_> = script.trim_matches('"').split(' ').collect();
        let turn = (attempt.number - 1 + attempt.requeues) as usize;
        let word = words[turn.min(words.len() - 1)];
        tokio::task::yield_now().await;
        let mut ran = Ran::bare(self.say(word, attempt, stop).await);
        // What a guest writes, so that logs can be looked for.
        ran.logs.lines.push(LogLine {
            stream: LogStream::Stderr,
            text: word.to_owned(),
        });
        self.returned.lock().unwrap().push((id, fence));
        let came_to = ran.outcome.word();
        self.trace.note(|| format!("run {id} {fence}: {came_to}"));
        ran
    }
}

impl ScriptedRunner {
    /// One that notes what it does.
    pub(super) fn traced(trace: Trace) -> Self {
        Self {
            runs: watch::Sender::default(),
            returned: Mutex::default(),
            held: Semaphore::new(0),
            dies: Mutex::default(),
            panics: AtomicU32::new(0),
            running: watch::Sender::default(),
            trace,
        }
    }

    async fn say(&self, word: &str, attempt: &Attempt, stop: &CancellationToken) -> Outcome {
        let success = || Outcome::Success {
            content_type: Some(JSON),
            body: Bytes::from(attempt.execution_id.to_string().into_bytes()),
        };
        match word {
            "ok" => success(),
            "error" => Outcome::Error(failure()),
            "limit" => Outcome::Limit(failure()),
            "retry" => Outcome::Retry(failure()),
            "timeout" => Outcome::TimedOut(failure()),
            "fault" => Outcome::Fault("as the script says".to_owned()),
            "interrupted" => Outcome::Interrupted,
            "panic" => panic!("as the script says"),
            "hang" => tokio::select! {
                biased;
                () = stop.cancelled() => Outcome::Interrupted,
                () = tokio::time::sleep(attempt.time_limit) => Outcome::TimedOut(failure()),
            },
            // A guest that computes: it is cut at the tick after its time is over.
            "spin" => {
                tokio::time::sleep(attempt.time_limit + Duration::from_millis(2)).await;
                Outcome::TimedOut(failure())
            }
            "hold" => tokio::select! {
                biased;
                () = stop.cancelled() => Outcome::Interrupted,
                permit = self.held.acquire() => {
                    permit.unwrap().forget();
                    success()
                }
            },
            // A guest that takes a while to be stopped: gone when the test says so.
            "stubborn" => {
                self.held.acquire().await.unwrap().forget();
                if stop.is_cancelled() {
                    Outcome::Interrupted
                } else {
                    success()
                }
            }
            poison if poison.starts_with("poison") => {
                if let Some(ms) = poison.strip_prefix("poison:") {
                    tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await;
                }
                if let Some(process) = &*self.dies.lock().unwrap() {
                    process.die();
                }
                std::future::pending().await
            }
            nap if nap.starts_with("nap:") => {
                let ms = nap["nap:".len()..].parse().unwrap();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => Outcome::Interrupted,
                    () = tokio::time::sleep(Duration::from_millis(ms)) => success(),
                }
            }
            later => {
                let delay = later.strip_prefix("later:").expect("a word of the script");
                Outcome::Requeue(delay.parse().ok())
            }
        }
    }
}

pub(super) fn take_one(left: &AtomicU32) -> bool {
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    taken.is_ok()
}
