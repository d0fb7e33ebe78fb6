//! The folder of guest functions: complete, and each guest right by its own tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pelton::guests::{ALL, Guest, Kind};

use crate::cases::THROUGH_THE_PLANE;
use crate::support::guests;

/// The first bytes of a component and of a core module: magic, version, layer.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
const CORE_MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

/// Folders that are no guests.
const NO_GUESTS: [&str; 6] = ["http", "sdk", "target", "tests-http", "tests-wasi", "words"];

#[test]
fn every_guest_is_listed() {
    let folders: BTreeSet<String> = fs::read_dir(guests::folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !NO_GUESTS.contains(&name.as_str()))
        .collect();
    let listed: BTreeSet<String> = ALL.iter().map(|guest| guest.name.to_owned()).collect();
    assert_eq!(
        folders, listed,
        "folders on the left, `guests::ALL` on the right"
    );
    let tried: BTreeSet<String> = THROUGH_THE_PLANE.map(str::to_owned).into();
    assert_eq!(
        folders, tried,
        "folders on the left, guests with a test through the plane (cases.rs) on the right"
    );
    let cases = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases.rs"))
        .unwrap();
    for name in tried {
        assert!(
            cases.contains(&format!("with(\"{name}\").await")),
            "no test of cases.rs starts with the guest {name}"
        );
    }
}

#[test]
fn every_guest_has_a_line_a_sample_cases_and_a_test() {
    let readme = fs::read_to_string(guests::folder().join("README.md")).unwrap();
    let tests = text_of_tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"));
    for guest in ALL {
        let name = guest.name;
        let row = format!(
            "| [`{name}`]({name}/{}) | {} |",
            source(guest),
            description(guest)
        );
        assert!(readme.contains(&row), "the README lacks the row: {row}");
        assert!(!guests::sample(name).is_null(), "{name} has no sample");
        let cases = guests::cases(name);
        assert!(!cases.is_empty(), "{name} has no cases");
        for case in cases {
            assert!(case.get("input").is_some(), "no input in {name}'s {case}");
        }
        assert!(
            tests.contains(&format!("\"{name}\"")),
            "no test names the guest {name}"
        );
    }
}

#[test]
fn every_file_is_of_the_kind_that_its_guest_says() {
    for guest in ALL {
        let component = guests::wasm(guest.name);
        assert!(component.starts_with(&COMPONENT), "{}", guest.name);
        match guest.kind {
            Kind::Handler | Kind::Http => assert_eq!(guests::built(guest.name).core, None),
            Kind::Command => {
                assert!(guests::core_wasm(guest.name).starts_with(&CORE_MODULE));
            }
        }
    }
}

#[test]
fn echo_passes_its_own_tests() {
    own_tests_pass("echo");
}

#[test]
fn flaky_passes_its_own_tests() {
    own_tests_pass("flaky");
}

#[test]
fn json_transform_passes_its_own_tests() {
    own_tests_pass("json-transform");
}

#[test]
fn link_check_passes_its_own_tests() {
    own_tests_pass("link-check");
}

#[test]
fn order_intake_passes_its_own_tests() {
    own_tests_pass("order-intake");
}

#[test]
fn roman_numeral_passes_its_own_tests() {
    own_tests_pass("roman-numeral");
}

#[test]
fn slow_passes_its_own_tests() {
    own_tests_pass("slow");
}

#[test]
fn static_site_passes_its_own_tests() {
    own_tests_pass("static-site");
}

#[test]
fn word_stats_passes_its_own_tests() {
    own_tests_pass("word-stats");
}

#[test]
fn word_stats_http_passes_its_own_tests() {
    own_tests_pass("word-stats-http");
}

#[test]
fn word_stats_http3_passes_its_own_tests() {
    own_tests_pass("word-stats-http3");
}

#[test]
fn what_guests_share_passes_its_own_tests() {
    own_tests_pass("pelton-guest");
    own_tests_pass("pelton-guest-http");
    own_tests_pass("words");
}

/// Runs a package's tests where they need no plane: on this machine, from the guests' own workspace.
#[track_caller]
fn own_tests_pass(package: &str) {
    let folder = guests::folder();
    let output = pelton::guests::cargo(&folder)
        .unwrap()
        .args(["test", "--locked", "--quiet", "--package", package])
        .arg("--target-dir")
        .arg(folder.join("target"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{package}:\n{said}\n{complained}");
    assert!(
        !said.contains("running 0 tests"),
        "{package} has no tests:\n{said}"
    );
}

fn source(guest: Guest) -> &'static str {
    match guest.kind {
        Kind::Handler | Kind::Http => "src/lib.rs",
        Kind::Command => "src/main.rs",
    }
}

/// The first line of a guest's source, which describes it.
#[track_caller]
fn description(guest: Guest) -> String {
    let path = guests::folder().join(guest.name).join(source(guest));
    let text = fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap_or_default();
    first
        .strip_prefix("//! ")
        .unwrap_or_else(|| panic!("{} does not start with `//! `", path.display()))
        .to_owned()
}

/// The text of all tests but the support code.
fn text_of_tests(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "support" {
                text.push_str(&text_of_tests(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}
