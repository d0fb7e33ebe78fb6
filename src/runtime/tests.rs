//! Uploads from the outside of the runtime: what is refused and in which words, what is kept and believed.

mod hostile;
mod recompile;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::code::Temperature;
use super::engine::{serving, serving_with};
use super::*;

/// A preview 1 program that does nothing.
const IDLE: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// Compiles in process and counts how often; may be told to answer with other machine code.
struct Counting {
    compiler: InProcessCompiler,
    count: AtomicUsize,
}

impl Counting {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            compiler: InProcessCompiler::new().unwrap(),
            count: AtomicUsize::new(0),
        })
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Compiler for Counting {
    async fn compile(&self, wasm: Bytes) -> Result<Compiled, Refused> {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.compiler.compile(wasm).await
    }

    fn pending(&self) -> usize {
        self.compiler.pending()
    }
}

fn options(folder: &tempfile::TempDir) -> Options {
    Options {
        code_dir: folder.path().join("code"),
        guests_max: 4,
        slots: Slots::Pool,
        loaded_bytes_max: 64 << 20,
        warm_instances_max: 4,
        warm_memory_bytes_max: 64 << 20,
        reuse_calls: super::ReuseCalls::default(),
        compile_queue_max: 4,
        compile_timeout_s: 60,
        compile_memory_bytes_max: 2 << 30,
        outgoing: crate::net::Options::default(),
    }
}

struct World {
    folder: tempfile::TempDir,
    compiler: Arc<Counting>,
    runtime: Runtime,
}

impl World {
    fn new() -> Self {
        Self::of(Slots::Pool)
    }

    fn of(slots: Slots) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let compiler = Counting::new();
        let options = Options {
            slots,
            ..options(&folder)
        };
        let runtime = Runtime::open(&options, compiler.clone()).unwrap();
        Self {
            folder,
            compiler,
            runtime,
        }
    }

    /// The same folder after a restart: nothing in memory.
    fn restart(self) -> Self {
        let runtime = Runtime::open(&options(&self.folder), self.compiler.clone()).unwrap();
        Self { runtime, ..self }
    }

    async fn prepare(&self, wat: &str) -> Result<Prepared, Refused> {
        self.runtime
            .prepare(wat::parse_str(wat).unwrap().into())
            .await
    }

    async fn temperature(&self, digest: Digest) -> Temperature {
        self.runtime.inner.codes.get(digest).await.unwrap().1
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder.path().join("code"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "cache.key")
            .collect();
        names.sort();
        names
    }

    /// The one file with this extension.
    fn file(&self, extension: &str) -> PathBuf {
        let name = self
            .files()
            .into_iter()
            .find(|name| name.ends_with(extension))
            .unwrap();
        self.folder.path().join("code").join(name)
    }

    async fn check_refused(&self, wasm: impl Into<Bytes>, expected: &[&str]) {
        let refused = self.runtime.prepare(wasm.into()).await.unwrap_err();
        let text = refused.to_string();
        for words in expected {
            assert!(text.contains(words), "{words:?} is not in: {refused:?}");
        }
        assert_eq!(self.files(), Vec::<String>::new(), "kept after: {text}");
    }

    async fn check_wat_refused(&self, wat: &str, expected: &[&str]) {
        self.check_refused(wat::parse_str(wat).unwrap(), expected)
            .await;
    }
}

#[tokio::test]
async fn what_is_not_wasm_is_refused_with_the_reason() {
    let world = World::new();
    world.check_refused(&b""[..], &["the file is empty"]).await;
    world
        .check_refused(&b"\0as"[..], &["ends within the first bytes"])
        .await;
    world
        .check_refused(&b"\0asm\x01\0"[..], &["ends within the first eight bytes"])
        .await;
    world
        .check_refused(
            &b"\0asm\x63\0\0\0"[..],
            &["neither a module (1) nor a component"],
        )
        .await;
    world
        .check_refused(
            &b"PK\x03\x04 a zip file"[..],
            &["does not begin with", r"\0asm"],
        )
        .await;
    world
        .check_refused(IDLE.as_bytes(), &["text form", "wasm-tools parse"])
        .await;
    world
        .check_refused(&b"\n  (component )"[..], &["text form"])
        .await;
    world
        .check_refused(&b"\x7fELF\x02\x01\x01\xc8"[..], &["machine code"])
        .await;
}

