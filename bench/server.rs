//! A server as a child process: started, its address read from its first line, stopped.
//!
//! **Invariant:** no child outlives this program's interest in it: dropped, it is killed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::say;

/// Time that a stop may take before the process is killed.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Kept open: the server may write on.
    said: Box<dyn BufRead>,
}

impl Server {
    /// The server of [`crate::axum_echo`].
    pub(crate) fn axum_echo() -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(own);
        command.args(["--role", "axum-echo"]);
        Self::start(command).context("the bare axum server")
    }

    /// `pelton serve` of the binary at `path`, as it comes, on free ports. Data and log go into `folder`.
    pub(crate) fn pelton(path: &Path, folder: &Path) -> Result<Self> {
        Self::pelton_with(path, folder, &[])
    }

    /// The same with more flags.
    pub(crate) fn pelton_with(path: &Path, folder: &Path, flags: &[&str]) -> Result<Self> {
        let log = folder.join("serve.log");
        let mut command = Command::new(path);
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--management-listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.join("data"))
            .args(flags)
            .stderr(File::create(&log).context("cannot write the server's log")?);
        // Defaults are measured, not what this shell happens to set.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PELTON_") {
                command.env_remove(name);
            }
        }
        Self::start(command).with_context(|| {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            format!("{} serve did not start:\n{log}", path.display())
        })
    }

    /// `wasmtime serve` of the binary at `path` with one component and more flags, on a free port.
    pub(crate) fn wasmtime(path: &Path, component: &Path, flags: &[&str]) -> Result<Self> {
        let mut command = Command::new(path);
        command
            .args(["serve", "--addr", "127.0.0.1:0"])
            .args(flags)
            .arg(component)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().context("no standard error")?;
        Self::listening(child, Box::new(BufReader::new(stderr)))
            .with_context(|| format!("{} serve", path.display()))
    }

    /// A server that was told to listen at `address` and does not say so. What it says goes into a new file.
    pub(crate) fn told(mut command: Command, address: SocketAddr, log: &Path) -> Result<Self> {
        let log = File::create(log).context("cannot write the server's log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self {
            child,
            address,
            said: Box::new(io::empty()),
        })
    }

    /// A server that says on its standard output where it listens, and ends with its input or at a signal.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        Self::listening(child, Box::new(BufReader::new(stdout)))
    }

    /// A server whose first line ends with the address that it listens on.
    fn listening(mut child: Child, mut said: Box<dyn BufRead>) -> Result<Self> {
        let mut line = String::new();
        let read = said.read_line(&mut line);
        let address = line.trim_end().split_once(" on http://");
        let address = address.and_then(|(_, address)| address.trim_end_matches('/').parse().ok());
        let Some(address) = address else {
            // Whatever it is, it is not left running.
            let _ = child.kill();
            let _ = child.wait();
            read?;
            let mut rest = String::new();
            said.read_to_string(&mut rest)?;
            bail!("its first lines were {line:?} {rest}");
        };
        Ok(Self {
            child,
            address,
            said,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends an empty line to its standard input and reads the line that it answers.
    pub(crate) fn ask(&mut self) -> Result<String> {
        let stdin = self.child.stdin.as_mut().context("nothing to ask by")?;
        stdin.write_all(b"\n")?;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Asks the server to stop and waits for it.
    pub(crate) fn stop(mut self) -> Result<()> {
        // The bare server ends with its input, Pelton at a signal.
        drop(self.child.stdin.take());
        let pid = i32::try_from(self.child.id())?;
        let pid = rustix::process::Pid::from_raw(pid).context("no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        say("the server did not stop in a minute and is killed");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for one server, on the disk that the build is on: a folder for temporary files may be in memory,
/// where nothing has to be written durably.
pub(crate) fn folder() -> Result<tempfile::TempDir> {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(parent)?;
    tempfile::tempdir_in(parent).context("cannot make a folder to work in")
}
