//! Work moved by hand, and time with it.
//!
//! **Invariant:** a drain answers when everything that it dispatched is recorded; the clock moves only to
//! times at which something is due, and to the end of what was asked for.

use std::time::Duration;

use anyhow::bail;

use super::{Harness, parse};
use crate::model::{FunctionName, Timestamp};
use crate::scheduler::{DrainOptions, Drained, Finalized};

/// Dispatches of one [`Harness::drain_for`], at most: beyond it something goes round in circles.
const DISPATCHES_MAX: usize = 10_000;

impl Harness {
    /// Dispatches the next execution of a function, deferred ones too, and waits until it is recorded.
    /// `None`: there was nothing to run.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> anyhow::Result<()> {
    /// # let plane = pelton::testing::Harness::start().await?;
    /// # plane.deploy_echo("echo").await?;
    /// let id = plane.enqueue("echo", "1").await?;
    /// let drained = plane.drain_once("echo").await?.expect("there is work");
    /// assert_eq!(drained.execution_id, id);
    /// assert!(plane.drain_once("echo").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// There is no such function.
    pub async fn drain_once(&self, name: &str) -> anyhow::Result<Option<Finalized>> {
        let drained = self.drain(name, DrainOptions::default()).await?;
        Ok(drained.items.first().copied())
    }

    /// Dispatches by hand; [`DrainOptions`] has the limit, whether due times count, and recursion.
    ///
    /// # Errors
    /// There is no such function.
    pub async fn drain(&self, name: &str, options: DrainOptions) -> anyhow::Result<Drained> {
        self.drain_named(&parse(name)?, options).await
    }

    /// Dispatches until nothing is left, retries at once and whatever their due times, new work too. What
    /// asks to be run later while this drain goes on stays in its queue.
    ///
    /// # Errors
    /// There is no such function.
    pub async fn drain_all(&self, name: &str) -> anyhow::Result<Drained> {
        let options = DrainOptions {
            recursive: true,
            ..DrainOptions::default()
        };
        self.drain(name, options).await
    }

    /// Lets `horizon` pass for a function: everything that comes due within it is dispatched at its time,
    /// the manual clock going from one due time to the next and at last to the end. Retries and requeues
    /// come back after their delays, so this is what a server would do in that time, but in an instant.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> anyhow::Result<()> {
    /// # let plane = pelton::testing::Harness::start().await?;
    /// # plane.deploy_echo("echo").await?;
    /// # plane.enqueue("echo", "1").await?;
    /// let start = plane.clock.now();
    /// let drained = plane.drain_for("echo", Duration::from_secs(3600)).await?;
    /// assert_eq!(drained.items.len(), 1);
    /// assert_eq!(plane.clock.now().ms_since(start), 3_600_000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// There is no such function, no slot of it was free, the plane's clock is none that can be moved, or the
    /// work goes round in circles (more than 10,000 dispatches).
    pub async fn drain_for(&self, name: &str, horizon: Duration) -> anyhow::Result<Drained> {
        let function = parse(name)?;
        let horizon_ms = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
        let end = self.clock.now().plus_ms(horizon_ms);
        let options = DrainOptions {
            respect_schedule: true,
            recursive: true,
            ..DrainOptions::default()
        };
        let mut all = Drained::default();
        loop {
            let drained = self.drain_named(&function, options).await?;
            all.items.extend(drained.items);
            if drained.busy {
                bail!("{name} has no free slot: something else runs all that it may run at once");
            }
            if all.items.len() >= DISPATCHES_MAX {
                bail!("{name} was dispatched {DISPATCHES_MAX} times, and there may be more to do");
            }
            match self.scheduler.next_due(&function) {
                Some(due) if due <= end => self.advance_to(due)?,
                Some(_) | None => break,
            }
        }
        self.advance_to(end)?;
        Ok(all)
    }

    async fn drain_named(
        &self,
        function: &FunctionName,
        options: DrainOptions,
    ) -> anyhow::Result<Drained> {
        let drained = self.scheduler.drain(function, options).await;
        drained.map_err(|error| self.explain(error))
    }

    fn advance_to(&self, time: Timestamp) -> anyhow::Result<()> {
        self.advance(Duration::from_millis(time.ms_since(self.clock.now())));
        if self.clock.now() < time {
            bail!("the plane's clock is the system's, and cannot be moved");
        }
        Ok(())
    }
}