#[tokio::test]
async fn truncated_and_invalid_wasm_is_refused_with_the_parsers_reason() {
    let world = World::new();
    let whole = wat::parse_str(IDLE).unwrap();
    for end in 9..whole.len() {
        let refused = world
            .runtime
            .prepare(Bytes::copy_from_slice(&whole[..end]))
            .await
            .unwrap_err();
        // A cut between two sections leaves a shorter file that may be whole.
        assert!(
            matches!(refused, Refused::NotWasm(_) | Refused::Unsupported(_)),
            "{end}: {refused:?}"
        );
    }
    let cut = Bytes::copy_from_slice(&whole[..whole.len() - 1]);
    world
        .check_refused(cut, &["not valid wasm", "at byte"])
        .await;
    // The type of the body is wrong, which only validation finds.
    let invalid = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "_start") (drop (f32.add (i32.const 1) (f32.const 1)))))"#,
    )
    .unwrap();
    let refused = world.runtime.prepare(invalid.into()).await.unwrap_err();
    assert!(
        matches!(&refused, Refused::NotWasm(text) if text.contains("type mismatch")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_file_of_no_shape_is_refused_with_what_was_found_and_expected() {
    let world = World::new();
    world
        .check_wat_refused(
            r#"(module (memory (export "memory") 1) (func (export "handle")))"#,
            &[
                "core module",
                "`memory`, `handle`",
                "Expected one of",
                "`_start`",
            ],
        )
        .await;
    world
        .check_wat_refused(
            r#"(module (func (export "_initialize")))"#,
            &["`_initialize` makes it a library"],
        )
        .await;
    world
        .check_wat_refused(
            r#"(module (func (export "_start")))"#,
            &["no memory named `memory`", "`_start`"],
        )
        .await;
    world
        .check_wat_refused(
            "(component)",
            &["component exports nothing", "Found exports: none"],
        )
        .await;
    let many: String = (0..50)
        .map(|i| format!(r#"(func (export "f{i}"))"#))
        .collect();
    world
        .check_wat_refused(&format!("(module {many})"), &["`f19` and 30 more"])
        .await;
}

#[test]
fn shapes_are_found_in_order() {
    let shape = |exports: &[&str]| {
        let exports: String = exports
            .iter()
            .map(|name| format!(r#"(instance) (export "{name}" (instance 0))"#))
            .collect();
        let wasm = wat::parse_str(format!("(component {exports})")).unwrap();
        shape::Outline::read(&wasm).unwrap().shape().unwrap()
    };
    let by_precedence = [
        ("wasi:http/handler@0.3.2", Shape::Http03),
        ("wasi:http/incoming-handler@0.2.12", Shape::Http02),
        ("pelton:function/handler@0.1.0", Shape::Handler),
        ("wasi:cli/run@0.3.0", Shape::Command03),
        ("wasi:cli/run@0.2.0", Shape::Command02),
    ];
    for (i, (name, expected)) in by_precedence.iter().enumerate() {
        assert_eq!(shape(&[name]), *expected);
        for (lesser, _) in &by_precedence[i + 1..] {
            assert_eq!(shape(&[lesser, name]), *expected, "{lesser} beside {name}");
        }
    }
}

#[tokio::test]
async fn an_export_of_the_right_name_and_another_type_is_refused() {
    let world = World::new();
    for name in [
        "wasi:http/handler@0.3.0",
        "wasi:http/handler@0.3.0-rc-2025-09-16",
        "wasi:http/incoming-handler@0.2.0",
        "wasi:cli/run@0.3.0",
    ] {
        world
            .check_wat_refused(
                &format!(r#"(component (instance) (export "{name}" (instance 0)))"#),
                &["another type", name.split('@').next().unwrap()],
            )
            .await;
    }
}

#[tokio::test]
async fn a_middleware_is_refused() {
    let world = World::new();
    world
        .check_wat_refused(
            r#"(component (import "wasi:http/handler@0.3.0" (instance)))"#,
            &["middleware", "`wasi:http/handler@0.3.0`", "Compose"],
        )
        .await;
}

#[tokio::test]
async fn every_import_that_nobody_provides_is_named() {
    let world = World::new();
    let wat = r#"(module
        (import "env" "memory" (memory 1 2 shared))
        (import "bench" "start" (func))
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_wriet" (func))
        (import "wasi_snapshot_preview2" "fd_read" (func))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let refused = world.prepare(wat).await.unwrap_err();
    let Refused::MissingImports { message, imports } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        imports,
        &[
            "env.memory (a shared memory)",
            "bench.start",
            "wasi_snapshot_preview1.fd_wriet, the nearest that is provided: wasi_snapshot_preview1.fd_write",
            "wasi_snapshot_preview2.fd_read, the nearest that is provided: wasi_snapshot_preview1.fd_read",
        ]
    );
    for import in imports {
        assert!(message.contains(import), "{message}");
    }

    let wat = r#"(component
        (import "wasi:cli/environment@0.4.0" (instance (export "get-arguments" (func (result (list string))))))
        (import "wasi:cli/environment@0.2.4" (instance (export "get-arguments" (func (result (list string))))))
        (import "wasi:io/error@0.2.1" (instance (export "error" (type (sub resource)))))
        (import "wasi:io/mistake@0.2.1" (instance (export "error" (type (sub resource)))))
        (import "spin:config/store" (instance (export "get" (func))))
        (import "types:only/types" (instance (type (record (field "a" u8))) (export "t" (type (eq 0)))))
        (import "log" (func))
        (import "wasi:random/random@0.2.0" (instance
            (export "get-random-u64" (func (result u64))) (export "get-random-byts" (func)) (export "roll" (func))))
        (instance) (export "wasi:cli/run@0.2.0" (instance 7)))"#;
    let refused = world.prepare(wat).await.unwrap_err();
    let Refused::MissingImports { message, imports } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        imports,
        &[
            "wasi:cli/environment@0.4.0, the nearest that is provided: wasi:cli/environment@0.3.0",
            "wasi:io/mistake@0.2.1",
            "spin:config/store",
            "log (a function outside any interface)",
            "wasi:random/random@0.2.0#get-random-byts, the nearest that is provided: \
             wasi:random/random@0.2.0#get-random-bytes",
            "wasi:random/random@0.2.0#roll",
        ]
    );
    for import in imports {
        assert!(message.contains(import), "{message}");
    }
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn every_import_of_another_type_is_named_beside_what_is_missing() {
    let world = World::new();
    let wat = r#"(module
        (type (func)) (type (func (param i32 i32 i32 i32) (result i32))) (type (func (param f64)))
        (import "wasi_snapshot_preview1" "fd_write" (func (type 2)))
        (import "wasi_snapshot_preview1" "fd_read" (func (type 1)))
        (import "wasi_snapshot_preview1" "fd_wriet" (func (type 0)))
        (import "env" "memory" (memory 1))
        (import "wasi_unstable" "sched_yield" (func (type 0)))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let core = [
        "wasi_snapshot_preview1.fd_write (provided with another type)",
        "wasi_snapshot_preview1.fd_wriet, the nearest that is provided: wasi_snapshot_preview1.fd_write",
        "env.memory (a memory)",
        "wasi_unstable.sched_yield (provided with another type)",
    ];
    let resources = r#"
        (import "wasi:io/poll@0.2.3" (instance $poll
            (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))
            (export "[method]pollable.block" (func (param "self" (borrow $p)) (result u8)))
            (export "[method]pollable.wait" (func (param "self" (borrow $p))))))
        (alias export $poll "pollable" (type $pollable))
        (import "some:where/things@1.0.0" (instance $things (export "thing" (type (sub resource)))))
        (alias export $things "thing" (type $thing))
        (import "wasi:clocks/monotonic-clock@0.2.5" (instance $clock
            (alias outer 1 $pollable (type $o)) (export "pollable" (type $q (eq $o)))
            (export "now" (func (result u64)))
            (export "resolution" (func (result u32)))
            (export "subscribe-instant" (func (param "when" u64) (result (own $q))))))
        (import "wasi:cli/environment@0.2.0" (instance $cli
            (export "get-arguments" (func (result (list string))))
            (export "get-environment" (func (result u8)))
            (export "get-env" (func))))
        (import "wasi:random/random@0.2.0" (instance
            (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
            (export "get-random-u64" (func (result string)))))
        (alias export $cli "get-arguments" (func $f))
        (import "log" (func))
        (instance $run) (export "wasi:cli/run@0.2.0" (instance $run))"#;
    let component = [
        "wasi:io/poll@0.2.3#[method]pollable.block (provided with another type)",
        "wasi:io/poll@0.2.3#[method]pollable.wait",
        "some:where/things@1.0.0",
        "wasi:clocks/monotonic-clock@0.2.5#resolution (provided with another type)",
        "wasi:cli/environment@0.2.0#get-env",
        "wasi:cli/environment@0.2.0#get-environment (provided with another type)",
        "wasi:random/random@0.2.0#get-random-u64 (provided with another type)",
        "log (a function outside any interface)",
    ];
    for (wat, expected) in [
        (wat.to_owned(), &core[..]),
        (format!("(component {resources})"), &component[..]),
    ] {
        let refused = world.prepare(&wat).await.unwrap_err();
        let Refused::MissingImports { message, imports } = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(imports, expected);
        for import in imports {
            assert!(message.contains(import), "{message}");
        }
    }
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn imports_without_end_are_counted() {
    let world = World::new();
    let missing: String = (0..150)
        .map(|i| format!(r#"(import "wasi_snapshot_preview1" "fd_write{i}" (func))"#))
        .collect();
    let wat =
        format!(r#"(module {missing} (memory (export "memory") 1) (func (export "_start")))"#);
    let refused = world.prepare(&wat).await.unwrap_err();
    let Refused::MissingImports { message, imports } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(imports.len(), 101);
    for import in &imports[..100] {
        assert!(
            import.ends_with("nearest that is provided: wasi_snapshot_preview1.fd_write"),
            "{import}"
        );
    }
    assert_eq!(imports[100], "and 50 more");
    assert!(message.contains("; and 130 more."), "{message}");
}

#[tokio::test]
async fn an_import_of_the_wrong_type_is_refused() {
    let world = World::new();
    world
        .check_wat_refused(
            r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param f64)))
                (memory (export "memory") 1) (func (export "_start")))"#,
            &["another type", "fd_write"],
        )
        .await;
}

#[tokio::test]
async fn what_can_never_run_is_refused_with_the_number() {
    let world = World::new();
    let start = r#"(memory (export "memory") 1) (func (export "_start"))"#;
    let repeated = |item: &str, count: usize| format!("(module {start} {})", item.repeat(count));
    let numbers = &["needs more than one run may have"];
    world
        .check_wat_refused(&repeated("(memory 1)", 20), &[numbers[0], "21", "20"])
        .await;
    world
        .check_wat_refused(
            &repeated("(table 1 funcref)", 51),
            &[numbers[0], "51", "50"],
        )
        .await;
    world
        .check_wat_refused(
            &repeated("(table 100001 funcref)", 1),
            &[numbers[0], "100001", "100000"],
        )
        .await;
    world
        .check_wat_refused(
            r#"(module (memory (export "memory") i64 65537) (func (export "_start")))"#,
            &[numbers[0], "4295032832", "0x100000000"],
        )
        .await;
    world
        .check_wat_refused(
            &format!("(module {start} (memory 1 1 shared))"),
            &["shared"],
        )
        .await;
}

#[tokio::test]
async fn a_known_file_costs_nothing_and_concurrent_uploads_compile_once() {
    let world = World::new();
    let uploads = (0..8).map(|_| world.prepare(IDLE));
    let answers = futures_util::future::join_all(uploads).await;
    let first = answers[0].clone().unwrap();
    assert_eq!(first.shape, Shape::CoreCommand);
    assert!(answers.iter().all(|answer| answer.as_ref() == Ok(&first)));
    assert_eq!(world.prepare(IDLE).await, Ok(first.clone()));
    assert_eq!(world.runtime.known(&first.digest), Some(first.clone()));
    assert_eq!(world.compiler.count(), 1);

    let world = world.restart();
    assert_eq!(world.runtime.stats().loaded_entries, 0);
    assert_eq!(world.prepare(IDLE).await, Ok(first.clone()));
    assert_eq!(world.temperature(first.digest).await, Temperature::Cold);
    assert_eq!(world.temperature(first.digest).await, Temperature::Warm);
    assert_eq!(world.runtime.stats().loaded_entries, 1);
    assert_eq!(world.compiler.count(), 1);
    let wasm = world.runtime.wasm(&first.digest).unwrap();
    assert_eq!(wasm, wat::parse_str(IDLE).unwrap());
}

#[tokio::test]
async fn changed_and_truncated_code_is_compiled_again() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        (".cwasm", |code| {
            let middle = code.len() / 2;
            code[middle] ^= 1;
        }),
        (".cwasm", |code| code.truncate(code.len() / 2)),
        (".cwasm", Vec::clear),
        (".cwasm", |code| code.push(0)),
        (".mac", |mac| {
            mac[0] = if mac[0] == b'0' { b'1' } else { b'0' }
        }),
    ];
    let mut world = World::new();
    let prepared = world.prepare(IDLE).await.unwrap();
    for (i, (extension, damage)) in damages.into_iter().enumerate() {
        let path = world.file(extension);
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        // A new file: the old one is mapped.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        world = world.restart();
        assert_eq!(world.temperature(prepared.digest).await, Temperature::Cold);
        assert_eq!(world.compiler.count(), i + 2, "{extension}");
        world = world.restart();
        assert_eq!(world.temperature(prepared.digest).await, Temperature::Cold);
        assert_eq!(
            world.compiler.count(),
            i + 2,
            "{extension}: the new code is good"
        );
    }
}

/// Copies over a file that may be mapped.
fn replace(from: &PathBuf, to: &PathBuf) {
    std::fs::remove_file(to).unwrap();
    std::fs::copy(from, to).unwrap();
}

#[tokio::test]
async fn code_of_another_file_or_folder_is_not_believed() {
    let world = World::new();
    let prepared = world.prepare(IDLE).await.unwrap();
    let (code, mac) = (world.file(".cwasm"), world.file(".mac"));
    let other = World::new();
    other.prepare(IDLE).await.unwrap();
    // The same code with the MAC of another installation's key.
    replace(&mac, &other.file(".mac"));
    replace(&code, &other.file(".cwasm"));
    let other = other.restart();
    other.temperature(prepared.digest).await;
    assert_eq!(other.compiler.count(), 2);

    // Another file's code with its right MAC, under this file's name.
    let evil = r#"(module (memory (export "memory") 2) (func (export "_start")))"#;
    let world2 = World::new();
    let victim = world2.prepare(IDLE).await.unwrap();
    let (code, mac) = (world2.file(".cwasm"), world2.file(".mac"));
    let evil = world2.prepare(evil).await.unwrap();
    let rename = |path: &PathBuf| {
        PathBuf::from(
            path.to_str()
                .unwrap()
                .replace(&victim.digest.to_string(), &evil.digest.to_string()),
        )
    };
    replace(&rename(&code), &code);
    replace(&rename(&mac), &mac);
    let world2 = world2.restart();
    world2.temperature(victim.digest).await;
    assert_eq!(world2.compiler.count(), 3);
}

#[tokio::test]
async fn code_of_another_engine_is_ignored() {
    let world = World::new();
    let prepared = world.prepare(IDLE).await.unwrap();
    for extension in [".cwasm", ".mac"] {
        let path = world.file(extension);
        let name = path.file_name().unwrap().to_str().unwrap();
        let (digest, _) = name.split_once('.').unwrap();
        let foreign = path.with_file_name(format!("{digest}.0123456789abcdef{extension}"));
        std::fs::rename(&path, foreign).unwrap();
    }
    let world = world.restart();
    assert_eq!(
        world.runtime.known(&prepared.digest),
        Some(prepared.clone())
    );
    assert_eq!(world.temperature(prepared.digest).await, Temperature::Cold);
    assert_eq!(world.compiler.count(), 2);
    assert_eq!(world.files().len(), 6, "{:?}", world.files());
}

#[tokio::test]
async fn a_damaged_upload_is_a_fault_and_not_run() {
    let world = World::new();
    let prepared = world.prepare(IDLE).await.unwrap();
    std::fs::remove_file(world.file(".cwasm")).unwrap();
    let mut wasm = std::fs::read(world.file(".wasm")).unwrap();
    *wasm.last_mut().unwrap() ^= 1;
    std::fs::write(world.file(".wasm"), wasm).unwrap();
    let world = world.restart();
    let error = world.runtime.inner.codes.get(prepared.digest).await.err();
    assert!(error.unwrap().contains("not kept"));
    assert_eq!(world.compiler.count(), 1);
}

#[tokio::test]
async fn a_sweep_removes_what_is_old_and_unreferenced() {
    let world = World::new();
    let wanted = world.prepare(IDLE).await.unwrap();
    let unwanted = world
        .prepare(r#"(module (memory (export "memory") 2) (func (export "_start")))"#)
        .await
        .unwrap();
    let referenced = HashSet::from([wanted.digest]);
    assert_eq!(
        world.runtime.sweep(&referenced).unwrap(),
        0,
        "all is recent"
    );
    let age = |name: &str| {
        let path = world.folder.path().join("code").join(name);
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    };
    let age_all = || world.files().iter().for_each(|name| age(name));
    age_all();
    // A deploy that finds the file renews it.
    assert!(world.runtime.known(&unwanted.digest).is_some());
    assert_eq!(world.runtime.sweep(&referenced).unwrap(), 0);
    assert_eq!(world.files().len(), 8);
    age_all();
    assert_eq!(world.runtime.sweep(&referenced).unwrap(), 1);
    assert_eq!(world.runtime.known(&unwanted.digest), None);
    assert_eq!(world.runtime.known(&wanted.digest), Some(wanted.clone()));
    assert_eq!(world.files().len(), 4);
    assert!(
        world
            .runtime
            .inner
            .codes
            .get(unwanted.digest)
            .await
            .is_err()
    );
}

#[test]
fn a_sweep_removes_what_a_crash_left_unfinished() {
    let world = World::new();
    let code = world.folder.path().join("code");
    let (file, path) = cache::unfinished(&code).unwrap().keep().unwrap();
    let nobody = HashSet::new();
    world.runtime.sweep(&nobody).unwrap();
    assert!(path.exists(), "somebody may be writing it");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    world.runtime.sweep(&nobody).unwrap();
    assert!(!path.exists());
    assert!(code.join(cache::KEY_FILE).exists());
}

#[tokio::test]
async fn a_folder_to_which_nothing_refers_keeps_what_is_used() {
    let world = World::new();
    let used = world.prepare(IDLE).await.unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    for name in world.files() {
        let path = world.folder.path().join("code").join(name);
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    }
    // The file is found again, which is all that tells that it is still in use.
    assert_eq!(world.prepare(IDLE).await.unwrap(), used);
    assert_eq!(world.runtime.sweep_unused(day).unwrap(), 0);
    assert_eq!(world.files().len(), 4);
    assert_eq!(world.compiler.count(), 1);
}

#[tokio::test]
async fn the_key_is_for_us_alone_and_a_damaged_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new();
    let path = world.folder.path().join("code/cache.key");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let prepared = world.prepare(IDLE).await.unwrap();
    std::fs::write(&path, b"short").unwrap();
    let world = world.restart();
    world.temperature(prepared.digest).await;
    assert_eq!(world.compiler.count(), 2);
    assert_eq!(std::fs::read(&path).unwrap().len(), 32);
}

#[tokio::test]
async fn loaded_code_is_bounded_by_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder);
    options.loaded_bytes_max = 100 << 10;
    let runtime = Runtime::open(&options, Counting::new()).unwrap();
    for pages in 1..=40 {
        let wat =
            format!(r#"(module (memory (export "memory") {pages}) (func (export "_start")))"#);
        let prepared = runtime
            .prepare(wat::parse_str(wat).unwrap().into())
            .await
            .unwrap();
        runtime.inner.codes.get(prepared.digest).await.unwrap();
    }
    let stats = runtime.stats();
    assert!(stats.loaded_bytes <= 100 << 10, "{stats:?}");
    assert!((1..40).contains(&stats.loaded_entries), "{stats:?}");
}

#[test]
fn the_compiling_engines_are_compatible_with_the_serving_ones() {
    let serving = EngineKeys::of(|flavor| Ok(serving(flavor, 2).unwrap().0)).unwrap();
    assert_eq!(EngineKeys::of(engine::compiling).unwrap(), serving);
}

#[test]
fn the_version_in_the_cache_key_is_the_one_built_in() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let entry = format!(
        "name = \"wasmtime\"\nversion = \"{}\"\n",
        cache::WASMTIME_VERSION
    );
    assert!(lock.contains(&entry), "update WASMTIME_VERSION");
}

#[test]
fn the_pool_shrinks_until_the_machine_has_room() {
    // 4 million guests would reserve 36 PiB, more than any machine addresses.
    let (_engine, report) = serving(Flavor::Plain, 4 << 20).unwrap();
    assert!(report.guests < 4 << 20);
    assert!(report.guests >= 1);
    assert!(report.slots > report.guests);
}

/// A module that fills its memory with a mark, or searches its fresh memory for the mark.
const LEAK: &str = r#"(module
    (memory (export "memory") 64)
    (table 5000 funcref)
    (data (i32.const 70000) "image")
    (func $none)
    (elem declare func $none)
    (func (export "fill")
        (memory.fill (i32.const 0) (i32.const 0xA5) (i32.const 4194304))
        (table.fill (i32.const 0) (ref.func $none) (i32.const 5000)))
    (func (export "scribble") (param $page i32)
        (i32.store (i32.mul (local.get $page) (i32.const 8192)) (i32.const 0xA5A5A5A5)))
    (func (export "search") (result i32)
        (local $at i32)
        (loop $next
            (if (i64.eq (i64.load (local.get $at)) (i64.const 0xA5A5A5A5A5A5A5A5)) (then (return (i32.const 1))))
            (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 0xA5)) (then (return (i32.const 2))))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 4194304))))
        (local.set $at (i32.const 0))
        (loop $next
            (if (i32.eqz (ref.is_null (table.get (local.get $at)))) (then (return (i32.const 3))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 5000))))
        (i32.const 0)))"#;

