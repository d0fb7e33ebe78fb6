//! Compiles in a child process: one at a time, from a bounded queue, within limits of time and memory.
//!
//! **Invariant:** whatever a file does to the compiler ends with the child; the server only reads what the
//! child says. All children are started by one thread that lives as long as the compiler, because the kernel
//! ends a child when the *thread* that started it ends.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::compile::{Compiled, Compiler, digest_of, gave_up, out_of_memory};
use super::wire::{Verdict, shape_of};
use super::worker::{Order, WORKER_COMMAND};
use super::{Options, Refused};

/// Bytes kept of what the child says about trouble.
const STDERR_BYTES_MAX: u64 = 4096;
/// Threads of the compiler.
const THREADS: u64 = 2;
/// Our own program, also when its file was replaced since it started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Compiles in a child process.
pub struct ChildCompiler {
    jobs: mpsc::Sender<Job>,
    pending: Arc<()>,
}

struct Job {
    wasm: Bytes,
    reply: oneshot::Sender<Result<Compiled, Refused>>,
}

impl ChildCompiler {
    /// A compiler that starts this very program again.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn of_this_program(options: &Options) -> io::Result<Self> {
        Self::of_program(PathBuf::from(THIS_PROGRAM), options)
    }

    /// A compiler that starts `program`, which must be Pelton's binary of the same build.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn of_program(program: PathBuf, options: &Options) -> io::Result<Self> {
        let queue_max = usize::try_from(options.compile_queue_max).unwrap_or(usize::MAX);
        let (jobs, waiting) = mpsc::channel(queue_max.clamp(1, Semaphore::MAX_PERMITS));
        let starter = Starter {
            program: program.into(),
            timeout: Duration::from_secs(options.compile_timeout_s),
            order: Order {
                parent: std::process::id(),
                memory_bytes_max: options.compile_memory_bytes_max,
                cpu_s_max: options.compile_timeout_s.saturating_mul(THREADS).max(1),
            },
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("pelton-compile".to_owned())
            .spawn(move || runtime.block_on(starter.serve(waiting)))?;
        Ok(Self {
            jobs,
            pending: Arc::new(()),
        })
    }
}

#[async_trait::async_trait]
impl Compiler for ChildCompiler {
    async fn compile(&self, wasm: Bytes) -> Result<Compiled, Refused> {
        let _pending = Arc::clone(&self.pending);
        let (reply, answer) = oneshot::channel();
        self.jobs
            .try_send(Job { wasm, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Refused::Busy(format!(
                    "{} files are waiting for the compiler already; try again in a moment",
                    self.jobs.max_capacity()
                )),
                mpsc::error::TrySendError::Closed(_) => stopped(),
            })?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn pending(&self) -> usize {
        Arc::strong_count(&self.pending).saturating_sub(1)
    }
}

fn stopped() -> Refused {
    Refused::Failed("the compiler has stopped".to_owned())
}

/// What the compiler's thread knows.
struct Starter {
    program: OsString,
    timeout: Duration,
    order: Order,
}

/// What one child said.
struct Answer {
    status: ExitStatus,
    stdout: Bytes,
    stderr: String,
}

impl Starter {
    async fn serve(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(Job { wasm, mut reply }) = jobs.recv().await {
            let answer = tokio::select! {
                // The uploader is gone: dropping the future kills the child.
                () = reply.closed() => continue,
                answer = self.compile(wasm) => answer,
            };
            // Nobody to tell: the uploader left just now.
            let _ = reply.send(answer);
        }
    }

    async fn compile(&self, wasm: Bytes) -> Result<Compiled, Refused> {
        let mut child = self
            .start()
            .map_err(|error| Refused::Failed(format!("the compiler cannot be started: {error}")))?;
        let conversed = tokio::time::timeout(self.timeout, converse(&mut child, &wasm)).await;
        match conversed {
            Ok(Ok(answer)) => read_answer(answer, &wasm),
            Ok(Err(error)) => Err(Refused::Failed(format!(
                "the compiler did not answer: {error}"
            ))),
            Err(_) => {
                if let Err(error) = child.kill().await {
                    tracing::warn!(%error, "the compiling child cannot be killed");
                }
                Err(Refused::TooExpensive(format!(
                    "compiling this file takes longer than {} s; split the program or build it smaller",
                    self.timeout.as_secs()
                )))
            }
        }
    }

