//! Uploads are compiled by the real binary in a child process, and what a hostile file does ends there.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use pelton::model::Shape;
use pelton::runtime::{ChildCompiler, Compiler, Options, Refused, Runtime, Slots, WORKER_COMMAND};

const IDLE: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

fn options(folder: &tempfile::TempDir) -> Options {
    Options {
        code_dir: folder.path().join("code"),
        guests_max: 2,
        slots: Slots::Pool,
        loaded_bytes_max: 64 << 20,
        warm_instances_max: 0,
        warm_memory_bytes_max: 0,
        reuse_calls: pelton::runtime::ReuseCalls::default(),
        compile_queue_max: 2,
        compile_timeout_s: 60,
        compile_memory_bytes_max: 2 << 30,
        outgoing: pelton::net::Options::default(),
    }
}

fn child(options: &Options) -> Arc<ChildCompiler> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_pelton"));
    Arc::new(ChildCompiler::of_program(program, options).expect("a thread can be started"))
}

fn wasm(wat: &str) -> Bytes {
    wat::parse_str(wat)
        .expect("the guest is written right")
        .into()
}

/// One function that adds numbers for very long: small to upload, dear to compile.
fn bomb(additions: usize) -> Bytes {
    let body = "(local.set 0 (i32.add (i32.mul (local.get 0) (local.get 1)) (local.get 2)))\
                (local.set 1 (i32.xor (local.get 2) (local.get 0)))\
                (local.set 2 (i32.sub (local.get 1) (i32.const 77)))"
        .repeat(additions);
    wasm(&format!(
        r#"(module (memory (export "memory") 1) (func (export "_start") (local i32 i32 i32) {body}))"#
    ))
}

#[tokio::test]
async fn a_child_compiles_what_this_process_can_load() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let compiler = child(&options);
    let runtime = Runtime::open(&options, compiler.clone()).unwrap();
    let prepared = runtime.prepare(wasm(IDLE)).await.unwrap();
    assert_eq!(prepared.shape, Shape::CoreCommand);
    assert_eq!(compiler.pending(), 0);
    let files = std::fs::read_dir(&options.code_dir).unwrap().count();
    assert_eq!(files, 5, "wasm, label, code, its MAC, and the key");
}

#[tokio::test]
async fn a_childs_refusals_arrive_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let runtime = Runtime::open(&options, child(&options)).unwrap();
    let missing = r#"(module (import "bench" "start" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
    let refused = runtime.prepare(wasm(missing)).await.unwrap_err();
    assert!(
        matches!(&refused, Refused::MissingImports { imports, .. } if imports == &["bench.start"]),
        "{refused:?}"
    );
    let refused = runtime.prepare(Bytes::from_static(b"nonsense")).await;
    assert!(matches!(refused, Err(Refused::NotWasm(_))), "{refused:?}");
    let refused = runtime.prepare(wasm("(module)")).await;
    assert!(
        matches!(refused, Err(Refused::Unsupported(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_bomb_ends_with_its_child_and_nothing_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        compile_timeout_s: 1,
        ..options(&folder)
    };
    let runtime = Runtime::open(&options, child(&options)).unwrap();
    let refused = runtime.prepare(bomb(300_000)).await.unwrap_err();
    let Refused::TooExpensive(text) = &refused else {
        panic!("{refused:?}");
    };
    assert!(
        text.contains("1 s") || text.contains("processor time"),
        "{text}"
    );
    let files = std::fs::read_dir(&options.code_dir).unwrap().count();
    assert_eq!(files, 1, "the key alone");
    // The next upload is served.
    runtime.prepare(wasm(IDLE)).await.unwrap();
}

#[tokio::test]
async fn a_file_that_takes_too_much_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        compile_memory_bytes_max: 256 << 20,
        ..options(&folder)
    };
    let runtime = Runtime::open(&options, child(&options)).unwrap();
    let refused = runtime.prepare(bomb(300_000)).await.unwrap_err();
    assert!(
        matches!(&refused, Refused::TooExpensive(text) if text.contains("memory")),
        "{refused:?}"
    );
    runtime.prepare(wasm(IDLE)).await.unwrap();
}

