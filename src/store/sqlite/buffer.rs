//! The write-behind buffer: ended executions on their way to the disk, visible to reads by id.
//!
//! A record is found here from the moment it is handed over until after its commit, so a reader that
//! looks here first and in the database second never falls into a gap.
//!
//! **Invariant:** holds at most `bytes_max`; taking a record in never waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::bundle::{self, Call};
use crate::model::{ExecutionId, IdMap, RecordMode};
use crate::store::record::Unreadable;
use crate::store::{AttemptRecord, EndedExecution, ExecutionRecord, Request};

/// What a record without bodies is counted as, beside its error text.
const SUMMARY_BYTES: u64 = 512;
/// What one attempt is counted as, beside its log.
const ATTEMPT_BYTES: u64 = 128;

/// Committed records that wait for a thread to free them, at most.
const SPENT_MAX: usize = 512;
/// The largest of them, in bytes.
const SPENT_BYTES_MAX: u64 = 16 * 1024;

/// An ended execution, as much of it as is kept.
#[derive(Debug)]
pub(super) struct Ended {
    /// What lists show: all but the output.
    pub(super) record: ExecutionRecord,
    /// What the caller sent, the output and the runs, unless only a summary is kept.
    pub(super) bodies: Option<Bodies>,
    bytes: u64,
}

/// What a summary leaves out. Written at once as it will be stored, by the thread that still has it at hand: so the
/// memory of a call, the buffer that its request was read into among it, is free again when the call has ended.
#[derive(Debug)]
pub(super) struct Bodies {
    /// The call, as a part of a bundle.
    pub(super) part: Vec<u8>,
    /// Whether what the caller sent is in it; absent where that went past us.
    pub(super) has_request: bool,
    /// Whether any runs are in it.
    pub(super) has_attempts: bool,
}

impl Ended {
    /// What a read shows.
    ///
    /// # Errors
    /// Never: what is read is what this process wrote.
    pub(super) fn record(&self) -> Result<ExecutionRecord, Unreadable> {
        Ok(ExecutionRecord {
            output: self.kept()?.and_then(|kept| kept.output),
            ..self.record.clone()
        })
    }

    /// What the caller sent, if it was kept.
    ///
    /// # Errors
    /// See [`Ended::record`].
    pub(super) fn request(&self) -> Result<Option<Request>, Unreadable> {
        let request = self.kept()?.and_then(|kept| kept.request);
        Ok(request.map(|request| Request {
            trace_id: self.record.trace_id.clone(),
            parent: self.record.parent,
            ..request
        }))
    }

    /// The runs, if they were kept.
    ///
    /// # Errors
    /// See [`Ended::record`].
    pub(super) fn attempts(&self) -> Result<Vec<AttemptRecord>, Unreadable> {
        Ok(self.kept()?.map_or_else(Vec::new, |kept| kept.attempts))
    }

    fn kept(&self) -> Result<Option<bundle::Kept>, Unreadable> {
        let part = self.bodies.as_ref().map(|bodies| &*bodies.part);
        part.map(|part| bundle::read_part(Bytes::copy_from_slice(part)))
            .transpose()
    }
}

/// How much of an execution is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    All,
    Summary,
}

/// How soon the writer should look at the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It is going to anyway.
    None,
    /// Within the time that fire-and-forget work may wait.
    Soon,
    /// At once: the buffer fills faster than that.
    Now,
}

#[derive(Debug, Default)]
struct Held {
    by_id: IdMap<ExecutionId, Arc<Ended>>,
    waiting: Vec<Arc<Ended>>,
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Buffer {
    held: Mutex<Held>,
    /// See [`Buffer::spend`].
    spent: Mutex<Vec<Arc<Ended>>>,
    bytes_max: u64,
    summarised: AtomicU64,
    dropped: AtomicU64,
}

impl Buffer {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            held: Mutex::default(),
            spent: Mutex::default(),
            bytes_max,
            summarised: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing below can panic half way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in as much of an ended execution as its mode and the room left allow.
    pub(super) fn push(&self, ended: EndedExecution) -> Urgency {
        let ended = ended.without_streams();
        let summary_bytes = summary_bytes(&ended);
        let body_bytes = body_bytes(&ended);
        let full_bytes = summary_bytes + body_bytes;
        let wants = ended.record;
        let bodies = match wants {
            RecordMode::Auto | RecordMode::Full => match Bodies::of(&ended, body_bytes) {
                Ok(bodies) => Some(bodies),
                Err(error) => {
                    tracing::warn!(execution.id = %ended.id, %error, "an ended execution could not be kept");
                    self.count_dropped();
                    return Urgency::None;
                }
            },
            RecordMode::Summary => None,
        };
        let ended = trim(ended, bodies);
        let mut held = self.held();
        let room = self.bytes_max.saturating_sub(held.bytes);
        let half_free = held.bytes < self.bytes_max / 2;
        let (kept, bytes) = match wants {
            RecordMode::Auto if half_free && full_bytes <= room => (Kept::All, full_bytes),
            RecordMode::Full if full_bytes <= room => (Kept::All, full_bytes),
            RecordMode::Auto | RecordMode::Full | RecordMode::Summary => {
                (Kept::Summary, summary_bytes)
            }
        };
        if bytes > room {
            drop(held);
            self.count_dropped();
            return Urgency::None;
        }
        if kept == Kept::Summary && wants != RecordMode::Summary {
            self.summarised.fetch_add(1, Ordering::Relaxed);
        }
        let ended = Arc::new(Ended {
            bytes,
            ..match kept {
                Kept::All => ended,
                Kept::Summary => ended.summary(),
            }
        });
        let was_idle = held.waiting.is_empty();
        held.bytes += bytes;
        held.by_id.insert(ended.record.id, Arc::clone(&ended));
        held.waiting.push(ended);
        if held.bytes > self.bytes_max / 4 {
            Urgency::Now
        } else if was_idle {
            Urgency::Soon
        } else {
            Urgency::None
        }
    }

