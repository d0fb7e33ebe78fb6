//! The components that are called beside the echo and the web function: functions in JavaScript and Python.
//!
//! **Invariant:** both sides of a comparison get the very same file.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bare::World;
use crate::say;
use crate::tools::{self, tools};
use crate::wit::{self, Wasi};

/// A function in another language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Foreign {
    JavaScript,
    JavaScriptWeb,
    Python,
    PythonWeb,
}

/// A function that was built.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    pub(crate) file: PathBuf,
    /// The JSON to call it with.
    pub(crate) input: Value,
    /// What its answer has in it.
    pub(crate) expected: Value,
}

impl Foreign {
    pub(crate) const ALL: [Self; 4] = [
        Self::JavaScript,
        Self::JavaScriptWeb,
        Self::Python,
        Self::PythonWeb,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::JavaScript => "JavaScript, typed",
            Self::JavaScriptWeb => "JavaScript, HTTP",
            Self::Python => "Python, typed",
            Self::PythonWeb => "Python, HTTP",
        }
    }

    /// The name that it is deployed under.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::JavaScript => "javascript",
            Self::JavaScriptWeb => "javascript-web",
            Self::Python => "python",
            Self::PythonWeb => "python-web",
        }
    }

    pub(crate) fn world(self) -> World {
        match self {
            Self::JavaScript | Self::Python => World::Typed,
            Self::JavaScriptWeb | Self::PythonWeb => World::Web,
        }
    }

    /// The source beside the foreign tests, under their folder of guests.
    fn source(self) -> &'static str {
        match self {
            Self::JavaScript => "typed.js",
            Self::JavaScriptWeb => "http.js",
            Self::Python => "py/typed.py",
            Self::PythonWeb => "py/web.py",
        }
    }

    /// Builds it with the tools that the foreign tests fetch, unless an earlier run has done so.
    ///
    /// # Errors
    /// There are no such tools, or they do not build it: what they said has been written.
    pub(crate) fn build(self) -> Result<Component> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers/components");
        fs::create_dir_all(&folder)?;
        let source = fs::read(tools::source(self.source()))?;
        let key = blake3::hash(&source).to_hex();
        let file = folder.join(format!("{}-{}.wasm", self.name(), &key[..16]));
        if !file.is_file() {
            say(&format!("building {}", self.words()));
            // What is made for tests panics.
            let built = panic::catch_unwind(|| self.componentize());
            let built = built
                .ok()
                .context("its tools are missing or do not build it")?;
            let fresh = file.with_extension("part");
            fs::copy(built, &fresh)?;
            fs::rename(fresh, &file)?;
        }
        let said = json!({"said": "hello"});
        let (input, expected) = match self.world() {
            World::Typed => (said.clone(), said),
            World::Web => (json!("hello"), said),
        };
        Ok(Component {
            file,
            input,
            expected,
        })
    }

    fn componentize(self) -> PathBuf {
        const ENGINE: &str = "@bytecodealliance/componentize-js";
        match self {
            Self::JavaScript => tools().componentize_js(ENGINE, "typed.js", wit::typed()),
            Self::JavaScriptWeb => {
                // The engine's own bindings are of exactly this version.
                tools().componentize_js(ENGINE, "http.js", Wasi::of("0.2.10").web())
            }
            Self::Python => tools().componentize_py("typed", wit::typed()),
            Self::PythonWeb => tools().componentize_py("web", Wasi::of("0.2.0").web()),
        }
    }
}
