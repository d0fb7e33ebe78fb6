//! Files of wasm that were damaged, or that claim to hold more than they do: read without a panic, and without
//! taking what they claim for what they are.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::runtime::Refused;
use crate::runtime::shape::Outline;

/// Bytes of a refusal's text at most.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Reads, judges and checks a file, as the compiler does before it compiles.
fn read(wasm: &[u8]) -> Result<(), Refused> {
    let mut outline = Outline::read(wasm)?;
    outline.shape()?;
    outline.validate(wasm).map(drop)
}

fn judge(wasm: &[u8]) -> Result<(), TestCaseError> {
    match read(wasm) {
        Ok(()) => Ok(()),
        Err(Refused::NotWasm(text) | Refused::Unsupported(text)) => {
            prop_assert!(!text.is_empty());
            prop_assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes", text.len());
            Ok(())
        }
        Err(other) => Err(TestCaseError::fail(format!("{other:?}"))),
    }
}

fn samples() -> Vec<Vec<u8>> {
    [
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
            (memory (export "memory") 1) (table 3 funcref) (global (mut i64) (i64.const 7))
            (data (i32.const 0) "some bytes") (elem (i32.const 0) func 1)
            (func (export "_start") (call 0 (i32.const 3))))"#,
        r#"(component
            (import "wasi:cli/stdin@0.2.0" (instance (export "get-stdin" (func))))
            (core module $m (func (export "run") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $e (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $e)))"#,
        r#"(component (type (instance (export "r" (type (sub resource)))))
            (import "pelton:function/host@0.1.0" (instance (type 0)))
            (component (core module)) (core module))"#,
    ]
    .map(|text| wat::parse_str(text).unwrap())
    .to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_read_or_refused(
        sample in prop::sample::select(samples()),
        damages in prop::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..8),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut bytes = sample;
        for (at, byte, how) in damages {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] ^= byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                // A length or count that says four billion.
                _ => drop(bytes.splice(at..=at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
            }
            if bytes.is_empty() {
                break;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        judge(&bytes)?;
    }

    #[test]
    fn any_bytes_behind_a_header_are_read_or_refused(
        component: bool,
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let header: &[u8] = if component { b"\0asm\x0d\0\x01\0" } else { b"\0asm\x01\0\0\0" };
        judge(&[header, &rest].concat())?;
    }
}

#[test]
fn a_section_that_claims_four_billion_items_is_refused_at_its_first_missing_one() {
    for header in [&b"\0asm\x01\0\0\0"[..], b"\0asm\x0d\0\x01\0"] {
        for section in 1..=13 {
            // The section has five bytes: the count alone.
            let body = [section, 5, 0xff, 0xff, 0xff, 0xff, 0x0f];
            let refused = read(&[header, &body].concat()).unwrap_err();
            let told = matches!(refused, Refused::NotWasm(_) | Refused::Unsupported(_));
            assert!(told, "section {section}: {refused:?}");
        }
    }
}

#[test]
fn many_names_make_no_long_message() {
    let exports: String = (0..20_000)
        .map(|name| format!("(func (export \"{name:060}\"))"))
        .collect();
    let wasm = wat::parse_str(format!("(module {exports})")).unwrap();
    let refused = read(&wasm).unwrap_err().to_string();
    assert!(refused.len() <= TEXT_BYTES_MAX, "{} bytes", refused.len());
}
