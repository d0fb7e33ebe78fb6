//! Redrives: what ended as error or timeout goes back to its queue, one by its id or many by state and time.
//!
//! Many are gone through oldest first, in pages that are read and written like everything else, so that calls
//! get their turn in between.
//!
//! **Invariant:** each redrive is one event for [`crate::execution::step`], written under a guard; one call
//! looks at no more executions than its limit and says where to go on.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::decide::Decided;
use super::state::{ClaimLog, Home, Live, Removed, Settling};
use super::{CallError, Scheduler};
use crate::execution::{Event, Rejected, Status, step};
use crate::model::{ExecutionId, FunctionName, Timestamp, Version, VersionNumber};
use crate::registry::{Function, Unusable};
use crate::store::{self, ExecutionRecord, Filter, Guard, Order, Transition};

/// Executions read at once, and redriven at once.
const PAGE: u32 = 256;
/// Ids that an answer gives as examples.
const SAMPLE: usize = 10;

/// How an execution failed that can be redriven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// As `error`.
    Error,
    /// As `timeout`.
    Timeout,
}

impl Failed {
    /// The status.
    pub fn status(self) -> Status {
        match self {
            Self::Error => Status::Error,
            Self::Timeout => Status::Timeout,
        }
    }
}

/// Whether a bulk redrive is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Yes.
    Redrive,
    /// It only says what would be redriven, and changes nothing.
    DryRun,
}

/// Which executions to redrive in bulk, and how.
#[derive(Debug, Clone)]
pub struct Redrive {
    /// Of which function.
    pub function: FunctionName,
    /// How they failed.
    pub failed: Failed,
    /// Created at this time or later.
    pub since: Option<Timestamp>,
    /// Created before this time.
    pub until: Option<Timestamp>,
    /// Where the call before ended.
    pub after: Option<ExecutionId>,
    /// The version to run them with; the active one unless said.
    pub version: Option<VersionNumber>,
    /// Executions to look at, at most.
    pub limit: u32,
    /// Whether it is meant.
    pub mode: Mode,
}

impl Redrive {
    /// The list that it goes through.
    pub fn filter(&self) -> Filter {
        Filter {
            function: Some(self.function.clone()),
            status: Some(self.failed.status()),
            since: self.since,
            until: self.until,
            before: None,
            after: self.after,
            order: Order::OldestFirst,
        }
    }
}

/// What a bulk redrive did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Executions sent back to their queue.
    pub redriven: u64,
    /// Executions that cannot run again because their input was not kept.
    pub input_not_kept: u64,
    /// Executions that moved on by themselves, or belong to an earlier function of the name.
    pub skipped: u64,
    /// The first of the redriven ones.
    pub sample: Vec<ExecutionId>,
    /// The last one looked at, if there are more behind it.
    pub next: Option<ExecutionId>,
}

/// What became of one of many.
enum Fate {
    Redriven(ExecutionId),
    InputNotKept,
    Skipped,
}

impl Scheduler {
    /// Sends an execution that ended as `error` or `timeout` back to its queue, with the active version
    /// unless another is named. `None`: no such one.
    ///
    /// # Errors
    /// The store's; [`CallError`] says why it cannot be.
    pub async fn redrive(
        &self,
        id: ExecutionId,
        version: Option<VersionNumber>,
    ) -> Result<Option<Arc<ExecutionRecord>>, CallError> {
        let scheduler = self.clone();
        self.detached(async move {
            if scheduler.lock().live.contains_key(&id) {
                return Err(CallError::NotRedrivable(id));
            }
            let Some(record) = scheduler.inner.store.execution(id).await? else {
                return Ok(None);
            };
            let found = scheduler.inner.registry.get_by_id(record.function_id);
            let function = found.ok_or_else(|| scheduler.no_function_of(&record))?;
            if !record.input_kept {
                return Err(CallError::InputNotKept(id));
            }
            let version = scheduler.version_for(&function, version)?;
            let redriven = scheduler.redrive_record(&record, &function, version);
            redriven.await.map(Some)
        })
        .await
    }

    /// Why an execution whose function is gone cannot run again.
    fn no_function_of(&self, record: &ExecutionRecord) -> CallError {
        let name = record.function.clone();
        match self.inner.registry.get(&name) {
            Some(_) => CallError::FunctionReplaced(record.id, name),
            None => CallError::UnknownFunction(name),
        }
    }

    /// Redrives many, oldest first; goes on without its caller until its limit.
    ///
    /// # Errors
    /// [`CallError::UnknownFunction`], [`CallError::UnknownVersion`], [`CallError::CodeGone`],
    /// [`CallError::Stopping`], the store's.
    /// What was redriven until then stays redriven.
    pub async fn redrive_many(&self, redrive: Redrive) -> Result<Redriven, CallError> {
        let scheduler = self.clone();
        self.detached(async move { scheduler.redrive_pages(&redrive).await })
            .await
    }

