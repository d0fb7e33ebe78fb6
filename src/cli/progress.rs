//! Progress of long work: a bar on a terminal, plain lines elsewhere; on standard error either way.
//!
//! **Invariant:** showing progress never fails and never slows the work that it shows.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(120);

/// One piece of work that takes a while. A cheap handle.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work whose size nobody knows.
    pub(crate) fn step(text: &str) -> Self {
        let bar = io::stderr().is_terminal().then(ProgressBar::new_spinner);
        let progress = Self { bar };
        if let Some(bar) = &progress.bar {
            bar.enable_steady_tick(TURN);
        }
        progress.say(text);
        progress
    }

    /// The same on a terminal, and silence elsewhere.
    pub(crate) fn on_terminal(text: &str) -> Self {
        if io::stderr().is_terminal() {
            return Self::step(text);
        }
        Self {
            bar: Some(ProgressBar::hidden()),
        }
    }

    /// Work of this many bytes.
    pub(crate) fn bytes(text: &str, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            // A template that cannot be read leaves the default one, which shows the same in another order.
            if let Ok(style) =
                ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        let progress = Self { bar };
        progress.say(text);
        progress
    }

    /// So many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// The work goes on with something else, whose size nobody knows.
    pub(crate) fn next_step(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(TURN);
        }
        self.say(text);
    }

    /// The work is over; whoever did it says what it came to.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => output::note(text),
        }
    }
}
