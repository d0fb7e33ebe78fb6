//! What `/proc` says: the CPU time and memory of a process, and what everybody else did meanwhile.
//!
//! **Invariant:** a server's CPU time is that of its own process, all threads, user and system; the load
//! generator's is never in it.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Counters at the begin of a measurement.
pub(crate) struct Watch {
    began: Instant,
    server_s: f64,
    everybody_s: f64,
    own_s: f64,
}

/// What was used between the begin and the end of a measurement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Wall-clock time, in s.
    pub(crate) elapsed_s: f64,
    /// CPU time of the server, in s.
    pub(crate) server_s: f64,
    /// CPU time of all other processes, in cores: a second of it per second is one. Time that the
    /// virtual machine was denied counts too.
    pub(crate) other_cores: f64,
}

impl Watch {
    /// Begins to watch a running server.
    pub(crate) fn begin(pid: u32) -> Result<Self> {
        Ok(Self {
            server_s: process_s(&pid.to_string())?,
            ..Self::before_start()?
        })
    }

    /// Begins to watch a server that has yet to be started.
    pub(crate) fn before_start() -> Result<Self> {
        Ok(Self {
            began: Instant::now(),
            server_s: 0.0,
            everybody_s: everybody_s()?,
            own_s: process_s("self")?,
        })
    }

    /// What this process used since, by itself.
    pub(crate) fn end_of_own(&self) -> Result<Used> {
        let elapsed_s = self.began.elapsed().as_secs_f64();
        let own_s = process_s("self")? - self.own_s;
        let other_s = everybody_s()? - self.everybody_s - own_s;
        Ok(Used {
            elapsed_s,
            server_s: own_s,
            other_cores: (other_s / elapsed_s).max(0.0),
        })
    }

    /// What was used since, with this server.
    pub(crate) fn end(&self, pid: u32) -> Result<Used> {
        let elapsed_s = self.began.elapsed().as_secs_f64();
        let server_s = process_s(&pid.to_string())? - self.server_s;
        let own_s = process_s("self")? - self.own_s;
        let other_s = everybody_s()? - self.everybody_s - server_s - own_s;
        Ok(Used {
            elapsed_s,
            server_s,
            other_cores: (other_s / elapsed_s).max(0.0),
        })
    }
}

/// Resident memory of a process, in MB (10⁶ bytes).
pub(crate) fn resident_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmRSS:")
}

/// A size that the status of a process names, in MB.
pub(crate) fn status_mb(pid: u32, field: &str) -> Result<f64> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse().ok())
        .with_context(|| format!("no {field}"))?;
    Ok(kib * 1024.0 / 1e6)
}

/// A line that describes the machine: the processor's architecture, the cores, the kernel.
pub(crate) fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} cores, {}, Linux {}",
        std::env::consts::ARCH,
        kernel.trim()
    )
}

/// CPU time of a process, user and system, in s. Children are not in it.
fn process_s(pid: &str) -> Result<f64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The name before may hold blanks and brackets; user and system time are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')').context("no process name")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / ticks_per_second()?)
}

/// CPU time of all processes, and what was stolen by other virtual machines, in s. Interrupts are left out:
/// during a load they are its own packets.
fn everybody_s() -> Result<f64> {
    let stat = read("/proc/stat")?;
    let all_cores = stat.lines().next().context("no line in /proc/stat")?;
    let fields: Vec<f64> = all_cores
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [user, nice, system, _, _, _, _, steal, ..] = fields[..] else {
        anyhow::bail!("unknown form of /proc/stat: {all_cores}");
    };
    Ok((user + nice + system + steal) / ticks_per_second()?)
}

fn ticks_per_second() -> Result<f64> {
    let ticks = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(f64::from(ticks))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
