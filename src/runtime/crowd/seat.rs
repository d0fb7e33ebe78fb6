//! The caller's side of a call that shares its instance.
//!
//! **Invariant:** a call's time and its stop are its own: they end it within one turn of its task, whatever the guest does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Call, Crowd, How, Told, deadline};
use crate::execution::{Outcome, Ran};
use crate::runtime::ending::{Ending, Failed};
use crate::runtime::ready::never_started;
use crate::runtime::watch::Cut;

/// One call in a crowd; whoever drops it gives it up.
pub(in crate::runtime) struct Seat {
    crowd: Arc<Crowd>,
    id: u64,
    call: Arc<Call>,
    told: oneshot::Receiver<Told>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.crowd.leave(self.id).is_ok() {
            self.call.conversation.caller_gone();
        }
    }
}

impl Seat {
    pub(super) fn new(
        crowd: Arc<Crowd>,
        id: u64,
        call: Arc<Call>,
        told: oneshot::Receiver<Told>,
    ) -> Self {
        Self {
            crowd,
            id,
            call,
            told,
        }
    }

    /// What the call came to. Its time begins now.
    pub(in crate::runtime) async fn outcome(mut self, stop: &CancellationToken) -> Ran {
        let until = deadline(self.call.attempt.time_limit);
        let cut = tokio::select! {
            biased;
            told = &mut self.told => return self.judge(told),
            () = stop.cancelled() => Cut::Stopped,
            () = tokio::time::sleep_until(until.into()) => Cut::TimedOut,
        };
        let Ok(left) = self.crowd.leave(self.id) else {
            // It ended in the same moment, and by itself.
            let told = (&mut self.told).await;
            return self.judge(told);
        };
        let ran = match left {
            Some(cpu) => self.cut(cut, cpu),
            None => Ran::bare(match cut {
                Cut::Stopped => Outcome::Interrupted,
                Cut::TimedOut | Cut::CpuSpent => {
                    Outcome::TimedOut(never_started(&self.call.attempt))
                }
            }),
        };
        self.call.conversation.caller_gone();
        ran
    }

    fn cut(&self, cut: Cut, cpu: Duration) -> Ran {
        self.call.conversation.guest_cut();
        let ending = Ending {
            result: Err(Failed::Cut(cut)),
            instantiated: true,
            denial: None,
            cpu,
            capture: self.call.capture.clone(),
        };
        self.call.conversation.judge(&self.call.attempt, ending)
    }

    fn judge(&self, told: Result<Told, oneshot::error::RecvError>) -> Ran {
        let Ok(Told { how, init_duration }) = told else {
            return Ran::bare(Outcome::Fault(
                "whoever ran its instance ended unexpectedly".to_owned(),
            ));
        };
        let ran = match how {
            How::Ended(ending) => self.call.conversation.judge(&self.call.attempt, ending),
            How::Never(outcome) => Ran::bare(outcome),
        };
        Ran {
            cold_start: init_duration.is_some(),
            init_duration,
            ..ran
        }
    }
}
