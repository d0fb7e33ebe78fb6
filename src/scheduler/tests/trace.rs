//! What happened, line by line, where somebody wants to know.
//!
//! **Invariant:** a line is made only where it is kept.

use std::sync::{Arc, Mutex};

/// The lines of one history; off unless it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Option<Arc<Mutex<Vec<String>>>>);

impl Trace {
    /// One that keeps its lines.
    pub(super) fn on() -> Self {
        Self(Some(Arc::default()))
    }

    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            lines.lock().unwrap().push(line());
        }
    }

    /// All lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        let lines = self.0.as_ref();
        lines.map_or_else(Vec::new, |lines| lines.lock().unwrap().clone())
    }
}
