//! What is said of an execution after its dispatch.
//!
//! **Invariant:** an outcome that was not taken is no error of the dispatch: how the execution stands is said all the same.

use crate::execution::Status;
use crate::model::ExecutionId;
use crate::scheduler::decide::Decided;
use crate::scheduler::{CallError, Finalized, Scheduler};

impl Scheduler {
    pub(in crate::scheduler) async fn finalized(
        &self,
        id: ExecutionId,
        decided: Result<Decided, CallError>,
    ) -> Finalized {
        let status = match status_of(id, decided) {
            Some(status) => status,
            None => self.status_otherwise(id).await,
        };
        Finalized {
            execution_id: id,
            status,
        }
    }

    /// How an execution stands whose outcome was not taken: it ended another way meanwhile.
    pub(super) async fn status_otherwise(&self, id: ExecutionId) -> Status {
        match self.execution(id).await {
            Ok(Some(record)) => record.execution.status(),
            // Nobody knows it any more: it lived in memory, and a stop has let it go.
            Ok(None) => Status::Cancelled,
            Err(_) => Status::Running,
        }
    }
}

/// How an execution stands after a decision, if it was taken.
pub(super) fn status_of(id: ExecutionId, decided: Result<Decided, CallError>) -> Option<Status> {
    match decided {
        Ok(Decided::Done(record)) => return Some(record.execution.status()),
        Ok(Decided::Rejected(reason)) => {
            tracing::debug!(execution.id = %id, %reason, "an outcome came too late");
        }
        Ok(Decided::NotLive) => {}
        Err(error) => {
            tracing::error!(execution.id = %id, %error, "an outcome could not be recorded");
        }
    }
    None
}
