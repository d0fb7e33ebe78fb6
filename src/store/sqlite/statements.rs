//! The writer's statements, prepared once and found again by where their text stands in the program.
//!
//! A cache that is asked by the text itself has to read it all, twice, at every use; the texts are long and
//! the writer uses a dozen for each execution.
//!
//! **Invariant:** a text is `'static`, so its address means the same statement for as long as there are any.

use std::cell::RefCell;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, Params, Row, Statement};

use crate::model::IdMap;

/// Statements of one connection.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    prepared: RefCell<IdMap<u64, Statement<'c>>>,
}

impl<'c> Statements<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            prepared: RefCell::default(),
        }
    }

    /// Runs a statement that returns no rows; how many it changed.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn execute(
        &self,
        sql: &'static str,
        params: impl Params,
    ) -> rusqlite::Result<usize> {
        self.with(sql, |statement| statement.execute(params))
    }

    /// Whether a query has a row.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn exists(&self, sql: &'static str, params: impl Params) -> rusqlite::Result<bool> {
        self.with(sql, |statement| statement.exists(params))
    }

    /// The only row of a query.
    ///
    /// # Errors
    /// SQLite's, or that there is no row.
    pub(super) fn query_row<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.with(sql, |statement| statement.query_row(params, read))
    }

    fn with<T>(
        &self,
        sql: &'static str,
        run: impl FnOnce(&mut Statement<'c>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut prepared = self.prepared.borrow_mut();
        // Where one text is the beginning of another, both may stand at one address.
        let key = sql.as_ptr().addr() as u64 ^ (sql.len() as u64) << 48;
        match prepared.entry(key) {
            Entry::Occupied(mut known) => run(known.get_mut()),
            Entry::Vacant(new) => run(new.insert(self.connection.prepare(sql)?)),
        }
    }
}
