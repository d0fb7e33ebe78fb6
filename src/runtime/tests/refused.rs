//! Uploads that are refused, each with the reason: what they are not, what they lack, what they can never do.
//!
//! **Invariant:** nothing is kept of a file that was refused.

use super::*;

#[tokio::test]
async fn what_is_not_wasm_is_refused_with_the_reason() {
    let world = World::new();
    world.check_refused(&b""[..], &["the file is empty"]).await;
    world
        .check_refused(&b"\0as"[..], &["ends within the first bytes"])
        .await;
    world
        .check_refused(&b"\0asm\x01\0"[..], &["ends within the first eight bytes"])
        .await;
    world
        .check_refused(
            &b"\0asm\x63\0\0\0"[..],
            &["neither a module (1) nor a component"],
        )
        .await;
    world
        .check_refused(
            &b"PK\x03\x04 a zip file"[..],
            &["does not begin with", r"\0asm"],
        )
        .await;
    world
        .check_refused(IDLE.as_bytes(), &["text form", "wasm-tools parse"])
        .await;
    world
        .check_refused(&b"\n  (component )"[..], &["text form"])
        .await;
    world
        .check_refused(&b"\x7fELF\x02\x01\x01\xc8"[..], &["machine code"])
        .await;
}

#[tokio::test]
async fn truncated_and_invalid_wasm_is_refused_with_the_parsers_reason() {
    let world = World::new();
    let whole = wat::parse_str(IDLE).unwrap();
    for end in 9..whole.len() {
        let refused = world
            .runtime
            .prepare(Bytes::copy_from_slice(&whole[..end]))
            .await
            .unwrap_err();
        // A cut between two sections leaves a shorter file that may be whole.
        assert!(
            matches!(refused, Refused::NotWasm(_) | Refused::Unsupported(_)),
            "{end}: {refused:?}"
        );
    }
    let cut = Bytes::copy_from_slice(&whole[..whole.len() - 1]);
    world
        .check_refused(cut, &["not valid wasm", "at byte"])
        .await;
    // The type of the body is wrong, which only validation finds.
    let invalid = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "_start") (drop (f32.add (i32.const 1) (f32.const 1)))))"#,
    )
    .unwrap();
    let refused = world.runtime.prepare(invalid.into()).await.unwrap_err();
    assert!(
        matches!(&refused, Refused::NotWasm(text) if text.contains("type mismatch")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_file_of_no_shape_is_refused_with_what_was_found_and_expected() {
    let world = World::new();
    world
        .check_wat_refused(
            r#"(module (memory (export "memory") 1) (func (export "handle")))"#,
            &[
                "core module",
                "`memory`, `handle`",
                "Expected one of",
                "`_start`",
            ],
        )
        .await;
    world
        .check_wat_refused(
            r#"(module (func (export "_initialize")))"#,
            &["`_initialize` makes it a library"],
        )
        .await;
    world
        .check_wat_refused(
            r#"(module (func (export "_start")))"#,
            &["no memory named `memory`", "`_start`"],
        )
        .await;
    world
        .check_wat_refused(
            "(component)",
            &["component exports nothing", "Found exports: none"],
        )
        .await;
    let many: String = (0..50)
        .map(|i| format!(r#"(func (export "f{i}"))"#))
        .collect();
    world
        .check_wat_refused(&format!("(module {many})"), &["`f19` and 30 more"])
        .await;
}

#[test]
fn shapes_are_found_in_order() {
    let shape = |exports: &[&str]| {
        let exports: String = exports
            .iter()
            .map(|name| format!(r#"(instance) (export "{name}" (instance 0))"#))
            .collect();
        let wasm = wat::parse_str(format!("(component {exports})")).unwrap();
        shape::Outline::read(&wasm).unwrap().shape().unwrap()
    };
    let by_precedence = [
        ("wasi:http/handler@0.3.2", Shape::Http03),
        ("wasi:http/incoming-handler@0.2.12", Shape::Http02),
        ("pelton:function/handler@0.1.0", Shape::Handler),
        ("wasi:cli/run@0.3.0", Shape::Command03),
        ("wasi:cli/run@0.2.0", Shape::Command02),
    ];
    for (i, (name, expected)) in by_precedence.iter().enumerate() {
        assert_eq!(shape(&[name]), *expected);
        for (lesser, _) in &by_precedence[i + 1..] {
            assert_eq!(shape(&[lesser, name]), *expected, "{lesser} beside {name}");
        }
    }
}

#[tokio::test]
async fn an_export_of_the_right_name_and_another_type_is_refused() {
    let world = World::new();
    for name in [
        "wasi:http/handler@0.3.0",
        "wasi:http/handler@0.3.0-rc-2025-09-16",
        "wasi:http/incoming-handler@0.2.0",
        "wasi:cli/run@0.3.0",
    ] {
        world
            .check_wat_refused(
                &format!(r#"(component (instance) (export "{name}" (instance 0)))"#),
                &["another type", name.split('@').next().unwrap()],
            )
            .await;
    }
}

#[tokio::test]
async fn a_middleware_is_refused() {
    let world = World::new();
    world
        .check_wat_refused(
            r#"(component (import "wasi:http/handler@0.3.0" (instance)))"#,
            &["middleware", "`wasi:http/handler@0.3.0`", "Compose"],
        )
        .await;
}

#[tokio::test]
async fn every_import_that_nobody_provides_is_named() {
    let world = World::new();
    let wat = r#"(module
        (import "env" "memory" (memory 1 2 shared))
        (import "bench" "start" (func))
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_wriet" (func))
        (import "wasi_snapshot_preview2" "fd_read" (func))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let refused = world.prepare(wat).await.unwrap_err();
    let Refused::MissingImports { message, imports } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        imports,
        &[
            "env.memory (a shared memory)",
            "bench.start",
            "wasi_snapshot_preview1.fd_wriet, the nearest that is provided: wasi_snapshot_preview1.fd_write",
            "wasi_snapshot_preview2.fd_read, the nearest that is provided: wasi_snapshot_preview1.fd_read",
        ]
    );
    for import in imports {
        assert!(message.contains(import), "{message}");
    }

    let wat = r#"(component
        (import "wasi:cli/environment@0.4.0" (instance (export "get-arguments" (func (result (list string))))))
        (import "wasi:cli/environment@0.2.4" (instance (export "get-arguments" (func (result (list string))))))
        (import "wasi:io/error@0.2.1" (instance (export "error" (type (sub resource)))))
        (import "wasi:io/mistake@0.2.1" (instance (export "error" (type (sub resource)))))
        (import "spin:config/store" (instance (export "get" (func))))
        (import "types:only/types" (instance (type (record (field "a" u8))) (export "t" (type (eq 0)))))
        (import "log" (func))
        (import "wasi:random/random@0.2.0" (instance
            (export "get-random-u64" (func (result u64))) (export "get-random-byts" (func)) (export "roll" (func))))
        (instance) (export "wasi:cli/run@0.2.0" (instance 7)))"#;
    let refused = world.prepare(wat).await.unwrap_err();
    let Refused::MissingImports { message, imports } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        imports,
        &[
            "wasi:cli/environment@0.4.0, the nearest that is provided: wasi:cli/environment@0.3.0",
            "wasi:io/mistake@0.2.1",
            "spin:config/store",
            "log (a function outside any interface)",
            "wasi:random/random@0.2.0#get-random-byts, the nearest that is provided: \
             wasi:random/random@0.2.0#get-random-bytes",
            "wasi:random/random@0.2.0#roll",
        ]
    );
    for import in imports {
        assert!(message.contains(import), "{message}");
    }
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn every_import_of_another_type_is_named_beside_what_is_missing() {
    let world = World::new();
    let wat = r#"(module
        (type (func)) (type (func (param i32 i32 i32 i32) (result i32))) (type (func (param f64)))
        (import "wasi_snapshot_preview1" "fd_write" (func (type 2)))
        (import "wasi_snapshot_preview1" "fd_read" (func (type 1)))
        (import "wasi_snapshot_preview1" "fd_wriet" (func (type 0)))
        (import "env" "memory" (memory 1))
        (import "wasi_unstable" "sched_yield" (func (type 0)))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let core = [
        "wasi_snapshot_preview1.fd_write (provided with another type)",
        "wasi_snapshot_preview1.fd_wriet, the nearest that is provided: wasi_snapshot_preview1.fd_write",
        "env.memory (a memory)",
        "wasi_unstable.sched_yield (provided with another type)",
    ];
    let resources = r#"
        (import "wasi:io/poll@0.2.3" (instance $poll
            (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))
            (export "[method]pollable.block" (func (param "self" (borrow $p)) (result u8)))
            (export "[method]pollable.wait" (func (param "self" (borrow $p))))))
        (alias export $poll "pollable" (type $pollable))
        (import "some:where/things@1.0.0" (instance $things (export "thing" (type (sub resource)))))
        (alias export $things "thing" (type $thing))
        (import "wasi:clocks/monotonic-clock@0.2.5" (instance $clock
            (alias outer 1 $pollable (type $o)) (export "pollable" (type $q (eq $o)))
            (export "now" (func (result u64)))
            (export "resolution" (func (result u32)))
            (export "subscribe-instant" (func (param "when" u64) (result (own $q))))))
        (import "wasi:cli/environment@0.2.0" (instance $cli
            (export "get-arguments" (func (result (list string))))
            (export "get-environment" (func (result u8)))
            (export "get-env" (func))))
        (import "wasi:random/random@0.2.0" (instance
            (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
            (export "get-random-u64" (func (result string)))))
        (alias export $cli "get-arguments" (func $f))
        (import "log" (func))
        (instance $run) (export "wasi:cli/run@0.2.0" (instance $run))"#;
    let component = [
        "wasi:io/poll@0.2.3#[method]pollable.block (provided with another type)",
        "wasi:io/poll@0.2.3#[method]pollable.wait",
        "some:where/things@1.0.0",
        "wasi:clocks/monotonic-clock@0.2.5#resolution (provided with another type)",
        "wasi:cli/environment@0.2.0#get-env",
        "wasi:cli/environment@0.2.0#get-environment (provided with another type)",
        "wasi:random/random@0.2.0#get-random-u64 (provided with another type)",
        "log (a function outside any interface)",
    ];
    for (wat, expected) in [
        (wat.to_owned(), &core[..]),
        (format!("(component {resources})"), &component[..]),
    ] {
        let refused = world.prepare(&wat).await.unwrap_err();
        let Refused::MissingImports { message, imports } = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(imports, expected);
        for import in imports {
            assert!(message.contains(import), "{message}");
        }
    }
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn imports_without_end_are_counted() {
    let world = World::new();
    let missing: String = (0..150)
        .map(|i| format!(r#"(import "wasi_snapshot_preview1" "fd_write{i}" (func))"#))
        .collect();
    let wat =
        format!(r#"(module {missing} (memory (export "memory") 1) (func (export "_start")))"#);
    let refused = world.prepare(&wat).await.unwrap_err();
    let Refused::MissingImports { message, imports } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(imports.len(), 101);
    for import in &imports[..100] {
        assert!(
            import.ends_with("nearest that is provided: wasi_snapshot_preview1.fd_write"),
            "{import}"
        );
    }
    assert_eq!(imports[100], "and 50 more");
    assert!(message.contains("; and 130 more."), "{message}");
}

#[tokio::test]
async fn an_import_of_the_wrong_type_is_refused() {
    let world = World::new();
    world
        .check_wat_refused(
            r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param f64)))
                (memory (export "memory") 1) (func (export "_start")))"#,
            &["another type", "fd_write"],
        )
        .await;
}

#[tokio::test]
async fn what_can_never_run_is_refused_with_the_number() {
    let world = World::new();
    let start = r#"(memory (export "memory") 1) (func (export "_start"))"#;
    let repeated = |item: &str, count: usize| format!("(module {start} {})", item.repeat(count));
    let numbers = &["needs more than one run may have"];
    world
        .check_wat_refused(&repeated("(memory 1)", 20), &[numbers[0], "21", "20"])
        .await;
    world
        .check_wat_refused(
            &repeated("(table 1 funcref)", 51),
            &[numbers[0], "51", "50"],
        )
        .await;
    world
        .check_wat_refused(
            &repeated("(table 100001 funcref)", 1),
            &[numbers[0], "100001", "100000"],
        )
        .await;
    world
        .check_wat_refused(
            r#"(module (memory (export "memory") i64 65537) (func (export "_start")))"#,
            &[numbers[0], "4295032832", "0x100000000"],
        )
        .await;
    world
        .check_wat_refused(
            &format!("(module {start} (memory 1 1 shared))"),
            &["shared"],
        )
        .await;
}
