//! The machine: room for the pool of guests, what the kernel can do, open files, Rust's targets.
//!
//! **Invariant:** asks by doing: the pool is really reserved for a moment, with the limits of a plane.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Resource, getrlimit};

use super::{Finding, size};
use crate::config::Limits;
use crate::runtime::{self, Wipe};

/// Files that a plane has open beside its connections.
const FILES_BESIDE: u64 = 512;
/// What the example functions are built for.
const TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-wasip1"];

/// Checks this machine.
pub(super) fn examine(limits: &Limits) -> Vec<Finding> {
    let mut findings = pool(limits.guests_max);
    findings.extend([overcommit(), files(limits), targets()]);
    findings
}

fn pool(guests_max: u32) -> Vec<Finding> {
    let report = match runtime::probe(guests_max) {
        Ok(report) => report,
        Err(error) => {
            return vec![Finding::fail(
                "address space",
                format!(
                    "{error}; {}: raise it (ulimit -v unlimited, LimitAS=infinity)",
                    address_limit()
                ),
            )];
        }
    };
    let text = format!(
        "{} guests at once, {} reserved; {}",
        report.guests,
        size(report.reserved_bytes),
        address_limit()
    );
    let room = if report.guests < guests_max {
        let advice = "raise the limit of address space (LimitAS=infinity), or lower --guests-max";
        Finding::warn(
            "address space",
            format!("{text}; {guests_max} were asked for: {advice}"),
        )
    } else {
        Finding::ok("address space", text)
    };
    let text = format!("slots are wiped by {}", report.wipe);
    let wipe = match report.wipe {
        Wipe::TouchedPages => Finding::ok("kernel", text),
        Wipe::AllPages { .. } => Finding::warn(
            "kernel",
            format!(
                "{text}: calls are slower; Linux 6.7 or newer, and no swap for this process (MemorySwapMax=0), make them fast"
            ),
        ),
    };
    vec![room, wipe]
}

fn address_limit() -> String {
    match getrlimit(Resource::As).current {
        None => "the limit of address space is none".to_owned(),
        Some(limit) => format!("the limit of address space is {}", size(limit)),
    }
}

fn overcommit() -> Finding {
    let subject = "overcommit";
    match fs::read_to_string("/proc/sys/vm/overcommit_memory") {
        Ok(mode) if mode.trim() == "2" => Finding::warn(
            subject,
            "vm.overcommit_memory is 2: large reservations may be refused; 0 or 1 fits a pool of guests",
        ),
        Ok(mode) => Finding::ok(subject, format!("vm.overcommit_memory is {}", mode.trim())),
        Err(error) => Finding::ok(subject, format!("cannot be read ({error})")),
    }
}

fn files(limits: &Limits) -> Finding {
    let subject = "open files";
    // A POOL call has a connection of its own.
    let needed = u64::from(limits.connections_max)
        .saturating_add(u64::from(limits.endpoint_calls_max))
        .saturating_add(FILES_BESIDE);
    // A plane raises its own limit as far as it may.
    match getrlimit(Resource::Nofile).maximum {
        None => Finding::ok(subject, "no limit"),
        Some(limit) if limit >= needed => {
            Finding::ok(subject, format!("{limit} may be open, {needed} are enough"))
        }
        Some(limit) => Finding::warn(
            subject,
            format!(
                "{limit} may be open, and {needed} are needed at full load: ulimit -Hn {needed} (LimitNOFILE={needed}), or lower --connections-max"
            ),
        ),
    }
}

/// Only those who build functions need them.
fn targets() -> Finding {
    let subject = "wasm targets";
    let has = |target: &str| {
        let mut rustc = Command::new("rustc");
        rustc.args(["--print", "target-libdir", "--target", target]);
        let asked = rustc
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let folder = String::from_utf8(asked.stdout).ok()?;
        Some(asked.status.success() && fs::metadata(folder.trim()).is_ok())
    };
    let mut missing = Vec::new();
    for target in TARGETS {
        match has(target) {
            None => {
                return Finding::ok(
                    subject,
                    "no rustc here; it is needed only to build functions in Rust",
                );
            }
            Some(true) => {}
            Some(false) => missing.push(target),
        }
    }
    if missing.is_empty() {
        return Finding::ok(subject, TARGETS.join(", "));
    }
    let missing = missing.join(" ");
    Finding::ok(
        subject,
        format!("to build the example functions: rustup target add {missing}"),
    )
}
