//! The ticker that makes running guests look up: an operating system thread that advances the engines' epochs.
//!
//! It is a thread of its own because a busy async runtime would tick late exactly when it matters, and it
//! sleeps while no guest runs, so that an idle server burns nothing.
//!
//! **Invariant:** while a [`Ticking`] exists, every engine's epoch advances at every tick; the thread ends with
//! [`Epochs`].

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

/// Time between two epochs. A guest is stopped within two of them.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// The same under tools that make everything so much slower that a small guest would meet several epochs of
/// [`TICK`], and would now and then be taken for one that computes.
pub(super) const SLOW_TICK: Duration = Duration::from_millis(100);

/// Ticks without a guest before the thread goes to sleep: waking it costs a system call, which calls that
/// follow each other closely should not pay.
const IDLE_TICKS: u32 = 100;

/// The ticker of a runtime's engines.
pub(super) struct Epochs {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    engines: Mutex<Vec<Engine>>,
    tick: Duration,
    guests: AtomicUsize,
    asleep: AtomicBool,
    ended: AtomicBool,
}

impl Epochs {
    /// Starts the ticker of `engine`, which lets `tick` pass between two epochs.
    ///
    /// # Errors
    /// The operating system refuses the thread.
    pub(super) fn start(engine: &Engine, tick: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            engines: Mutex::default(),
            tick,
            guests: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let thread = thread::Builder::new().name("epochs".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.tick()
        })?;
        let epochs = Self {
            shared,
            thread: Some(thread),
        };
        epochs.add(engine);
        Ok(epochs)
    }

    /// Advances the epoch of a further engine, from now on.
    pub(super) fn add(&self, engine: &Engine) {
        self.shared.engines().push(engine.clone());
    }

    /// Keeps the epoch advancing until the guard is dropped.
    pub(super) fn enter(&self) -> Ticking<'_> {
        self.shared.guests.fetch_add(1, Ordering::SeqCst);
        // The thread says that it is asleep before it counts the guests a last time, and we count
        // ourselves before we look: one of the two sees the other.
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        Ticking(&self.shared)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Epochs {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It cannot panic; if it did, there is nobody left who needs it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn engines(&self) -> MutexGuard<'_, Vec<Engine>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let mut idle_ticks = 0;
        while !self.ended.load(Ordering::SeqCst) {
            if self.guests.load(Ordering::SeqCst) > 0 {
                idle_ticks = 0;
            } else if idle_ticks < IDLE_TICKS {
                idle_ticks += 1;
            } else {
                self.sleep();
                idle_ticks = 0;
                continue;
            }
            thread::sleep(self.tick);
            for engine in self.engines().iter() {
                engine.increment_epoch();
            }
        }
    }

    /// Sleeps until there is a guest or the end. A wake-up without cause only costs [`IDLE_TICKS`].
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        let nobody = self.guests.load(Ordering::SeqCst) == 0;
        if nobody && !self.ended.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

/// Says that a guest runs.
pub(super) struct Ticking<'a>(&'a Shared);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Config, Instance, Module, Store, Trap};

    #[test]
    fn a_sleeping_ticker_wakes_for_each_guest_and_ends_when_it_is_dropped() {
        let engine = Engine::new(Config::new().epoch_interruption(true)).unwrap();
        let spin = wat::parse_str("(module (func $f (loop $on (br $on))) (start $f))").unwrap();
        let spin = Module::new(&engine, spin).unwrap();
        let epochs = Epochs::start(&engine, TICK).unwrap();
        for _ in 0..2 {
            while !epochs.shared.asleep.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let ticking = epochs.enter();
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(1);
            let error = Instance::new(&mut store, &spin, &[]).unwrap_err();
            assert_eq!(error.downcast_ref(), Some(&Trap::Interrupt));
            drop(ticking);
        }
        let shared = Arc::downgrade(&epochs.shared);
        drop(epochs);
        assert!(
            shared.upgrade().is_none(),
            "the thread still holds its state"
        );
    }
}
