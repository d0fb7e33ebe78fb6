//! WIT for the tools: that of WASI, as the crates for guests carry it, in any version of 0.2 or 0.3; and Pelton's own.
//!
//! A tool takes its world's version from the WIT, so one text under several versions stands for the whole line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::tools::{World, tools};

/// The versions of WIT that the crates carry.
const PUBLISHED_0_2: (&str, &str) = ("wasip2", "0.2.12");
const PUBLISHED_0_3: (&str, &str) = ("wasip3", "0.3.2");

/// The world of typed handlers.
pub(crate) fn typed() -> World<'static> {
    static FOLDER: LazyLock<PathBuf> =
        LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("wit"));
    World {
        wit: &FOLDER,
        name: "function",
    }
}

/// A folder of WIT in which every version is the same.
pub(crate) struct Wasi {
    folder: PathBuf,
}

impl Wasi {
    #[track_caller]
    pub(crate) fn of(version: &str) -> Self {
        let is_early = version.starts_with("0.2.");
        let (name, published) = if is_early {
            PUBLISHED_0_2
        } else {
            PUBLISHED_0_3
        };
        let folder = tools().output(&format!("wit-{version}"));
        fs::create_dir_all(folder.join("deps")).unwrap();
        for file in fs::read_dir(wit_of(name, published).join("deps")).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let to = folder.join("deps").join(path.file_name().unwrap());
            fs::write(to, in_version(&text, published, version)).unwrap();
        }
        let web = if is_early { "proxy" } else { "service" };
        let world = format!(
            "package foreign:app;\n\
             world web {{ include wasi:http/{web}@{version}; }}\n\
             world program {{ include wasi:cli/command@{version}; }}\n"
        );
        fs::write(folder.join("app.wit"), world).unwrap();
        Self { folder }
    }

    /// The world of web functions.
    pub(crate) fn web(&self) -> World<'_> {
        self.world("web")
    }

    /// The world of programs.
    pub(crate) fn program(&self) -> World<'_> {
        self.world("program")
    }

    fn world<'a>(&'a self, name: &'a str) -> World<'a> {
        World {
            wit: &self.folder,
            name,
        }
    }
}

/// The same text in another version. What it says of when things came would forbid them in an earlier one; and the one
/// interface that is not stable is left out, since tools differ in what they do about that.
fn in_version(text: &str, published: &str, version: &str) -> String {
    let text = text.replace(published, version);
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let said = line.trim();
        if said.starts_with("@since(") || said.starts_with("@deprecated(") {
            continue;
        }
        if said.starts_with("import wasi:clocks/timezone@") {
            // With what is said of it in the line before.
            lines.pop();
            continue;
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// The folder of WIT in the sources of a crate that guest functions depend on.
#[track_caller]
fn wit_of(name: &str, version: &str) -> PathBuf {
    static METADATA: LazyLock<serde_json::Value> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-functions");
        let mut cargo: Command = pelton::guests::cargo(&folder).unwrap();
        cargo.args(["metadata", "--locked", "--format-version", "1"]);
        let output = cargo.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    });
    let mut packages = METADATA["packages"].as_array().unwrap().iter();
    let package = packages.find(|package| {
        package["name"] == name && package["version"].as_str().unwrap().ends_with(version)
    });
    let manifest = package.expect("the crate with this WIT")["manifest_path"].as_str();
    Path::new(manifest.unwrap()).with_file_name("wit")
}