    fn start(&self) -> io::Result<Child> {
        Command::new(&self.program)
            .arg0("pelton")
            .arg(WORKER_COMMAND)
            .args(self.order.to_args())
            .env_clear()
            .env("RAYON_NUM_THREADS", THREADS.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Sends the file, takes the whole answer, and waits for the child's end.
async fn converse(child: &mut Child, wasm: &[u8]) -> io::Result<Answer> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("a pipe to the child is missing"));
    };
    let send = async move {
        match stdin.write_all(wasm).await {
            // The child ended early: its status says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent,
        }
    };
    let ((), stdout, stderr, status) = tokio::try_join!(
        send,
        read(stdout, u64::MAX),
        read(stderr, STDERR_BYTES_MAX),
        child.wait()
    )?;
    Ok(Answer {
        status,
        stdout: stdout.into(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// Reads to the end and keeps the first `kept_max` bytes.
async fn read(mut from: impl AsyncRead + Unpin, kept_max: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut from).take(kept_max).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// Believes an answer only if the child ended well and read the very file that it was sent.
fn read_answer(answer: Answer, wasm: &[u8]) -> Result<Compiled, Refused> {
    if !answer.status.success() {
        return Err(died(answer.status, &answer.stderr));
    }
    let parsed = (|| {
        let mut rest = answer.stdout;
        let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
        if rest.len() < length {
            return None;
        }
        let verdict = rest.split_to(length);
        Some((serde_json::from_slice(&verdict).ok()?, rest))
    })();
    let Some((verdict, artifact)) = parsed else {
        return Err(Refused::Failed(
            "the compiler's answer is garbled".to_owned(),
        ));
    };
    match verdict {
        Verdict::Accepted {
            digest,
            shape,
            needs,
            flavor,
            outgoing,
        } => match shape_of(&shape) {
            Some(shape) if digest == digest_of(wasm).to_string() => Ok(Compiled {
                shape,
                needs,
                flavor,
                outgoing: outgoing.as_deref().map(super::shape::shorten),
                artifact,
            }),
            _ => Err(Refused::Failed(
                "the compiler answered for another file".to_owned(),
            )),
        },
        Verdict::NotWasm { message } => Err(Refused::NotWasm(message)),
        Verdict::Unsupported { message } => Err(Refused::Unsupported(message)),
        Verdict::MissingImports { message, imports } => {
            Err(Refused::MissingImports { message, imports })
        }
        Verdict::TooExpensive { message } => Err(Refused::TooExpensive(message)),
        Verdict::Failed { message } => Err(Refused::Failed(message)),
    }
}

/// What a child that died says about the file. Its own words go to the log only.
fn died(status: ExitStatus, stderr: &str) -> Refused {
    use std::os::unix::process::ExitStatusExt as _;

    use rustix::process::Signal;

    tracing::warn!(compile.status = %status, compile.stderr = stderr, "the compiling child died");
    /// What Rust's runtime exits with after a panic.
    const PANICKED: i32 = 101;
    if stderr.contains("memory allocation") || stderr.contains("Cannot allocate memory") {
        return out_of_memory();
    }
    match (status.signal(), status.code()) {
        (Some(signal), _) if signal == Signal::XCPU.as_raw() || signal == Signal::KILL.as_raw() => {
            Refused::TooExpensive(
                "compiling this file takes more processor time or memory than the compiler may use; split \
                 the program or build it smaller"
                    .to_owned(),
            )
        }
        (Some(_), _) | (None, Some(PANICKED)) => gave_up(),
        (None, _) => Refused::Failed("the compiler failed".to_owned()),
    }
}
