//! Time as a parameter: the plane's clock is the system's, or one that a test moves by hand.
//!
//! **Invariant:** only this file asks the operating system what time it is. Limits of attempts and of
//! waiting callers are real time always (`tokio::time`); due times, ages and timestamps are this clock's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::Timestamp;

/// A cheap handle on the plane's clock.
#[derive(Debug, Clone)]
pub struct Clock(Inner);

#[derive(Debug, Clone)]
enum Inner {
    System,
    Manual(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Self {
        Self(Inner::System)
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Inner::Manual(Arc::new(watch::Sender::new(start))))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Inner::System => system_now(),
            Inner::Manual(time) => *time.borrow(),
        }
    }

    /// Moves a manual clock forward and wakes everybody whose time has come; a system clock ignores it.
    pub fn advance(&self, by: Duration) {
        if let Inner::Manual(time) = &self.0 {
            let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            time.send_modify(|now| *now = now.plus_ms(by_ms));
        }
    }

    /// Returns when the clock shows `due` or later.
    pub async fn sleep_until(&self, due: Timestamp) {
        match &self.0 {
            Inner::System => {
                // The wall clock may be set back while we sleep: look again, at most a minute later.
                loop {
                    let left = due.ms_since(system_now());
                    if left == 0 {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(left.min(60_000))).await;
                }
            }
            Inner::Manual(time) => {
                let mut changes = time.subscribe();
                // The sender lives in `self`, so waiting cannot fail.
                let _ = changes.wait_for(|now| *now >= due).await;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
fn system_now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_it_is_moved() {
        let clock = Clock::manual(Timestamp(100));
        let sleeper = clock.sleep_until(Timestamp(150));
        tokio::pin!(sleeper);
        assert!(futures_util::poll!(&mut sleeper).is_pending());
        clock.advance(Duration::from_millis(49));
        assert!(futures_util::poll!(&mut sleeper).is_pending());
        clock.advance(Duration::from_millis(1));
        sleeper.await;
        assert_eq!(clock.now(), Timestamp(150));
    }
}
