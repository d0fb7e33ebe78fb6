//! The conformance suite on SQLite, and what is true of this implementation only.

mod batches;
mod buffering;
mod bundles;
mod faults;
mod folder;
mod gate;
mod lateness;
mod stored;
mod stress;

use std::sync::Arc;

use crate::store::Store;
use crate::store::conformance::{Opener, World, suite};

use super::{Options, SqliteStore};

fn new_place() -> Opener {
    let dir = tempfile::tempdir().expect("a folder");
    Box::new(move || {
        let store = SqliteStore::open(Options::new(dir.path())).expect("open");
        Arc::new(store) as Arc<dyn Store>
    })
}

suite!(new_place);

/// A store that both the world and the test hold: the test for its figures.
fn world_of(options: Options) -> (World, Arc<SqliteStore>) {
    let store = Arc::new(SqliteStore::open(options).expect("open"));
    let shared = Arc::clone(&store);
    let world = World::new(Box::new(move || Arc::clone(&shared) as Arc<dyn Store>));
    (world, store)
}
