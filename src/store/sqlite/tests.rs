//! The conformance suite on SQLite.

use std::sync::Arc;

use crate::store::Store;
use crate::store::conformance::{Opener, suite};

use super::{Options, SqliteStore};

fn new_place() -> Opener {
    let dir = tempfile::tempdir().expect("a folder");
    Box::new(move || {
        let store = SqliteStore::open(Options::new(dir.path())).expect("open");
        Arc::new(store) as Arc<dyn Store>
    })
}

suite!(new_place);
