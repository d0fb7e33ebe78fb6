//! A server of the real binary with one foreign file on it.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::Server;

/// The function's name.
pub(crate) const NAME: &str = "foreign";

/// The compiler's time is the one setting that is not the default: the compiler itself is not optimised here, and
/// takes several times as long as in a release, for an interpreter minutes where others are at work.
const FLAGS: [&str; 2] = ["--compile-timeout-s", "600"];

/// A running server with the function [`NAME`].
pub(crate) struct Plane {
    server: Server,
    _folder: TempDir,
}

impl Plane {
    /// Deploys a file with these settings.
    #[track_caller]
    pub(crate) fn with(file: &Path, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), &FLAGS);
        server.deploy(NAME, file, settings);
        Self {
            server,
            _folder: folder,
        }
    }

    /// What the file turned out to be.
    #[track_caller]
    pub(crate) fn shape(&self) -> Value {
        let function = ["functions", "get", NAME, "--json"];
        self.server.run(&function).code(0).json()["shape"].clone()
    }

    /// Changes a setting.
    #[track_caller]
    pub(crate) fn set(&self, setting: &str) {
        let change = ["deploy", NAME, "--set", setting];
        self.server.run(&change).code(0);
    }

    /// Calls it; the whole execution.
    #[track_caller]
    pub(crate) fn call(&self, input: &str) -> Value {
        let called = self.server.run(&["invoke", NAME, "-d", input, "--json"]);
        assert!(called.code <= 1, "{}", called.stderr);
        let id = called.json()["executionId"].as_str().unwrap().to_owned();
        let shown = self.server.run(&["executions", "get", &id, "--json"]);
        shown.code(0).json()
    }

    /// The output of a call that succeeds.
    #[track_caller]
    pub(crate) fn output(&self, input: &str) -> Value {
        let execution = self.call(input);
        assert_eq!(execution["status"], "success", "{execution}");
        execution["output"].clone()
    }

    /// The code of a call that fails.
    #[track_caller]
    pub(crate) fn failure(&self, input: &str) -> String {
        let execution = self.call(input);
        assert_eq!(execution["status"], "error", "{execution}");
        execution["error"]["code"].as_str().unwrap().to_owned()
    }

    /// What all attempts of an execution wrote.
    #[track_caller]
    pub(crate) fn logs(&self, execution: &Value) -> String {
        let id = execution["executionId"].as_str().unwrap();
        self.server.run(&["logs", id]).code(0).stdout
    }

    /// Calls it many times at once, so that every slot is used and used again.
    #[track_caller]
    pub(crate) fn calls_at_once(&self, count: usize, input: &str, expected: &Value) {
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..count)
                .map(|_| scope.spawn(|| self.output(input)))
                .collect();
            for call in calls {
                assert_eq!(&call.join().unwrap(), expected);
            }
        });
    }
}

/// What a server says that refuses a file.
#[track_caller]
pub(crate) fn refusal(file: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &FLAGS);
    let deploy = ["deploy", NAME, file.to_str().unwrap()];
    server.run(&deploy).code(3).stderr
}
