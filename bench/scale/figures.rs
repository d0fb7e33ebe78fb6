//! What every part reads off a server: its memory, its CPU time, its files; and whether a figure grows.
//!
//! **Invariant:** a trend is judged by the means of the first and the last third, so that one odd sample decides nothing.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::load::Served;
use crate::machine::{self, Used, Watch};
use crate::server::Server;
use crate::{Row, megabytes, row};

/// What one part of a server's life takes.
pub(crate) struct Meter {
    pid: u32,
    start_mb: f64,
    watch: Watch,
}

impl Meter {
    pub(crate) fn begin(server: &Server) -> Result<Self> {
        let pid = server.pid();
        // Forgets the peak of what was before. Where the kernel cannot, it is that of the server's whole life.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        Ok(Self {
            pid,
            start_mb: machine::resident_mb(pid)?,
            watch: Watch::begin(pid)?,
        })
    }

    /// The CPU time until now, of the server and of others.
    pub(crate) fn used(&self) -> Result<Used> {
        self.watch.end(self.pid)
    }

    /// The memory until now.
    pub(crate) fn memory(&self, of: &str) -> Result<Row> {
        Ok(row(
            format!("{of}: resident before / at most / after"),
            format!(
                "{} / {} / {}",
                megabytes(self.start_mb),
                megabytes(machine::status_mb(self.pid, "VmHWM:")?),
                megabytes(machine::resident_mb(self.pid)?)
            ),
        ))
    }
}

/// The rate of so many calls, what the server took for each, and how busy it was.
pub(crate) fn rate(calls: u64, used: Used) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "no count here has sixteen digits"
    )]
    let calls = calls.max(1) as f64;
    format!(
        "{:.0}/s; server {:.1} µs each, {:.2} cores",
        calls / used.elapsed_s,
        used.server_s * 1e6 / calls,
        used.server_s / used.elapsed_s
    )
}

/// How long most calls took, and nearly all.
pub(crate) fn tail(served: &Served) -> String {
    let (most, nearly_all) = (served.within_ms(0.5), served.within_ms(0.99));
    match nearly_all < 1000.0 {
        true => format!("{most:.2} / {nearly_all:.2} ms"),
        false => format!("{:.1} / {:.1} s", most / 1000.0, nearly_all / 1000.0),
    }
}

/// The files of a store, in MB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disk {
    pub(crate) database_mb: f64,
    pub(crate) log_mb: f64,
}

impl Disk {
    /// Of the server whose files are in `folder`.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let data = folder.join("data");
        let mut disk = Self::default();
        for entry in std::fs::read_dir(&data).context("no data folder")? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let of = match () {
                () if name.ends_with(".db") => &mut disk.database_mb,
                () if name.ends_with(".db-wal") => &mut disk.log_mb,
                () => continue,
            };
            #[expect(clippy::cast_precision_loss, reason = "a size to be read by people")]
            let bytes = entry.metadata()?.len() as f64;
            *of += bytes / 1e6;
        }
        Ok(disk)
    }
}

/// Whether a figure goes up over time: by more than a tenth and more than `slack`.
pub(crate) fn trend(values: &[f64], slack: f64) -> &'static str {
    let third = values.len() / 3;
    if third == 0 {
        return "too short to say";
    }
    let first = mean(&values[..third]);
    let last = mean(&values[values.len() - third..]);
    match last - first > slack.max(first * 0.1) {
        true => "grows",
        false => "flat",
    }
}

fn mean(values: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
    let count = values.len() as f64;
    values.iter().sum::<f64>() / count
}
