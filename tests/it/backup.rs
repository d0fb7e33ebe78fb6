//! `pelton backup`, `restore` and `doctor` with the real binary, on folders in use and not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::binary::{Ran, Server, pelton};
use crate::support::guests;

struct Folders(TempDir);

impl Folders {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn echo() -> &'static Path {
    &guests::built("echo").component
}

fn backup(data: &Path, to: &Path) -> Ran {
    let mut command = pelton();
    command.arg("backup").arg("--data-dir").arg(data);
    Ran::of(command.arg("--to").arg(to).output().unwrap())
}

/// The same under a umask that lets everybody read.
fn backup_under_022(data: &Path, to: &Path) -> Ran {
    let plain = pelton();
    let mut command = Command::new("sh");
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(["-c", "umask 022 && exec \"$0\" \"$@\""]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.arg("backup").arg("--data-dir").arg(data);
    Ran::of(command.arg("--to").arg(to).output().unwrap())
}

/// Everything below a folder, itself included, with its mode.
fn modes(dir: &Path) -> Vec<(PathBuf, u32)> {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut all = vec![(dir.to_owned(), mode(dir))];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(modes(&path));
        } else {
            all.push((path.clone(), mode(&path)));
        }
    }
    all
}

#[test]
fn nobody_else_can_read_a_backup_or_what_is_restored_from_it() {
    let folders = Folders::new();
    let (data, kept, again) = (folders.at("data"), folders.at("kept"), folders.at("again"));
    let server = Server::start(&data, &[]);
    server.deploy("echo", echo(), &[]);
    backup_under_022(&data, &kept).code(0);
    drop(server);
    restore(&kept, &again).code(0);
    let found = modes(&kept);
    assert!(
        found.len() >= 6,
        "database, note, wasm, label, two folders: {found:?}"
    );
    for (path, mode) in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
    }
    let restored = fs::metadata(again.join("pelton.db")).unwrap();
    assert_eq!(restored.permissions().mode() & 0o777, 0o600);
}

fn restore(from: &Path, data: &Path) -> Ran {
    let mut command = pelton();
    command.arg("restore").arg("--from").arg(from);
    Ran::of(command.arg("--data-dir").arg(data).output().unwrap())
}

fn doctor(data: &Path, server: &str) -> (i32, Value) {
    let mut command = pelton();
    command.args(["doctor", "--json", "--server", server]);
    let ran = Ran::of(command.arg("--data-dir").arg(data).output().unwrap());
    (ran.code, ran.json())
}

#[track_caller]
fn finding<'a>(report: &'a Value, subject: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["subject"] == subject);
    found.unwrap_or_else(|| panic!("nothing about {subject}: {report:#}"))
}

#[test]
fn what_was_accepted_before_a_backup_of_a_live_plane_ends_after_its_restore() {
    let folders = Folders::new();
    let (live, kept, restored) = (folders.at("live"), folders.at("kept"), folders.at("new"));
    let mut server = Server::start(&live, &["--manual"]);
    server.deploy("echo", echo(), &[]);
    let before: Vec<_> = (0..5)
        .map(|n| server.enqueue("echo", &n.to_string()))
        .collect();
    // Somebody goes on calling while the copy is made.
    let done = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                server.enqueue("echo", "99");
            }
        });
        let made = backup(&live, &kept);
        done.store(true, Ordering::Relaxed);
        made
    });
    let made = made.code(0);
    assert!(
        made.stdout.contains("1 functions, 1 files of wasm"),
        "{}",
        made.stdout
    );
    assert!(made.stdout.contains("checked"), "{}", made.stdout);
    assert!(
        made.stderr.contains("pages"),
        "no progress: {}",
        made.stderr
    );
    // They end here, and again there.
    server.run(&["drain", "echo", "--recursive"]).code(0);
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));

    let told = restore(&kept, &restored).code(0);
    assert!(told.stdout.contains("  echo: "), "{}", told.stdout);
    assert!(
        told.stdout.contains("the next start runs them"),
        "{}",
        told.stdout
    );
    let server = Server::start(&restored, &[]);
    for (n, id) in before.iter().enumerate() {
        let ended = server.wait_for(id, |execution| execution["finishedAt"].is_string());
        assert_eq!(ended["status"], "success", "{ended}");
        assert_eq!(ended["output"], n, "{ended}");
    }
    let (code, report) = doctor(&restored, server.url());
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(finding(&report, "server")["text"], "ready for calls");
}

