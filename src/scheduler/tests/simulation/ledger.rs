//! What the world outside knows, and what scripts must come to: the model that the plane is compared with.
//!
//! **Invariant:** survives every crash, and knows nothing that was not said to somebody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::execution::Status;
use crate::model::ExecutionId;

/// Requeues that every function here allows.
pub(super) const REQUEUES_MAX: u32 = 4;

/// One call as the caller remembers it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) script: String,
    pub(super) key: Option<String>,
    pub(super) deletions: u32,
}

/// What the world outside knows.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What was promised, with its script.
    pub(super) promised: BTreeMap<ExecutionId, String>,
    /// Executions whose end others than their script may have decided.
    pub(super) touched: BTreeSet<ExecutionId>,
    /// Executions that somebody asked to be redriven.
    pub(super) redriven: BTreeSet<ExecutionId>,
    /// Ends that somebody was told of.
    pub(super) told: BTreeMap<ExecutionId, Status>,
    /// Which execution a key led to. Keys of deleted functions are forgotten.
    keys: BTreeMap<(String, String), ExecutionId>,
    /// Deletions per name: a key asked for before one may belong to the function before.
    pub(super) deletions: BTreeMap<String, u32>,
    /// Calls that were refused because a rate was used up.
    pub(super) limited: usize,
    /// Executions that ended because they were too old.
    pub(super) aged: usize,
    /// Ids that somebody was told of, in this order.
    pub(super) known: Vec<ExecutionId>,
}

/// A handle on the ledger.
#[derive(Clone, Default)]
pub(super) struct Outside(Arc<Mutex<Ledger>>);

impl Outside {
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(super) fn deletions(&self, name: &str) -> u32 {
        self.with(|ledger| ledger.deletions.get(name).copied().unwrap_or(0))
    }

    /// A function is about to go, or just went.
    pub(super) fn deleted(&self, name: &str) {
        self.with(|ledger| {
            *ledger.deletions.entry(name.to_owned()).or_default() += 1;
            ledger.keys.retain(|(function, _), _| function != name);
        });
    }

    /// Notes an answer that promises something.
    pub(super) fn promise(&self, id: ExecutionId, asked: &Asked) {
        let same_function = self.deletions(&asked.name) == asked.deletions;
        self.with(|ledger| {
            ledger.known.push(id);
            ledger
                .promised
                .entry(id)
                .or_insert_with(|| asked.script.clone());
            if let Some(key) = asked.key.clone().filter(|_| same_function) {
                let holder = *ledger.keys.entry((asked.name.clone(), key)).or_insert(id);
                assert_eq!(holder, id, "two executions for one key");
            }
        });
    }

    pub(super) fn touch(&self, id: ExecutionId) {
        self.with(|ledger| ledger.touched.insert(id));
    }

    pub(super) fn redrive(&self, id: ExecutionId) {
        self.touch(id);
        self.with(|ledger| ledger.redriven.insert(id));
    }

    /// Notes an end that somebody was told of: it must be the only one.
    pub(super) fn tell(&self, id: ExecutionId, status: Status) {
        if !status.is_terminal() {
            return;
        }
        self.with(|ledger| {
            let told = *ledger.told.entry(id).or_insert(status);
            let again = ledger.redriven.contains(&id);
            assert!(again || told == status, "{id} was {told:?}, now {status:?}");
        });
    }
}

/// What a script comes to if nobody interferes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) status: Status,
    pub(super) attempts: u32,
    pub(super) requeues: u32,
    /// What each run came to, faults and interruptions apart.
    pub(super) runs: Vec<&'static str>,
}

/// The whole life of an execution in a loop.
pub(super) fn model(script: &str, attempts_max: u32) -> Expected {
    let words: Vec<_> = script.split(' ').collect();
    let (mut attempts, mut requeues, mut runs) = (0, 0, Vec::new());
    loop {
        let word = words[runs.len().min(words.len() - 1)];
        let (run, status) = match word {
            "ok" => ("success", Status::Success),
            "error" => ("error", Status::Error),
            "limit" => ("limit", Status::Error),
            "retry" => ("retry", Status::Error),
            "timeout" | "hang" => ("timeout", Status::Timeout),
            _ => ("requeue", Status::Error),
        };
        runs.push(run);
        match run {
            "requeue" => requeues += 1,
            _ => attempts += 1,
        }
        let ends = match run {
            "requeue" => requeues > REQUEUES_MAX,
            "retry" | "timeout" => attempts >= attempts_max,
            _ => true,
        };
        if ends {
            return Expected {
                status,
                attempts,
                requeues,
                runs,
            };
        }
    }
}
