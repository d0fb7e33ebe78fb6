//! Whoever calls the neighbours: on a thread of its own, so that the generator of the small calls is not kept from
//! being on time by what it does for them.
//!
//! **Invariant:** each member does its thing again and again, and says how often it did; one that is not answered as
//! it should be ends the crowd with an error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

use crate::http::Connection;

/// Time within which every member must have done its thing once.
const UNDER_WAY_WITHIN: Duration = Duration::from_secs(60);
/// Time between two looks at that.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time between two pieces that a slow client takes or sends.
const PIECE_EVERY: Duration = Duration::from_millis(20);
/// The most that a slow client takes at once.
const TAKEN_BYTES: usize = 4096;
/// What a slow client sends at once.
const SENT: &[u8] = &[b'1'; 100];

/// What one member does again and again.
#[derive(Debug, Clone)]
pub(crate) enum Member {
    /// Sends this request, waits for its answer, and expects the execution to have ended so.
    Calls {
        request: Vec<u8>,
        status: &'static str,
    },
    /// Sends this request, and takes little of its answer at a time.
    TakesSlowly { request: Vec<u8> },
    /// Sends this request, and takes nothing of its answer but the first bytes.
    TakesNothing { request: Vec<u8> },
    /// Sends this head, and little of its body at a time.
    SendsSlowly { head: Vec<u8> },
}

/// Members under way.
pub(crate) struct Crowd {
    turns: Arc<[AtomicU64]>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Crowd {
    /// Starts all of them.
    pub(crate) fn start(address: SocketAddr, members: Vec<Member>) -> Result<Self> {
        let turns: Arc<[AtomicU64]> = members.iter().map(|_| AtomicU64::new(0)).collect();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let counted = Arc::clone(&turns);
        let thread = std::thread::spawn(move || {
            let all = async {
                let mut tasks = JoinSet::new();
                for (number, member) in members.into_iter().enumerate() {
                    let turns = Arc::clone(&counted);
                    let did = move || {
                        turns[number].fetch_add(1, Ordering::Relaxed);
                    };
                    tasks.spawn_local(member.go_on(address, did));
                }
                match tasks.join_next().await {
                    Some(ended) => ended.context("a neighbour's caller panicked")?,
                    None => bail!("nobody is in the crowd"),
                }
            };
            let all = async {
                tokio::select! {
                    // Dropped with the rest of the crowd's owner, it is a stop too.
                    _ = stopped => Ok(()),
                    ended = all => ended,
                }
            };
            runtime.block_on(LocalSet::new().run_until(all))
        });
        Ok(Self {
            turns,
            stop,
            thread,
        })
    }

    /// How often anybody of them did its thing.
    pub(crate) fn turns(&self) -> u64 {
        self.turns
            .iter()
            .map(|turns| turns.load(Ordering::Relaxed))
            .sum()
    }

    /// Waits until everybody did its thing once.
    pub(crate) async fn under_way(&self) -> Result<()> {
        let began = Instant::now();
        let idle = |turns: &AtomicU64| turns.load(Ordering::Relaxed) == 0;
        while self.turns.iter().any(idle) && !self.thread.is_finished() {
            ensure!(
                began.elapsed() < UNDER_WAY_WITHIN,
                "the neighbours are not under way after {UNDER_WAY_WITHIN:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Ends all of them; an error if one had met with one.
    pub(crate) fn stop(self) -> Result<()> {
        // Gone already, it has an error to tell.
        let _ = self.stop.send(());
        match self.thread.join() {
            Ok(ended) => ended,
            Err(_) => bail!("the neighbours' thread panicked"),
        }
    }
}

impl Member {
    /// Ends by an error alone.
    async fn go_on(self, address: SocketAddr, did: impl Fn()) -> Result<()> {
        match self {
            Self::Calls { request, status } => {
                let mut connection = Connection::open(address).await?;
                loop {
                    let answer = connection.call(&request).await?;
                    let execution: Value = answer.json(&[200])?;
                    ensure!(execution["status"] == status, "not {status}: {execution}");
                    did();
                }
            }
            Self::TakesSlowly { request } => loop {
                let mut stream = sent(address, &request).await?;
                let mut taken = vec![0; TAKEN_BYTES];
                ok(&mut stream, &mut taken).await?;
                loop {
                    did();
                    tokio::time::sleep(PIECE_EVERY).await;
                    // Its guest's time was up: the next one, then.
                    if !matches!(stream.read(&mut taken).await, Ok(1..)) {
                        break;
                    }
                }
            },
            Self::TakesNothing { request } => {
                let mut stream = sent(address, &request).await?;
                ok(&mut stream, &mut [0; 16]).await?;
                did();
                std::future::pending().await
            }
            Self::SendsSlowly { head } => loop {
                let mut stream = sent(address, &head).await?;
                // Its time was up: the next one, then.
                while stream.write_all(SENT).await.is_ok() {
                    did();
                    tokio::time::sleep(PIECE_EVERY).await;
                }
            },
        }
    }
}

async fn sent(address: SocketAddr, request: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request).await?;
    Ok(stream)
}

/// Takes the first bytes of an answer, which must be one of success.
async fn ok(stream: &mut TcpStream, taken: &mut [u8]) -> Result<()> {
    let count = stream.read(taken).await?;
    let begin = &taken[..count];
    ensure!(
        begin.starts_with(b"HTTP/1.1 200"),
        "not a success: {}",
        String::from_utf8_lossy(begin)
    );
    Ok(())
}