#[tokio::test]
async fn uploads_beyond_the_queue_are_refused_as_busy() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        compile_queue_max: 1,
        ..options(&folder)
    };
    let compiler = child(&options);
    let file = |pages: u32| {
        wasm(&format!(
            r#"(module (memory (export "memory") {pages}) (func (export "_start")))"#
        ))
    };
    let uploads = (1..=10).map(|pages| compiler.compile(file(pages)));
    let answers = futures_util::future::join_all(uploads).await;
    let busy = answers
        .iter()
        .filter(|answer| matches!(answer, Err(Refused::Busy(text)) if text.contains("try again")))
        .count();
    let done = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(busy >= 8, "{busy} busy, {done} done");
    assert_eq!(busy + done, 10);
    assert!(done >= 1);
}

#[tokio::test]
async fn a_compiler_that_is_not_pelton_is_our_failure() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    for program in ["/bin/true", "/bin/false", "/nonexistent"] {
        let compiler = ChildCompiler::of_program(program.into(), &options).unwrap();
        let refused = compiler.compile(wasm(IDLE)).await;
        assert!(
            matches!(refused, Err(Refused::Failed(_))),
            "{program}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn an_uploader_who_leaves_takes_the_child_along() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let compiler = child(&options);
    let mut left = Box::pin(compiler.compile(bomb(300_000)));
    assert!(futures_util::poll!(left.as_mut()).is_pending());
    assert_eq!(compiler.pending(), 1);
    drop(left);
    assert_eq!(compiler.pending(), 0);
    // One at a time: this is served because the other is not compiled to its end.
    compiler.compile(wasm(IDLE)).await.unwrap();
}

#[test]
fn a_child_without_its_parent_does_nothing() {
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_pelton"))
            .arg(WORKER_COMMAND)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let orphan = run(&["1", "2147483648", "60"]);
    assert!(!orphan.status.success());
    assert!(orphan.stdout.is_empty());
    assert!(String::from_utf8_lossy(&orphan.stderr).contains("parent is gone"));
    assert_eq!(run(&[]).status.code(), Some(2));
}

/// A file below /proc as text; nothing once its process is gone.
fn proc_file(pid: &str, name: &str) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/{name}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The process that was started with these arguments.
fn process_with(args: &[&str]) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .find(|pid| {
            let typed = proc_file(pid, "cmdline").unwrap_or_default();
            let typed: Vec<_> = typed.split('\0').collect();
            args.iter().all(|arg| typed.contains(arg))
        })
}

/// How far a process steps back for others: the 19th field, which is the 17th after its name in brackets.
fn niceness(pid: &str) -> Option<i32> {
    let stat = proc_file(pid, "stat")?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(16)?.parse().ok()
}

#[tokio::test]
async fn a_child_knows_no_environment_and_lowers_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let memory = (2_u64 << 30) + 4321;
    let options = Options {
        compile_memory_bytes_max: memory,
        ..options(&folder)
    };
    let compiler = child(&options);
    let look = async {
        let memory = memory.to_string();
        let parent = std::process::id().to_string();
        let lowered = (niceness("self").unwrap() + 10).min(19);
        loop {
            let pid = process_with(&[WORKER_COMMAND, &memory, &parent]);
            // The last thing that it lowers.
            if let Some(pid) = pid
                && niceness(&pid) == Some(lowered)
                && let (Some(environment), Some(limits)) =
                    (proc_file(&pid, "environ"), proc_file(&pid, "limits"))
            {
                return (environment, limits);
            }
            tokio::task::yield_now().await;
        }
    };
    let (environment, limits) = tokio::select! {
        seen = look => seen,
        compiled = compiler.compile(bomb(300_000)) => panic!("compiled too soon: {compiled:?}"),
    };
    let variables: Vec<_> = environment.split_terminator('\0').collect();
    assert_eq!(variables.len(), 1, "{variables:?}");
    assert!(variables[0].starts_with("RAYON_NUM_THREADS="));
    let limit = |name: &str| {
        let mut lines = limits.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        let values: Vec<_> = line.split_whitespace().take(2).collect();
        values.join(" ")
    };
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(limit("Max file size"), "0 0");
    assert_eq!(limit("Max open files"), "32 32");
    assert_eq!(limit("Max address space"), format!("{memory} {memory}"));
    assert_ne!(limit("Max cpu time"), "unlimited unlimited");
}