#[test]
fn nothing_of_one_guest_is_found_by_the_next() {
    let scan = wasmtime::PoolingAllocationConfig::is_pagemap_scan_available();
    let slow = Wipe::AllPages { reason: "test" };
    let settings = scan.then_some(Wipe::TouchedPages).into_iter().chain([slow]);
    for wipe in settings {
        let (engine, _) = serving_with(Flavor::Plain, 2, wipe.clone()).unwrap();
        let module = wasmtime::Module::new(&engine, wat::parse_str(LEAK).unwrap()).unwrap();
        let instance = || {
            let mut store = wasmtime::Store::new(&engine, ());
            store.set_epoch_deadline(u64::MAX / 2);
            let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
            (store, instance)
        };
        for round in 0..20 {
            let (mut store, writer) = instance();
            writer
                .get_typed_func::<(), ()>(&mut store, "fill")
                .unwrap()
                .call(&mut store, ())
                .unwrap();
            drop(store);
            for searches in 0..100 {
                let (mut store, reader) = instance();
                let found = reader
                    .get_typed_func::<(), i32>(&mut store, "search")
                    .unwrap()
                    .call(&mut store, ())
                    .unwrap();
                assert_eq!(found, 0, "{wipe}, round {round}, search {searches}");
                // More regions than one scan reports, far apart.
                let scribble = reader
                    .get_typed_func::<i32, ()>(&mut store, "scribble")
                    .unwrap();
                for page in 0..(searches * 5 % 500) {
                    scribble.call(&mut store, page).unwrap();
                }
            }
        }
    }
}