    /// Counts a record that nobody will find.
    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands out all that waits, to be committed; reads go on seeing it until [`Buffer::committed`].
    pub(super) fn take(&self) -> Vec<Arc<Ended>> {
        std::mem::take(&mut self.held().waiting)
    }

    /// Forgets what is on disk now.
    pub(super) fn committed(&self, batch: &[Arc<Ended>]) {
        if batch.is_empty() {
            return;
        }
        let mut held = self.held();
        for ended in batch {
            held.bytes = held.bytes.saturating_sub(ended.bytes);
            let is_it = |known: &Arc<Ended>| Arc::ptr_eq(known, ended);
            if held.by_id.get(&ended.record.id).is_some_and(is_it) {
                held.by_id.remove(&ended.record.id);
            }
        }
    }

    /// Leaves what is on disk to those who hand over the next ones, to be freed by them. What the writer frees is
    /// what other threads made, and each piece of it takes a lock of theirs in the allocator.
    pub(super) fn spend(&self, batch: Vec<Arc<Ended>>) {
        let is_small = |ended: &Arc<Ended>| ended.bytes <= SPENT_BYTES_MAX;
        let (mut small, _large): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_small);
        let mut spent = self.spent();
        let room = SPENT_MAX.saturating_sub(spent.len()).min(small.len());
        spent.extend(small.drain(..room));
    }

    /// Frees two of those, so that they become fewer than come in.
    pub(super) fn free_some(&self) {
        let mut spent = self.spent();
        let some = [spent.pop(), spent.pop()];
        drop(spent);
        drop(some);
    }

    fn spent(&self) -> MutexGuard<'_, Vec<Arc<Ended>>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of this id, if it is not on disk yet.
    pub(super) fn get(&self, id: ExecutionId) -> Option<Arc<Ended>> {
        self.held().by_id.get(&id).cloned()
    }

    /// Whether all that was handed over is on disk.
    pub(super) fn is_empty(&self) -> bool {
        self.held().by_id.is_empty()
    }

    /// Bytes that it holds at most.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes held, records reduced to a summary for lack of room, records dropped.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (
            self.held().bytes,
            self.summarised.load(Ordering::Relaxed),
            self.dropped.load(Ordering::Relaxed),
        )
    }
}

fn len(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn summary_bytes(ended: &EndedExecution) -> u64 {
    let failure = ended.execution.failure();
    SUMMARY_BYTES + failure.map_or(0, |failure| len(failure.message.len()))
}

fn body_bytes(ended: &EndedExecution) -> u64 {
    let attempts: u64 = ended.attempts.iter().map(attempt_bytes).sum();
    if ended.streamed.is_some() {
        return attempts;
    }
    let request = &ended.request;
    let metadata: usize = request
        .metadata
        .iter()
        .map(|(k, v)| k.len() + v.len())
        .sum();
    let output = ended.output.as_ref().map_or(0, |output| output.body.len());
    len(request.input.body.len() + metadata + output).saturating_add(attempts)
}

/// What an attempt is counted as.
pub(super) fn attempt_bytes(attempt: &AttemptRecord) -> u64 {
    let logs: usize = attempt.logs.lines.iter().map(|line| line.text.len()).sum();
    let failure = attempt.failure.as_ref().map_or(0, |f| f.message.len());
    ATTEMPT_BYTES + len(logs + failure)
}

impl Bodies {
    /// `bytes` is about how many they take.
    fn of(ended: &EndedExecution, bytes: u64) -> Result<Self, Unreadable> {
        let has_request = ended.streamed.is_none();
        let call = Call {
            request: has_request.then_some(&*ended.request),
            output: ended.output.as_ref().filter(|_| has_request),
            attempts: &ended.attempts,
        };
        let part = call.part(usize::try_from(bytes).unwrap_or(0))?;
        Ok(Self {
            part,
            has_request,
            has_attempts: !ended.attempts.is_empty(),
        })
    }
}

impl Ended {
    /// The same without what a summary leaves out.
    fn summary(mut self) -> Self {
        self.bodies = None;
        self.record.input_kept = false;
        self
    }
}

fn trim(ended: EndedExecution, bodies: Option<Bodies>) -> Ended {
    let (input_bytes, output_bytes) = (ended.input_bytes(), ended.output_bytes());
    let last = ended.attempts.last();
    let record = ExecutionRecord {
        id: ended.id,
        function_id: ended.function_id,
        function: ended.function,
        version: ended.version,
        execution: ended.execution,
        input_bytes,
        output_bytes,
        input_kept: bodies.as_ref().is_some_and(|bodies| bodies.has_request),
        cold_start: last.is_some_and(|attempt| attempt.cold_start),
        init_ms: last.and_then(|attempt| attempt.init_ms),
        trace_id: ended.request.trace_id.clone(),
        parent: ended.request.parent,
        output: None,
    };
    Ended {
        record,
        bodies,
        bytes: 0,
    }
}