#[test]
fn a_doctor_looks_at_who_may_read_the_key_for_secrets() {
    let folders = Folders::new();
    let (data, key) = (folders.at("data"), folders.at("key"));
    let server = Server::start(&data, &[]);
    fs::write(&key, "a").unwrap();
    let said = |mode| {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = pelton();
        command.args(["doctor", "--json", "--server", server.url()]);
        let command = command.env("PELTON_SECRETS_KEY_FILE", &key);
        let ran = Ran::of(command.arg("--data-dir").arg(&data).output().unwrap());
        finding(&ran.code(0).json(), "secrets key").clone()
    };
    assert_eq!(said(0o600)["level"], "ok");
    let open = said(0o644);
    assert_eq!(open["level"], "warn", "{open}");
    assert!(
        open["text"].as_str().unwrap().contains("chmod go="),
        "{open}"
    );
    let (_, report) = doctor(&data, server.url());
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["subject"] != "secrets key"));
}

#[test]
fn a_backup_and_a_restore_write_over_nothing() {
    let folders = Folders::new();
    let (data, kept) = (folders.at("data"), folders.at("kept"));
    let mut server = Server::start(&data, &[]);
    server.deploy("echo", echo(), &[]);

    let in_use = restore(&data, &folders.at("other")).code(1);
    assert!(
        in_use.stderr.contains("in use by a Pelton"),
        "{}",
        in_use.stderr
    );
    assert!(!folders.at("other").exists());
    server.terminate();
    server.ended();

    backup(&data, &kept).code(0);
    let again = backup(&data, &kept).code(1);
    assert!(again.stderr.contains("exists"), "{}", again.stderr);
    let full = restore(&kept, &data).code(1);
    assert!(full.stderr.contains("is not empty"), "{}", full.stderr);
    let nothing = backup(&folders.at("nothing"), &folders.at("more")).code(1);
    assert!(
        nothing.stderr.contains("holds no database"),
        "{}",
        nothing.stderr
    );
    let left: Vec<_> = fs::read_dir(folders.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().contains("unfinished"))
        .collect();
    assert!(left.is_empty(), "a failed backup left {left:?}");
}

#[test]
fn a_backup_without_its_code_is_noticed_before_it_is_needed() {
    let folders = Folders::new();
    let (data, kept) = (folders.at("data"), folders.at("kept"));
    let mut server = Server::start(&data, &[]);
    server.deploy("echo", echo(), &[]);
    server.terminate();
    server.ended();
    backup(&data, &kept).code(0);
    for file in fs::read_dir(kept.join("code")).unwrap() {
        let path = file.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            fs::write(path, b"something else").unwrap();
        }
    }
    let refused = restore(&kept, &folders.at("new")).code(1);
    assert!(refused.stderr.contains("is damaged"), "{}", refused.stderr);
    assert!(!folders.at("new").exists());

    fs::remove_dir_all(data.join("code")).unwrap();
    let refused = backup(&data, &folders.at("more")).code(1);
    assert!(refused.stderr.contains("is missing"), "{}", refused.stderr);
    let (code, report) = doctor(&data, "http://127.0.0.1:9");
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(finding(&report, "code")["level"], "fail");
    assert_eq!(report["failed"], 1, "{report:#}");
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let folders = Folders::new();
    let data = folders.at("data");
    let nowhere = "http://127.0.0.1:9";
    let (code, report) = doctor(&data, nowhere);
    assert_eq!(code, 0, "{report:#}");
    assert!(!data.exists(), "the doctor made the folder");

    let mut server = Server::start(&data, &[]);
    let (_, report) = doctor(&data, server.url());
    let lock = finding(&report, "lock")["text"].as_str().unwrap();
    assert!(lock.contains("a Pelton runs"), "{lock}");
    for subject in [
        "space",
        "database",
        "schema",
        "log",
        "cache key",
        "address space",
        "kernel",
        "overcommit",
        "open files",
        "clock",
    ] {
        finding(&report, subject);
    }
    server.terminate();
    server.ended();

    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let (_, report) = doctor(&data, nowhere);
    let folder = finding(&report, "folder");
    assert_eq!(folder["level"], "warn");
    assert!(
        folder["text"].as_str().unwrap().contains("chmod 700"),
        "{folder}"
    );

    let key = data.join("code/cache.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(data.join("pelton.db"), vec![7_u8; 8192]).unwrap();
    let (code, report) = doctor(&data, nowhere);
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(finding(&report, "database")["level"], "fail");
    assert_eq!(finding(&report, "cache key")["level"], "fail");

    let mut command = pelton();
    command.args(["doctor", "--server", nowhere, "--data-dir"]);
    let shown = Ran::of(command.arg(&data).output().unwrap()).code(1);
    let starts = |line: &str| {
        ["ok  ", "warn", "fail"]
            .iter()
            .any(|level| line.starts_with(level))
    };
    assert!(shown.stdout.lines().all(starts), "{}", shown.stdout);
}
