//! A hand on the executor, for simulations: tasks go on in an order that a seed decides, and the process may die
//! at any of their steps.
//!
//! **Invariant:** the same seed and the same tasks give the same order; once the process is dead, no task takes
//! another step.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio_util::sync::CancellationToken;

use crate::model::Dice;

/// One process's disorder.
#[derive(Debug, Clone)]
pub(crate) struct Chaos(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dice: Dice,
    steps: AtomicU64,
    dies_at: u64,
    dead: CancellationToken,
}

/// What a task may do now.
enum Turn {
    Step,
    Later,
    Never,
}

impl Chaos {
    /// The disorder of this seed, in a process that dies when its tasks have taken so many steps.
    pub(crate) fn new(seed: u64, dies_at: u64) -> Self {
        Self(Arc::new(Inner {
            dice: Dice::seeded(seed),
            steps: AtomicU64::new(0),
            dies_at,
            dead: CancellationToken::new(),
        }))
    }

    /// A task that takes part.
    pub(crate) fn wrap<F: Future>(&self, task: F) -> Disordered<F> {
        Disordered {
            chaos: self.clone(),
            task: Box::pin(task),
        }
    }

    /// How many steps tasks have taken.
    pub(crate) fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Returns when the process is dead.
    pub(crate) async fn died(&self) {
        self.0.dead.cancelled().await;
    }

    /// The process dies before anybody takes another step.
    pub(crate) fn die(&self) {
        self.0.dead.cancel();
    }

    fn turn(&self) -> Turn {
        let inner = &self.0;
        if inner.dead.is_cancelled() {
            return Turn::Never;
        }
        if inner.steps.load(Ordering::Relaxed) >= inner.dies_at {
            self.die();
            return Turn::Never;
        }
        if inner.dice.number().is_multiple_of(4) {
            return Turn::Later;
        }
        inner.steps.fetch_add(1, Ordering::Relaxed);
        Turn::Step
    }
}

/// A task that now and then lets others go first.
pub(crate) struct Disordered<F> {
    chaos: Chaos,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Disordered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.chaos.turn() {
            Turn::Step => self.task.as_mut().poll(cx),
            Turn::Later => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::Never => Poll::Pending,
        }
    }
}
