//! Uploads from the outside of the runtime: what is refused and in which words, what is kept and believed.

mod attempts;
mod hostile;
mod recompile;
mod refused;

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
