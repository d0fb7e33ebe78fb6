//! What a guest finds around itself, seen through Rust's standard library: the same questions in every shape.
//!
//! The input is `{"probe": NAME}`; the answer is text, a line for each thing that was tried.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, IsTerminal as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The name of the probe that an input asks for.
pub fn asked(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input).into_owned();
    text.split('"').nth(3).unwrap_or_default().to_owned()
}

/// Tries what an input asks for.
pub fn answer(input: &[u8]) -> String {
    match asked(input).as_str() {
        "args" => std::env::args().map(line).collect(),
        "env" => environment(),
        "clocks" => clocks(),
        "random" => random(),
        "files" => files(),
        "sockets" => sockets(),
        "terminals" => terminals(),
        "threads" => threads(),
        "logs" => logs(),
        "json log" => {
            eprintln!(r#"{{"level": "warn", "message": "it turns", "turns": 3}}"#);
            String::new()
        }
        "panic" => panic!("own words"),
        "count" => count(),
        "hoard" => hoard(),
        "burn" => burn(Duration::from_millis(20)),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "sleep" => {
            std::thread::sleep(Duration::from_secs(3600));
            String::new()
        }
        other => format!("there is no probe {other:?}\n"),
    }
}

fn line(text: impl std::fmt::Display) -> String {
    format!("{text}\n")
}

fn environment() -> String {
    let mut pairs: Vec<_> = std::env::vars().collect();
    pairs.sort();
    pairs
        .into_iter()
        .map(|(name, value)| line(format_args!("{name}={value}")))
        .collect()
}

fn clocks() -> String {
    let mut last = Instant::now();
    let mut forward = true;
    for _ in 0..1000 {
        let now = Instant::now();
        forward &= now >= last;
        last = now;
    }
    let nap = Duration::from_millis(5);
    std::thread::sleep(nap);
    let year_2020 = Duration::from_secs(1_577_836_800);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut told = String::new();
    let _ = writeln!(told, "the monotonic clock never goes back: {forward}");
    let _ = writeln!(told, "a sleep lasts: {}", last.elapsed() >= nap);
    let _ = writeln!(
        told,
        "the wall clock shows this century: {}",
        since.is_ok_and(|since| since > year_2020)
    );
    told
}

/// Different in every instance, if anything is.
fn random() -> String {
    line(format_args!(
        "drawn: {}",
        RandomState::new().hash_one("wheel")
    ))
}

fn files() -> String {
    let mut told = String::new();
    let mut tell = |what: &str, tried: io::Result<()>| {
        let _ = writeln!(told, "{what}: {}", worked(tried));
    };
    tell("read a file", File::open("/etc/passwd").map(drop));
    tell("write a file", File::create("new.txt").map(drop));
    tell("list the root", fs::read_dir("/").map(drop));
    tell("list the current folder", fs::read_dir(".").map(drop));
    tell("make a folder", fs::create_dir("new"));
    tell("read itself", File::open("/proc/self/exe").map(drop));
    told
}

fn sockets() -> String {
    let mut told = String::new();
    let mut tell = |what: &str, tried: io::Result<()>| {
        let _ = writeln!(told, "{what}: {}", worked(tried));
    };
    tell("connect", TcpStream::connect(("127.0.0.1", 9)).map(drop));
    tell("listen", TcpListener::bind(("127.0.0.1", 0)).map(drop));
    tell(
        "send a datagram",
        UdpSocket::bind(("127.0.0.1", 0)).map(drop),
    );
    tell("look a name up", "localhost:80".to_socket_addrs().map(drop));
    told
}

fn worked(tried: io::Result<()>) -> &'static str {
    match tried {
        Ok(()) => "works",
        Err(_) => "refused",
    }
}

fn terminals() -> String {
    let all = [
        io::stdin().is_terminal(),
        io::stdout().is_terminal(),
        io::stderr().is_terminal(),
    ];
    line(format_args!("a terminal: {}", all.contains(&true)))
}

fn threads() -> String {
    let started = std::thread::Builder::new().spawn(|| {});
    line(format_args!(
        "start a thread: {}",
        worked(started.map(drop))
    ))
}

/// How often this instance was asked, which goes to its log, too.
fn count() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    println!("call {calls}");
    line(calls)
}

/// Takes 4 MiB that it never gives back.
fn hoard() -> String {
    std::mem::forget(std::hint::black_box(vec![1_u8; 4 << 20]));
    count()
}

/// Computes for so long.
fn burn(time: Duration) -> String {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
    count()
}

/// Writes to both streams, turn by turn.
fn logs() -> String {
    for round in 1..=2 {
        println!("out {round}");
        eprintln!("err {round}");
    }
    String::new()
}
