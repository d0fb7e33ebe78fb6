//! What is provided and comes nearest to an import that is not: the same in another version or preview, or what its
//! author meant and misspelt.
//!
//! **Invariant:** nothing is suggested that the linkers do not have.

use super::provided::Provided;
use crate::runtime::host::PREVIEWS;
use crate::runtime::shape::{Import, ImportKind, Item};

/// Versions in which the interfaces of WASI were published and that somebody may have; of two that are as near, the first
/// is suggested.
const VERSIONS: [&str; 6] = [
    "0.2.0",
    "0.3.0",
    "0.1.0",
    "0.2.0-rc.1",
    "0.1.0-draft",
    "0.2.0-draft",
];
/// How alike two names are, at least, of which one may be meant by the other.
const LIKENESS_MIN: f64 = 0.7;
/// Longer names are not compared: no interface has one.
const NAME_BYTES_MAX: usize = 80;

/// An interface that may be meant, and what it has: names to be tried.
struct Known {
    package: &'static str,
    interface: &'static str,
    functions: &'static [&'static str],
    resources: &'static [&'static str],
}

const fn known(
    package: &'static str,
    interface: &'static str,
    functions: &'static [&'static str],
    resources: &'static [&'static str],
) -> Known {
    Known {
        package,
        interface,
        functions,
        resources,
    }
}

/// The interfaces of WASI 0.2 and 0.3, and those beside it.
#[rustfmt::skip]
const KNOWN: [Known; 35] = [
    known("wasi:cli", "environment", &["get-environment", "get-arguments", "initial-cwd", "get-initial-cwd"], &[]),
    known("wasi:cli", "exit", &["exit"], &[]),
    known("wasi:cli", "stdin", &["get-stdin", "read-via-stream"], &[]),
    known("wasi:cli", "stdout", &["get-stdout", "write-via-stream"], &[]),
    known("wasi:cli", "stderr", &["get-stderr", "write-via-stream"], &[]),
    known("wasi:cli", "terminal-input", &[], &["terminal-input"]),
    known("wasi:cli", "terminal-output", &[], &["terminal-output"]),
    known("wasi:cli", "terminal-stdin", &["get-terminal-stdin"], &[]),
    known("wasi:cli", "terminal-stdout", &["get-terminal-stdout"], &[]),
    known("wasi:cli", "terminal-stderr", &["get-terminal-stderr"], &[]),
    known("wasi:clocks", "monotonic-clock", &["now", "resolution", "subscribe-instant", "subscribe-duration", "get-resolution", "wait-until", "wait-for"], &[]),
    known("wasi:clocks", "wall-clock", &["now", "resolution"], &[]),
    known("wasi:clocks", "system-clock", &["now", "get-resolution"], &[]),
    known("wasi:config", "store", &["get", "get-all"], &[]),
    known("wasi:config", "runtime", &["get", "get-all"], &[]),
    known("wasi:filesystem", "preopens", &["get-directories"], &[]),
    known("wasi:filesystem", "types", &["filesystem-error-code"], &["descriptor", "directory-entry-stream"]),
    known("wasi:http", "types", &["http-error-code"], &["fields", "incoming-request", "outgoing-response", "request", "response"]),
    known("wasi:http", "outgoing-handler", &["handle"], &[]),
    known("wasi:http", "client", &["send"], &[]),
    known("wasi:io", "error", &[], &["error"]),
    known("wasi:io", "poll", &["poll"], &["pollable"]),
    known("wasi:io", "streams", &[], &["input-stream", "output-stream"]),
    known("wasi:logging", "logging", &["log"], &[]),
    known("wasi:random", "random", &["get-random-bytes", "get-random-u64"], &[]),
    known("wasi:random", "insecure", &["get-insecure-random-bytes", "get-insecure-random-u64"], &[]),
    known("wasi:random", "insecure-seed", &["insecure-seed", "get-insecure-seed"], &[]),
    known("wasi:sockets", "instance-network", &["instance-network"], &[]),
    known("wasi:sockets", "ip-name-lookup", &["resolve-addresses"], &["resolve-address-stream"]),
    known("wasi:sockets", "network", &[], &["network"]),
    known("wasi:sockets", "tcp", &[], &["tcp-socket"]),
    known("wasi:sockets", "tcp-create-socket", &["create-tcp-socket"], &[]),
    known("wasi:sockets", "types", &[], &["tcp-socket", "udp-socket"]),
    known("wasi:sockets", "udp", &[], &["udp-socket"]),
    known("wasi:sockets", "udp-create-socket", &["create-udp-socket"], &[]),
];

/// The functions of preview 1.
const PREVIEW_FUNCTIONS: [&str; 46] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

impl Known {
    fn items(&self) -> Vec<Item> {
        let functions = self
            .functions
            .iter()
            .map(|name| Item::Function((*name).to_owned()));
        let resources = self
            .resources
            .iter()
            .map(|name| Item::Resource((*name).to_owned()));
        functions.chain(resources).collect()
    }

    fn name(&self) -> String {
        format!("{}/{}", self.package, self.interface)
    }
}

