use std::cell::Cell;

use super::*;
use crate::runtime::engine::{self, Flavor};
use crate::runtime::host::Linkers;

/// Tries with what guests of the engine that has everything may import.
fn with_all<T>(check: impl FnOnce(Provided<'_>) -> T) -> T {
    let engine = engine::compiling(Flavor::Async).unwrap();
    let linkers = Linkers::new(&engine, Flavor::Async).unwrap();
    check(Provided {
        engine: &engine,
        linkers: &linkers,
        asks_left: &Cell::new(u32::MAX),
    })
}

#[test]
fn after_so_many_questions_the_rest_is_left_to_the_linker() {
    with_all(|provided| {
        let asks_left = Cell::new(2);
        let provided = Provided {
            asks_left: &asks_left,
            ..provided
        };
        let asked = |name| provided.has_function("wasi_snapshot_preview1", name);
        assert_eq!([asked("fd_write"), asked("fd_fly")], [true, false]);
        assert!(provided.is_spent());
        assert!(
            asked("fd_fly") && provided.has_item("no:such/interface", &Item::Function("f".into()))
        );
    });
}

#[test]
fn whatever_is_known_is_provided_in_some_version() {
    with_all(|provided| {
        for known in &KNOWN {
            for item in known.items() {
                let versions = VERSIONS.iter();
                let mut names = versions.map(|version| format!("{}@{version}", known.name()));
                let is_provided = names.any(|name| provided.has_item(&name, &item));
                assert!(is_provided, "{} {item:?}", known.name());
            }
            assert!(!known.items().is_empty());
        }
        for preview in PREVIEWS {
            for name in PREVIEW_FUNCTIONS {
                // One function came later than the module of the old name.
                let is_newer = preview == "wasi_unstable" && name == "sock_accept";
                assert_eq!(
                    provided.has_function(preview, name),
                    !is_newer,
                    "{preview}.{name}"
                );
            }
        }
    });
}

fn function(name: &str) -> Item {
    Item::Function(name.to_owned())
}

fn resource(name: &str) -> Item {
    Item::Resource(name.to_owned())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a row for each case")]
fn an_interface_has_its_nearest() {
    with_all(|provided| {
        for (import, items, nearest) in [
            // Another version, of either line.
            (
                "wasi:cli/environment@0.4.0",
                vec![function("get-arguments")],
                Some("wasi:cli/environment@0.3.0"),
            ),
            (
                "wasi:cli/environment@0.4.0",
                vec![function("initial-cwd")],
                Some("wasi:cli/environment@0.2.0"),
            ),
            (
                "wasi:cli/environment@0.2.0-rc-2023-11-10",
                vec![function("get-arguments")],
                Some("wasi:cli/environment@0.2.0"),
            ),
            (
                "wasi:cli/environment@0.1.0",
                vec![function("get-arguments")],
                Some("wasi:cli/environment@0.2.0"),
            ),
            (
                "wasi:cli/environment@next",
                vec![function("get-arguments")],
                Some("wasi:cli/environment@0.2.0"),
            ),
            (
                "wasi:http/types@0.4.0",
                vec![resource("fields")],
                Some("wasi:http/types@0.3.0"),
            ),
            (
                "wasi:random/random@0.3.0-rc-2025-09-16",
                vec![function("get-random-u64")],
                Some("wasi:random/random@0.3.0"),
            ),
            (
                "wasi:random/random@0.4.0",
                vec![function("get-random-u64")],
                Some("wasi:random/random@0.3.0"),
            ),
            (
                "wasi:random/random@1.0.0",
                vec![function("get-random-u64")],
                Some("wasi:random/random@0.3.0"),
            ),
            (
                "wasi:random/random@99999999999.0.0",
                vec![function("get-random-u64")],
                Some("wasi:random/random@0.2.0"),
            ),
            (
                "wasi:cli/environment",
                vec![function("get-initial-cwd")],
                Some("wasi:cli/environment@0.3.0"),
            ),
            (
                "wasi:cli/stdin@1.0.0",
                vec![function("read-via-stream")],
                Some("wasi:cli/stdin@0.3.0"),
            ),
            (
                "wasi:http/client@0.4.0",
                vec![function("send")],
                Some("wasi:http/client@0.3.0"),
            ),
            (
                "wasi:http/outgoing-handler@0.3.0",
                vec![function("handle")],
                Some("wasi:http/outgoing-handler@0.2.0"),
            ),
            (
                "wasi:io/streams@0.3.0",
                vec![resource("input-stream")],
                Some("wasi:io/streams@0.2.0"),
            ),
            (
                "wasi:config/store@0.2.0",
                vec![function("get")],
                Some("wasi:config/store@0.2.0-rc.1"),
            ),
            (
                "wasi:logging/logging@0.2.0",
                vec![function("log")],
                Some("wasi:logging/logging@0.1.0-draft"),
            ),
            // Another name, with what it is asked for, or without.
            (
                "wasi:clock/monotonic-clock@0.2.0",
                vec![function("now")],
                Some("wasi:clocks/monotonic-clock@0.2.0"),
            ),
            (
                "wasi:random/randon@0.3.0",
                vec![function("get-random-u64")],
                Some("wasi:random/random@0.3.0"),
            ),
            (
                "wasi:io/stream@0.2.3",
                vec![resource("output-stream")],
                Some("wasi:io/streams@0.2.3"),
            ),
            (
                "wasi:clocks/wallclock@0.2.0",
                vec![function("what-time")],
                Some("wasi:clocks/wall-clock@0.2.0"),
            ),
            // The right interface and nothing in it that there is.
            (
                "wasi:random/random@0.1.0",
                vec![function("roll")],
                Some("wasi:random/random@0.2.0"),
            ),
            // Nothing is near.
            ("wasi:io/mistake@0.2.1", vec![resource("error")], None),
            (
                "wasi:keyvalue/store@0.2.0-draft",
                vec![function("open")],
                None,
            ),
            ("spin:config/store", vec![function("get")], None),
            ("fermyon:spin/variables@2.0.0", vec![function("get")], None),
            ("a", vec![function("get")], None),
        ] {
            let found = of_interface(provided, import, &items);
            assert_eq!(found.as_deref(), nearest, "{import}");
        }
        let long = format!("wasi:cli/{}@0.2.0", "x".repeat(100_000));
        assert_eq!(of_interface(provided, &long, &[function("get")]), None);
    });
}

#[test]
fn a_function_has_its_nearest() {
    with_all(|provided| {
        for (interface, function, nearest) in [
            (
                "wasi:random/random@0.2.3",
                "get-random-byts",
                Some("wasi:random/random@0.2.3#get-random-bytes"),
            ),
            (
                "wasi:cli/environment@0.3.0",
                "initial-cwd",
                Some("wasi:cli/environment@0.3.0#get-initial-cwd"),
            ),
            (
                "wasi:cli/environment@0.2.0",
                "get-initial-cwd",
                Some("wasi:cli/environment@0.2.0#initial-cwd"),
            ),
            (
                "wasi:clocks/monotonic-clock@0.3.0",
                "subscribe-duration",
                Some("wasi:clocks/monotonic-clock@0.2.0#subscribe-duration"),
            ),
            ("wasi:random/random@0.2.0", "roll", None),
        ] {
            let found = of_function(provided, interface, function);
            assert_eq!(found.as_deref(), nearest, "{interface}#{function}");
        }
        for (module, name, nearest) in [
            (
                "wasi_snapshot_preview2",
                "fd_read",
                Some("wasi_snapshot_preview1.fd_read"),
            ),
            ("env", "fd_write", Some("wasi_snapshot_preview1.fd_write")),
            (
                "wasi_unstable",
                "sock_accept",
                Some("wasi_snapshot_preview1.sock_accept"),
            ),
            (
                "wasi_snapshot_preview1",
                "fd_wriet",
                Some("wasi_snapshot_preview1.fd_write"),
            ),
            (
                "wasi_unstable",
                "path_opne",
                Some("wasi_unstable.path_open"),
            ),
            ("wasi", "thread-spawn", None),
            ("bench", "fd_wriet", None),
        ] {
            let found = of_core_function(provided, module, name);
            assert_eq!(found.as_deref(), nearest, "{module}.{name}");
        }
    });
}
