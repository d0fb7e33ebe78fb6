//! A server of the real binary with one foreign file on it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::Server;

/// The function's name.
pub(crate) const NAME: &str = "foreign";

/// The compiler's time is the one setting that is not the default: the compiler itself is not optimised here, and
/// takes several times as long as in a release, for an interpreter minutes where others are at work.
const FLAGS: [&str; 2] = ["--compile-timeout-s", "600"];

/// How the body of a request is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sending {
    /// In one piece, of a stated length.
    Whole,
    /// In small chunks, as somebody does who does not know the length yet.
    InChunks,
}

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

    /// Posts JSON to a path below its own, as to any web server; the status, the head and the body of what it says.
    #[track_caller]
    pub(crate) fn posted(&self, path: &str, body: &str, sending: Sending) -> (u16, String, String) {
        let host = self.server.url().strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        let length = match sending {
            Sending::Whole => format!("content-length: {}", body.len()),
            Sending::InChunks => "transfer-encoding: chunked".to_owned(),
        };
        let head = format!(
            "POST /fn/{NAME}{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-type: application/json\r\n{length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        match sending {
            Sending::Whole => stream.write_all(body.as_bytes()).unwrap(),
            Sending::InChunks => {
                for chunk in body.as_bytes().chunks(7) {
                    let chunk =
                        [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
                    stream.write_all(&chunk).unwrap();
                }
                stream.write_all(b"0\r\n\r\n").unwrap();
            }
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = match head.contains("transfer-encoding: chunked") {
            true => joined(body),
            false => body.to_owned(),
        };
        (status, head.to_owned(), body)
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

/// The text of a body in chunks, which has to end as one.
#[track_caller]
fn joined(mut chunks: &str) -> String {
    let mut text = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return text;
        }
        text.push_str(&rest[..length]);
        chunks = rest[length..].strip_prefix("\r\n").unwrap();
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
