//! A database that is written through the gathering file system is the one that plain writes make.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::*;
use crate::store::sqlite::Synchronous;
use crate::store::sqlite::connection::{open_writing, use_wal};

fn gathering(path: &Path) -> Connection {
    let connection = open_writing(path, Synchronous::Full).unwrap();
    use_wal(&connection).unwrap();
    connection
}

/// Reads the way other processes do.
fn plain(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn count_and_sum(connection: &Connection) -> (i64, i64) {
    let sql = "SELECT count(*), coalesce(sum(length(body)), 0) FROM rows";
    connection
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
}

fn integrity(connection: &Connection) -> String {
    connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn every_commit_is_seen_at_once_by_those_who_read_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let writer = gathering(&path);
    writer
        .execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        .unwrap();
    let reader = plain(&path);
    let (mut rows, mut bytes) = (0, 0);
    for commit in 1..60_i64 {
        let transaction = writer.unchecked_transaction().unwrap();
        // Bodies from nothing to more than is ever held back, so that some go through in many pieces.
        for size in [0, 100, 9_000 * (commit % 30), 3 * commit] {
            transaction
                .execute("INSERT INTO rows (body) VALUES (zeroblob(?1))", [size])
                .unwrap();
            (rows, bytes) = (rows + 1, bytes + size);
        }
        transaction.commit().unwrap();
        assert_eq!(count_and_sum(&reader), (rows, bytes), "commit {commit}");
        if commit % 7 == 0 {
            let mode = ["PASSIVE", "RESTART", "TRUNCATE"][usize::try_from(commit).unwrap() % 3];
            writer
                .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
                .unwrap();
            assert_eq!(
                count_and_sum(&plain(&path)),
                (rows, bytes),
                "{mode} at {commit}"
            );
        }
    }
    assert_eq!(integrity(&reader), "ok");
    drop((writer, reader));
    let reader = plain(&path);
    assert_eq!(count_and_sum(&reader), (rows, bytes));
    assert_eq!(integrity(&reader), "ok");
}

#[test]
fn what_is_rolled_back_or_spilled_leaves_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let writer = gathering(&path);
    // Few pages in memory: a large transaction has to write into the log, and read back, before its end.
    writer.pragma_update(None, "cache_size", 10).unwrap();
    writer
        .execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        .unwrap();
    let reader = plain(&path);
    let mut kept = (0, 0);
    for round in 0..12_i64 {
        let transaction = writer.unchecked_transaction().unwrap();
        for number in 0..300_i64 {
            let size = 700 + number;
            transaction
                .execute("INSERT INTO rows (body) VALUES (zeroblob(?1))", [size])
                .unwrap();
        }
        transaction
            .execute("UPDATE rows SET body = zeroblob(50) WHERE id % 3 = 0", [])
            .unwrap();
        let inside = count_and_sum(&transaction);
        if round % 2 == 0 {
            transaction.commit().unwrap();
            kept = inside;
        } else {
            transaction.rollback().unwrap();
        }
        assert_eq!(count_and_sum(&reader), kept, "round {round}");
        assert_eq!(count_and_sum(&writer), kept, "round {round}");
    }
    assert_eq!(integrity(&writer), "ok");
}

#[test]
fn two_connections_that_gather_copy_and_write_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let writer = gathering(&path);
    let copier = gathering(&path);
    writer
        .execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        .unwrap();
    std::thread::scope(|scope| {
        let copies = scope.spawn(move || {
            for _ in 0..40 {
                copier
                    .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                    .unwrap();
            }
        });
        for _ in 0..200 {
            writer
                .execute("INSERT INTO rows (body) VALUES (zeroblob(20000))", [])
                .unwrap();
        }
        copies.join().unwrap();
    });
    let reader = plain(&path);
    assert_eq!(count_and_sum(&reader), (200, 4_000_000));
    assert_eq!(integrity(&reader), "ok");
}

#[test]
fn a_write_that_fails_late_fails_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let writer = gathering(&path);
    writer
        .execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        .unwrap();
    writer.pragma_update(None, "max_page_count", 20).unwrap();
    let full = writer.execute(
        "INSERT INTO rows (body) VALUES (zeroblob(?1))",
        params![1_000_000],
    );
    assert!(full.is_err());
    writer
        .execute("INSERT INTO rows (body) VALUES (zeroblob(10))", [])
        .unwrap();
    assert_eq!(count_and_sum(&plain(&path)), (1, 10));
}

#[test]
fn what_is_held_is_one_piece_of_a_file() {
    let mut held = Held::default();
    assert!(held.takes(0, 10) && !held.takes(8, 10) && !held.overlaps(0, 10));
    held.at = 100;
    held.bytes.extend([0; 50]);
    assert!(held.takes(150, 10) && !held.takes(149, 10) && !held.takes(100, 10));
    assert!(!held.takes(150, HELD_BYTES_MAX - 49) && held.takes(150, HELD_BYTES_MAX - 50));
    for (at, count, expected) in [
        (0, 100, false),
        (0, 101, true),
        (149, 1, true),
        (150, 1, false),
        (120, 5, true),
        (0, 1_000, true),
    ] {
        assert_eq!(held.overlaps(at, count), expected, "{at} {count}");
    }
}