/// What comes nearest to an import that nobody provides.
pub(super) fn of_import(provided: Provided<'_>, import: &Import) -> Option<String> {
    match (&import.module, import.kind) {
        (_, ImportKind::Other(_)) => None,
        (Some(module), _) => of_core_function(provided, module, &import.name),
        (None, _) => of_interface(provided, &import.name, &import.items),
    }
}

/// The same function of another preview, or the one that may be meant.
fn of_core_function(provided: Provided<'_>, module: &str, name: &str) -> Option<String> {
    let found = |module: &str, name: &str| {
        let is_provided = provided.has_function(module, name);
        is_provided.then(|| format!("{module}.{name}"))
    };
    let mut others = PREVIEWS.iter().filter(|preview| **preview != module);
    if PREVIEW_FUNCTIONS.contains(&name) {
        return others.find_map(|preview| found(preview, name));
    }
    let preview = PREVIEWS.iter().find(|preview| **preview == module);
    let preview = preview.or_else(|| module.starts_with("wasi").then_some(&PREVIEWS[0]))?;
    found(preview, nearest(name, PREVIEW_FUNCTIONS)?)
}

/// The same interface in another version, or the one that may be meant.
fn of_interface(provided: Provided<'_>, import: &str, items: &[Item]) -> Option<String> {
    let (name, version) = split(import);
    let known = KNOWN.iter().find(|known| known.name() == name);
    let in_any_version = |name: &str, items: &[Item]| {
        let versions = version.into_iter().chain(nearest_versions(version));
        versions
            .map(|version| format!("{name}@{version}"))
            .find(|name| !items.is_empty() && provided.has_interface(name, items))
    };
    // What the file wants of it says more than its name.
    if let Some(same) = in_any_version(name, items) {
        return Some(same);
    }
    let meant = match known {
        Some(known) => known,
        None => meant(name)?,
    };
    in_any_version(&meant.name(), items).or_else(|| in_any_version(&meant.name(), &meant.items()))
}

/// The function of the same interface that may be meant, or this one where another version has it.
pub(super) fn of_function(
    provided: Provided<'_>,
    interface: &str,
    function: &str,
) -> Option<String> {
    let (name, version) = split(interface);
    let found = |interface: &str, function: &str| {
        let is_provided = provided.has_item(interface, &Item::Function(function.to_owned()));
        is_provided.then(|| format!("{interface}#{function}"))
    };
    let known = KNOWN.iter().find(|known| known.name() == name);
    let mut alike = known.map(|known| alike(function, known.functions.iter().copied()));
    let mut alike = alike.iter_mut().flatten();
    alike.find_map(|meant| found(interface, meant)).or_else(|| {
        let versions = nearest_versions(version).into_iter();
        let others = versions.map(|version| format!("{name}@{version}"));
        let mut others = others.filter(|other| other != interface);
        others.find_map(|other| found(&other, function))
    })
}

/// The name of an interface and its version, if it has one.
fn split(interface: &str) -> (&str, Option<&str>) {
    match interface.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (interface, None),
    }
}

/// The known versions, the nearest to this one first.
fn nearest_versions(version: Option<&str>) -> [&'static str; VERSIONS.len()] {
    let mut versions = VERSIONS;
    if let Some(asked) = version.and_then(numbers) {
        versions.sort_by_key(|version| numbers(version).map(|known| distance(asked, known)));
    }
    versions
}

/// How far two versions are from each other: what comes first counts more than all that comes after it.
fn distance(a: [u32; 3], b: [u32; 3]) -> u128 {
    let place = |[major, minor, patch]: [u32; 3]| {
        (u128::from(major) << 64) + (u128::from(minor) << 32) + u128::from(patch)
    };
    place(a).abs_diff(place(b))
}

/// Major, minor and patch; what is a draft or a candidate of a version is as near as that.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let mut parts = version[..end].split('.').map(str::parse);
    let numbers = [
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    ];
    parts.next().is_none().then_some(numbers)
}

/// The interface that is meant by a name that there is not.
fn meant(name: &str) -> Option<&'static Known> {
    let (package, interface) = name.split_once('/')?;
    let likeness = |known: &Known| {
        // Packages are few and their names short: both parts have to be alike.
        likeness(package, known.package).min(likeness(interface, known.interface))
    };
    let all = KNOWN.iter().map(|known| (likeness(known), known));
    let alike = all.filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    let nearest = alike.max_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest.map(|(_, known)| known)
}

fn nearest(name: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    alike(name, known).into_iter().next()
}

/// Those that are alike, the most alike first.
fn alike(name: &str, known: impl IntoIterator<Item = &'static str>) -> Vec<&'static str> {
    let all = known
        .into_iter()
        .map(|known| (likeness(name, known), known));
    let mut alike: Vec<_> = all
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    alike.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    alike.into_iter().map(|(_, known)| known).collect()
}

fn likeness(name: &str, known: &str) -> f64 {
    if name.len() > NAME_BYTES_MAX {
        return 0.0;
    }
    strsim::normalized_damerau_levenshtein(name, known)
}

#[cfg(test)]
mod tests;
