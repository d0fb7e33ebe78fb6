//! Code whose machine code is gone (after a restore, or an update of wasmtime) is compiled again when it is called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::options;
use crate::runtime::{Compiled, Compiler, InProcessCompiler, Refused, Runtime};

/// A compiler with room for one file, as the child's queue has room for some.
struct Narrow {
    compiler: InProcessCompiler,
    busy: AtomicBool,
}

#[async_trait::async_trait]
impl Compiler for Narrow {
    async fn compile(&self, wasm: Bytes) -> Result<Compiled, Refused> {
        if self.busy.swap(true, Ordering::SeqCst) {
            return Err(Refused::Busy("one is being compiled".to_owned()));
        }
        let compiled = self.compiler.compile(wasm).await;
        self.busy.store(false, Ordering::SeqCst);
        compiled
    }

    fn pending(&self) -> usize {
        0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_needs_compiling_again_waits_for_the_compiler_instead_of_failing() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = Arc::new(Narrow {
        compiler: InProcessCompiler::new().unwrap(),
        busy: AtomicBool::new(false),
    });
    let runtime = Runtime::open(&options(&folder), compiler.clone()).unwrap();
    let mut digests = Vec::new();
    for number in 0..12 {
        let text = format!(
            r#"(module (memory (export "memory") 1) (data (i32.const 0) "{number}") (func (export "_start")))"#
        );
        let wasm = wat::parse_str(text).unwrap();
        digests.push(runtime.prepare(wasm.into()).await.unwrap().digest);
    }
    drop(runtime);
    for file in std::fs::read_dir(folder.path().join("code")).unwrap() {
        let path = file.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "cwasm")
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    let runtime = Runtime::open(&options(&folder), compiler).unwrap();
    let mut loading = tokio::task::JoinSet::new();
    for digest in digests {
        let runtime = runtime.clone();
        loading.spawn(async move {
            let loaded = runtime.inner.codes.get(digest).await;
            loaded.map(drop).map_err(|error| error.to_string())
        });
    }
    while let Some(loaded) = loading.join_next().await {
        loaded.unwrap().unwrap();
    }
    assert_eq!(runtime.stats().loaded_entries, 12);
}
