//! The real binary: a server on port 0 with a folder, and the client commands against it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for another process to do what it must.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Pelton's binary, without what the environment may say about it.
pub(crate) fn pelton() -> Command {
    command(Command::new(env!("CARGO_BIN_EXE_pelton")))
}

fn command(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PELTON_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What a client command came to.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("was ended by a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The same, if it ended with this code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(
            self.code, expected,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A running `pelton serve`. Killed when dropped; its log is shown if the test fails.
pub(crate) struct Server {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Server {
    /// Starts one on this folder and waits for its first line.
    #[track_caller]
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Self {
        Self::start_as(pelton(), folder, flags)
    }

    /// Starts one that cannot write files of more than `kib` KiB.
    #[track_caller]
    pub(crate) fn start_with_small_files(folder: &Path, kib: u32) -> Self {
        let mut shell = command(Command::new("bash"));
        let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_pelton")]);
        Self::start_as(shell, folder, &[])
    }

    /// Starts one on this folder; none if it dies before it listens.
    #[track_caller]
    pub(crate) fn try_start(folder: &Path, flags: &[&str]) -> Option<Self> {
        let (child, log) = spawn(pelton(), folder, flags);
        Self::listening(child, log).ok()
    }

    /// Starts one on this folder and kills it after a while, wherever it is then.
    pub(crate) fn stillborn(folder: &Path, flags: &[&str], lives: Duration) {
        let (mut child, _) = spawn(pelton(), folder, flags);
        std::thread::sleep(lives);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[track_caller]
    fn start_as(command: Command, folder: &Path, flags: &[&str]) -> Self {
        let (child, log) = spawn(command, folder, flags);
        let said = Self::listening(child, log.clone());
        said.unwrap_or_else(|first| panic!("first line {first:?}; log: {}", read(&log)))
    }

    /// Waits for the first line; gives back what came instead of it.
    #[track_caller]
    fn listening(mut child: Child, log: PathBuf) -> Result<Self, String> {
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut first).unwrap();
        let Some(url) = first.strip_prefix("listening on ").map(str::trim_end) else {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err(first);
        };
        assert!(url.starts_with("http://127.0.0.1:"), "{first:?}");
        Ok(Self {
            url: url.to_owned(),
            child,
            log,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A client command against it.
    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let mut command = pelton();
        command.args(arguments).args(["--server", &self.url]);
        command
    }

    /// Runs a client command to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.client(arguments).output().unwrap())
    }

    /// What it answers to a GET, with its head.
    #[track_caller]
    pub(crate) fn answer(&self, path: &str) -> String {
        let host = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The body of what it answers to a GET.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        let answer = self.answer(path);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        body.to_owned()
    }

    /// Deploys a file.
    #[track_caller]
    pub(crate) fn deploy(&self, name: &str, file: &Path, settings: &[&str]) {
        let mut arguments = vec!["deploy", name, file.to_str().unwrap()];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        self.run(&arguments).code(0);
    }

    /// Queues a call and returns its id.
    #[track_caller]
    pub(crate) fn enqueue(&self, name: &str, input: &str) -> String {
        let queued = self.run(&["enqueue", name, "-d", input]).code(0);
        queued.stdout.trim().to_owned()
    }

    /// The execution, once it is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let execution = self
                .run(&["executions", "get", id, "--json"])
                .code(0)
                .json();
            if wanted(&execution) {
                return execution;
            }
            assert!(begun.elapsed() < PATIENCE, "still {execution}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The id of an execution of this function that runs.
    #[track_caller]
    pub(crate) fn running(&self, name: &str) -> String {
        let begun = Instant::now();
        loop {
            let list = [
                "executions",
                "ls",
                "--function",
                name,
                "--status",
                "running",
                "--json",
            ];
            let list = self.run(&list).code(0).json();
            if let Some(id) = list["items"][0]["executionId"].as_str() {
                return id.to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "nothing runs");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    }

    /// Returns once it takes no more connections.
    #[track_caller]
    pub(crate) fn wait_until_closed(&self) {
        let begun = Instant::now();
        while self.run(&["functions", "ls"]).code != 4 {
            assert!(begun.elapsed() < PATIENCE, "the server does not close");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Kills it where it stands: `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ended.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", read(&self.log));
        }
    }
}

/// Starts `serve`; its log goes to the file that is named.
fn spawn(mut command: Command, folder: &Path, flags: &[&str]) -> (Child, PathBuf) {
    let log = folder.with_extension("log");
    let mut options = File::options();
    options.create(true).append(true);
    let child = command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(["--management-listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(folder)
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(options.open(&log).unwrap())
        .spawn()
        .unwrap();
    (child, log)
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    read.map_or_else(|error| error.to_string(), |_| text)
}