    async fn redrive_pages(&self, redrive: &Redrive) -> Result<Redriven, CallError> {
        let found = self.inner.registry.get(&redrive.function);
        let function = found.ok_or_else(|| CallError::UnknownFunction(redrive.function.clone()))?;
        let version = self.version_for(&function, redrive.version)?;
        let mut done = Redriven::default();
        let mut filter = redrive.filter();
        let mut left = redrive.limit;
        while left > 0 {
            let asked = left.min(PAGE);
            let page = self.inner.store.executions(&filter, asked).await?;
            let Some(last) = page.last() else {
                return Ok(done);
            };
            filter.after = Some(last.id);
            left = left.saturating_sub(asked);
            let is_last = page.len() < usize::try_from(asked).unwrap_or(usize::MAX);
            match redrive.mode {
                Mode::DryRun => {
                    for record in &page {
                        done.count(
                            self.fate_of(record, &function)
                                .unwrap_or(Fate::Redriven(record.id)),
                        );
                    }
                }
                Mode::Redrive => {
                    self.redrive_page(page, &function, &version, &mut done)
                        .await?;
                }
            }
            if is_last {
                return Ok(done);
            }
        }
        let more = self.inner.store.executions(&filter, 1).await?;
        done.next = filter.after.filter(|_| !more.is_empty());
        Ok(done)
    }

    /// Redrives the executions of a page together; they enter their queue in its order.
    async fn redrive_page(
        &self,
        page: Vec<ExecutionRecord>,
        function: &Arc<Function>,
        version: &Arc<Version>,
        done: &mut Redriven,
    ) -> Result<(), CallError> {
        let mut redriving = stream::iter(page)
            .map(|record| async move {
                if let Some(fate) = self.fate_of(&record, function) {
                    return Ok(fate);
                }
                let redriven = self.redrive_record(&record, function, Arc::clone(version));
                match redriven.await {
                    Ok(_) => Ok(Fate::Redriven(record.id)),
                    // Somebody else was faster.
                    Err(CallError::NotRedrivable(_)) => Ok(Fate::Skipped),
                    Err(error) => Err(error),
                }
            })
            .buffered(PAGE as usize);
        let mut result = Ok(());
        // The rest is seen through, whatever fails.
        while let Some(fate) = redriving.next().await {
            match fate {
                Ok(fate) => done.count(fate),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Why one of many is not redriven.
    fn fate_of(&self, record: &ExecutionRecord, function: &Function) -> Option<Fate> {
        if record.function_id != function.id || self.lock().live.contains_key(&record.id) {
            return Some(Fate::Skipped);
        }
        (!record.input_kept).then_some(Fate::InputNotKept)
    }

    /// The version that redriven executions run with.
    fn version_for(
        &self,
        function: &Function,
        number: Option<VersionNumber>,
    ) -> Result<Arc<Version>, CallError> {
        let Some(number) = number else {
            return Ok(Arc::clone(&function.active));
        };
        let usable = self.inner.registry.usable_version(function, number);
        usable.map_err(|error| match error {
            Unusable::Unknown(text) => CallError::UnknownVersion(text),
            Unusable::CodeGone(text) => CallError::CodeGone(text),
        })
    }

    async fn redrive_record(
        &self,
        record: &ExecutionRecord,
        function: &Arc<Function>,
        version: Arc<Version>,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        let id = record.id;
        let number = version.number;
        let mut live = live_from(record, version);
        live.settling = Settling::Accepting(Vec::new());
        let now = self.inner.clock.now();
        let policy = self.policy(&live, Removed::No);
        let stepped = step(&live.execution, &Event::Redrive, &policy, now)
            .map_err(|_: Rejected| CallError::NotRedrivable(id))?;
        let transition = Transition {
            id,
            guard: Guard::Redrivable,
            next: stepped.next.clone(),
            version: Some(number),
            output: None,
            attempt: None,
        };
        {
            let mut state = self.lock();
            self.ensure_function(&mut state, function)?;
            if state.live.contains_key(&id) {
                return Err(CallError::NotRedrivable(id));
            }
            state.insert(live);
        }
        let applied = self.write(transition).await;
        let applied = applied.inspect_err(|_: &store::Error| self.forget(&mut self.lock(), id))?;
        match self.finish_settling(id, stepped, None, Ok(applied))? {
            Decided::Done(record) => Ok(record),
            Decided::Rejected(_) | Decided::NotLive => Err(CallError::NotRedrivable(id)),
        }
    }
}

impl Redriven {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Redriven(id) => {
                self.redriven += 1;
                if self.sample.len() < SAMPLE {
                    self.sample.push(id);
                }
            }
            Fate::InputNotKept => self.input_not_kept += 1,
            Fate::Skipped => self.skipped += 1,
        }
    }
}

/// A live entry for an execution that is known from the store only.
fn live_from(record: &ExecutionRecord, version: Arc<Version>) -> Live {
    let identity = (record.function_id, record.function.clone());
    let execution = record.execution.clone();
    Live {
        claim_log: ClaimLog::Ahead,
        input_bytes: record.input_bytes,
        trace_id: record.trace_id.clone(),
        parent: record.parent,
        cold_start: record.cold_start,
        init_ms: record.init_ms,
        ..Live::new(record.id, identity, version, execution, Home::Durable)
    }
}
