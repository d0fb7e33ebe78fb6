//! Copies of a database that is being written.

use std::cell::Cell;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::store::Store as _;
use crate::store::sqlite::{Options, SqliteStore, Synchronous};

/// A folder with a database of this build's schema whose plane is down or, while the store lives, up.
fn plane(dir: &Path) -> SqliteStore {
    let options = Options {
        synchronous: Synchronous::Off,
        ..Options::new(dir)
    };
    SqliteStore::open(options).unwrap()
}

/// Takes a plane down in order: nothing of it writes any more.
fn down(plane: &SqliteStore) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(plane.close()).unwrap();
}

/// Writes a mebibyte into the database of a folder, as a plane would.
fn write_mib(dir: &Path, seq: i64) {
    let connection = Connection::open(dir.join(DATABASE)).unwrap();
    let body = vec![7_u8; 1 << 20];
    connection
        .execute(
            "INSERT INTO inputs (seq, body) VALUES (?1, ?2)",
            rusqlite::params![seq, body],
        )
        .unwrap();
}

fn rows(dir: &Path) -> i64 {
    let connection = Connection::open(dir.join(DATABASE)).unwrap();
    connection
        .query_row("SELECT count(*) FROM inputs", [], |row| row.get(0))
        .unwrap()
}

fn boot(dir: &Path) -> u32 {
    let connection = open_reading(&dir.join(DATABASE)).unwrap();
    contents(&connection).unwrap().boot
}

fn folders() -> (TempDir, TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

#[test]
fn a_copy_is_one_moment_though_the_writer_goes_on() {
    let (live, copied) = folders();
    let _plane = plane(live.path());
    for seq in 0..12 {
        write_mib(live.path(), seq);
    }
    let steps = Cell::new(0_i64);
    copy(live.path(), copied.path(), &mut |_| {
        steps.set(steps.get() + 1);
        // A copy that saw this would begin again, or never end; a writer that had to wait would fail.
        write_mib(live.path(), 100 + steps.get());
    })
    .unwrap();
    assert!(steps.get() >= 3, "copied in {} steps", steps.get());
    assert_eq!(rows(copied.path()), 12);
    assert_eq!(rows(live.path()), 12 + steps.get());
    let files: Vec<_> = fs::read_dir(copied.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "a copy is one file: {files:?}");
}

#[test]
fn a_copy_never_writes_over_a_file() {
    let (live, copied) = folders();
    down(&plane(live.path()));
    fs::write(copied.path().join(DATABASE), "precious").unwrap();
    let refused = copy(live.path(), copied.path(), &mut |_| {}).unwrap_err();
    assert!(matches!(refused, CopyError::Io { .. }), "{refused}");
    let kept = fs::read_to_string(copied.path().join(DATABASE)).unwrap();
    assert_eq!(kept, "precious");
}

#[test]
fn a_restore_moves_the_boot_number_ahead_and_gives_free_pages_back() {
    let (live, restored) = folders();
    down(&plane(live.path()));
    for seq in 0..8 {
        write_mib(live.path(), seq);
    }
    Connection::open(live.path().join(DATABASE))
        .unwrap()
        .execute("DELETE FROM inputs", [])
        .unwrap();
    let before = boot(live.path());
    let dir = restored.path().join("new");
    Target::take(&dir)
        .unwrap()
        .install(live.path(), &mut |_| {})
        .unwrap();
    assert_eq!(boot(&dir), before + BOOT_LEAP);
    let bytes = fs::metadata(dir.join(DATABASE)).unwrap().len();
    assert!(bytes < 1 << 20, "{bytes} bytes for nothing");
    // And a plane starts on it.
    down(&plane(&dir));
}

#[test]
fn a_folder_that_is_not_empty_or_in_use_is_not_restored_into() {
    let (used, other) = folders();
    let plane = plane(used.path());
    assert!(is_in_use(used.path()));
    let refused = Target::take(used.path()).unwrap_err();
    assert!(matches!(refused, CopyError::NotEmpty { .. }), "{refused}");
    drop(plane);

    let first = Target::take(other.path()).unwrap();
    let refused = Target::take(other.path()).unwrap_err();
    assert!(matches!(refused, CopyError::InUse { .. }), "{refused}");
    drop(first);
    assert!(!is_in_use(other.path()));
}

#[test]
fn a_damaged_source_is_told_from_a_good_one() {
    let (live, copied) = folders();
    down(&plane(live.path()));
    for seq in 0..2 {
        write_mib(live.path(), seq);
    }
    let path = live.path().join(DATABASE);
    let connection = Connection::open(&path).unwrap();
    // The plane's threads may take a moment to let go of the log.
    let is_busy = || {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: i64 = connection
            .query_row(checkpoint, [], |row| row.get(0))
            .unwrap();
        busy != 0
    };
    while is_busy() {
        std::thread::yield_now();
    }
    // The second half of the schema's tables: whatever page it is, it is none any more.
    let mut bytes = fs::read(&path).unwrap();
    for byte in &mut bytes[8192..40 * 8192] {
        *byte = 0xee;
    }
    fs::write(&path, bytes).unwrap();
    assert!(copy(live.path(), copied.path(), &mut |_| {}).is_err());
}
