//! What guests find under every version of what they import and export.

use std::cell::Cell;
use std::fmt::Write as _;

use bytes::Bytes;

use super::renamed::renamed;
use super::{COLUMNS, Column, ROWS, ask};
use crate::support::probes::Probe;

/// The lines of WASI that shapes are of, and the last patch of each.
const LINES: [(Probe, &str, u32); 5] = [
    (Probe::Command02, "0.2", 12),
    (Probe::Handler, "0.2", 12),
    (Probe::Http02, "0.2", 12),
    (Probe::Command03, "0.3", 2),
    (Probe::Http03, "0.3", 2),
];

/// Interfaces beside those lines: the name under which the guests were built, and others for the same.
const BESIDE: [(&str, &str); 4] = [
    (
        "wasi:config/store@0.2.0-rc.1",
        "wasi:config/store@0.2.0-rc.1",
    ),
    (
        "wasi:config/store@0.2.0-rc.1",
        "wasi:config/store@0.2.0-draft",
    ),
    (
        "wasi:config/store@0.2.0-rc.1",
        "wasi:config/runtime@0.2.0-draft",
    ),
    (
        "wasi:logging/logging@0.1.0-draft",
        "wasi:logging/logging@0.1.0-draft",
    ),
];

/// The guest with every interface of a line of WASI in one version.
fn in_version(probe: Probe, line: &str, version: &str) -> Bytes {
    let line = format!("{line}.");
    let renames = Cell::new(0);
    let wasm = renamed(&probe.wasm(), |name| {
        let (interface, built) = name.strip_prefix("wasi:")?.split_once('@')?;
        // What is a draft of a version is no patch of it.
        built.strip_prefix(&*line)?.parse::<u32>().ok()?;
        renames.set(renames.get() + 1);
        Some(format!("wasi:{interface}@{version}"))
    });
    assert!(renames.get() > 1, "{probe:?} {version}");
    wasm
}

fn with_name(probe: Probe, built: &str, name: &str) -> Bytes {
    let renames = Cell::new(0);
    let wasm = renamed(&probe.wasm(), |import| {
        (import == built).then(|| {
            renames.set(renames.get() + 1);
            name.to_owned()
        })
    });
    assert_eq!(renames.get(), 1, "{probe:?} {built}");
    wasm
}

fn column(probe: Probe) -> (usize, &'static Column) {
    let mut columns = COLUMNS.iter().enumerate();
    columns.find(|(_, column)| column.probe == probe).unwrap()
}

/// What a file finds otherwise than the guest of its shape that was not changed.
async fn differences(wasm: Bytes, column: &Column, unchanged: &[String]) -> String {
    let seen = ask(column, wasm).await;
    let differences = ROWS
        .iter()
        .zip(unchanged)
        .filter_map(|((title, say), before)| {
            let now = say(&seen);
            (now != *before).then(|| format!("{title}: {now}"))
        });
    let differences: Vec<_> = differences.collect();
    match differences.is_empty() {
        true => "all of the above".to_owned(),
        false => format!("all of the above but {}", differences.join("; ")),
    }
}

/// The rows of the table, of shapes in their versions; `cells` is what the unchanged guests found, a list for each column.
pub(super) async fn rows(cells: &[Vec<String>]) -> String {
    let mut page = String::new();
    for (probe, line, last) in LINES {
        let (number, column) = column(probe);
        // Versions in a row that find the same stand together.
        let mut groups: Vec<(Vec<String>, String)> = Vec::new();
        for patch in 0..=last {
            let version = format!("{line}.{patch}");
            let wasm = in_version(probe, line, &version);
            let found = differences(wasm, column, &cells[number]).await;
            match groups.last_mut() {
                Some((versions, same)) if *same == found => versions.push(version),
                _ => groups.push((vec![version], found)),
            }
        }
        for (versions, found) in groups {
            let versions = versions.join(", ");
            let _ = writeln!(page, "| {} | `wasi:*` {versions} | {found} |", column.title);
        }
    }
    for (built, name) in BESIDE {
        for probe in [Probe::Handler, Probe::Http03] {
            let (number, column) = column(probe);
            let wasm = with_name(probe, built, name);
            let found = differences(wasm, column, &cells[number]).await;
            let _ = writeln!(page, "| {} | `{name}` | {found} |", column.title);
        }
    }
    page
}