/// Writes `hello` to standard output.
const HELLO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\"hello\"")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 7))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// Never ends by itself.
const SPIN: &str =
    r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

fn attempt(prepared: &Prepared, time_limit: Duration) -> Attempt {
    use crate::model::{
        ExecutionId, Fence, Input, JSON, Timestamp, Version, VersionNumber, VersionSpec,
    };

    Attempt {
        execution_id: ExecutionId::new(Timestamp(0)),
        function: "f".parse().unwrap(),
        version: Arc::new(Version {
            number: VersionNumber(1),
            code: Code::Wasm {
                digest: prepared.digest,
                shape: prepared.shape,
                size: prepared.size,
            },
            spec: VersionSpec::default(),
            created_at: Timestamp(0),
        }),
        number: 1,
        max_attempts: 1,
        requeues: 0,
        faults: 0,
        fence: Fence::new(1, 1),
        time_limit,
        idempotency_key: None,
        trace_id: None,
        traceparent: None,
        metadata: Arc::new([]),
        input: Input {
            content_type: JSON,
            body: Bytes::from_static(b"null"),
        },
        secrets: Arc::default(),
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_call_runs_what_was_prepared_and_says_whether_it_was_cold() {
    let world = World::new();
    let prepared = world.prepare(HELLO).await.unwrap();
    let world = world.restart();
    for cold in [true, false] {
        let ran = world
            .runtime
            .run(&attempt(&prepared, LONG), &CancellationToken::new())
            .await;
        let Outcome::Success { body, .. } = &ran.outcome else {
            panic!("{ran:?}");
        };
        assert_eq!(&body[..], b"\"hello\"");
        assert_eq!((ran.cold_start, ran.init_duration.is_some()), (cold, cold));
    }
    assert_eq!(world.runtime.stats().permits_used, 0);
}

/// They look up less often there, but they do.
#[tokio::test]
async fn guests_that_find_room_without_a_pool_run_and_are_stopped_too() {
    let world = World::of(Slots::OnDemand);
    let short = Duration::from_millis(20);
    for (wat, limit, is_stopped) in [(HELLO, LONG, false), (SPIN, short, true)] {
        let prepared = world.prepare(wat).await.unwrap();
        let attempt = attempt(&prepared, limit);
        let ran = world.runtime.run(&attempt, &CancellationToken::new()).await;
        let stopped = matches!(ran.outcome, Outcome::TimedOut(_));
        assert_eq!(stopped, is_stopped, "{ran:?}");
    }
}

#[tokio::test]
async fn code_that_is_gone_is_our_fault() {
    let world = World::new();
    let unknown = Prepared {
        digest: Digest::from_bytes([9; 32]),
        shape: Shape::CoreCommand,
        size: 1,
        outgoing: None,
    };
    let ran = world
        .runtime
        .run(&attempt(&unknown, LONG), &CancellationToken::new())
        .await;
    assert!(
        matches!(&ran.outcome, Outcome::Fault(text) if text.contains("not kept")),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_guest_waits_for_a_permit_until_its_time_is_over_or_it_is_stopped() {
    let world = World::new();
    let spin = world.prepare(SPIN).await.unwrap();
    let idle = world.prepare(IDLE).await.unwrap();
    let guests = world.runtime.stats().permits_max;
    let stop = CancellationToken::new();
    let mut spinning = tokio::task::JoinSet::new();
    for _ in 0..guests {
        let (runtime, stop) = (world.runtime.clone(), stop.clone());
        let attempt = attempt(&spin, LONG);
        spinning.spawn(async move { runtime.run(&attempt, &stop).await });
    }
    while world.runtime.stats().permits_used < guests {
        tokio::task::yield_now().await;
    }
    let run = async |limit, stop: &CancellationToken| {
        let attempt = attempt(&idle, limit);
        world.runtime.run(&attempt, stop).await.outcome
    };
    let late = run(Duration::from_millis(20), &CancellationToken::new()).await;
    assert!(
        matches!(&late, Outcome::TimedOut(failure) if failure.code == "TIMEOUT"),
        "{late:?}"
    );
    let cancelled = CancellationToken::new();
    let (stopped, ()) = tokio::join!(run(LONG, &cancelled), async { cancelled.cancel() });
    assert_eq!(stopped, Outcome::Interrupted);
    // A freed permit is handed on.
    let never = CancellationToken::new();
    let (served, ()) = tokio::join!(run(LONG, &never), async { stop.cancel() });
    assert!(matches!(served, Outcome::Success { .. }), "{served:?}");
    for ran in spinning.join_all().await {
        assert_eq!(ran.outcome, Outcome::Interrupted);
    }
    assert_eq!(world.runtime.stats().permits_used, 0);
}

#[tokio::test]
async fn guests_with_many_memories_never_exhaust_the_pool() {
    let world = World::new();
    let memories = "(memory 1)".repeat(19);
    let greedy =
        format!(r#"(module (memory (export "memory") 1) {memories} (func (export "_start")))"#);
    let greedy = world.prepare(&greedy).await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let runtime = world.runtime.clone();
        let attempt = attempt(&greedy, LONG);
        running.spawn(async move { runtime.run(&attempt, &CancellationToken::new()).await });
    }
    for ran in running.join_all().await {
        assert!(matches!(ran.outcome, Outcome::Success { .. }), "{ran:?}");
    }
}
