//! The guards of `bench/counts.rs`: how counts are judged, and how their bounds are read and set.

#[path = "../../bench/counts/bounds.rs"]
mod bounds;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bounds::{
    Bounds, Counts, INSTRUCTIONS_OFF_MAX, Kind, Name, Verdict, bounds_of, compare, report,
    rewritten,
};

const FILE: &str = r#"# Why it is so.
[made]
rustc = "rustc 1.95.0"

# Of a call.
[instructions]
accept = 1000 # The row, and its share of a commit.
typed_call = 120_000

[system_calls.typed_call]
mmap = 0.02
futex = 0.50
"#;

fn counts(counts: &[(Name, f64)]) -> Counts {
    counts.iter().cloned().collect()
}

fn typed_call(count: f64) -> Counts {
    counts(&[(Name::instructions("typed_call"), count)])
}

fn mmap(count: f64) -> Counts {
    counts(&[(Name::system_call("typed_call", "mmap"), count)])
}

#[track_caller]
fn check(bounds: &Counts, found: &Counts, verdict: Verdict) {
    let rows = compare(bounds, found, &Kind::ALL);
    let [row] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!(row.verdict, verdict, "{row:?}");
    let fits = verdict == Verdict::Fits;
    assert_eq!(report(&rows).is_ok(), fits, "{row:?}");
}

#[test]
fn the_file_is_read() {
    let read = Bounds::read(FILE).unwrap();
    assert_eq!(read.made["rustc"], "rustc 1.95.0");
    let expected = counts(&[
        (Name::instructions("accept"), 1000.0),
        (Name::instructions("typed_call"), 120_000.0),
        (Name::system_call("typed_call", "futex"), 0.5),
        (Name::system_call("typed_call", "mmap"), 0.02),
    ]);
    assert_eq!(read.counts, expected);
}

#[test]
fn a_line_that_makes_no_sense_is_named() {
    for (bad, why) in [
        ("[instructions]\naccept", "neither section nor value"),
        ("[instructions\n", "no end"),
        ("[instructions]\naccept = many", "accept = many"),
        ("[instructions]\naccept = -1", "no bound"),
        ("[instructions]\naccept = NaN", "no bound"),
        (
            "[instructions]\naccept = 1\naccept = 2",
            "line 3: accept = 2: it is set twice",
        ),
        ("accept = 1", "no such section"),
        ("[system_calls]\nmmap = 1", "no such section"),
        ("[cycles]\naccept = 1", "no such section"),
        ("[made]\nrustc = 1", "quotes"),
    ] {
        let error = format!("{:#}", Bounds::read(bad).unwrap_err());
        assert!(error.contains(why), "{bad:?}: {error}");
    }
}

#[test]
fn instructions_may_be_five_percent_off_to_either_side() {
    let bound = typed_call(120_000.0);
    for (off, verdict) in [
        (0.0, Verdict::Fits),
        (0.049, Verdict::Fits),
        (0.051, Verdict::Above),
        (-0.049, Verdict::Fits),
        (-0.051, Verdict::Below),
    ] {
        check(&bound, &typed_call(120_000.0 * (1.0 + off)), verdict);
    }
    assert!((INSTRUCTIONS_OFF_MAX - 0.05).abs() < f64::EPSILON);
}

#[test]
fn system_calls_have_a_bound_above_only() {
    check(&mmap(0.02), &mmap(0.0), Verdict::Fits);
    check(&mmap(0.02), &mmap(0.02), Verdict::Fits);
    check(&mmap(0.02), &mmap(0.021), Verdict::Above);
    check(&mmap(0.02), &mmap(1.0), Verdict::Above);
}

#[test]
fn what_is_missing_on_either_side_fails() {
    let none = Counts::new();
    check(&typed_call(1.0), &none, Verdict::Uncounted);
    check(&none, &typed_call(1.0), Verdict::Unbounded);
    check(&mmap(1.0), &none, Verdict::Uncounted);
    // Unless its kind was not asked for.
    assert_eq!(compare(&mmap(1.0), &none, &[Kind::Instructions]), []);
}

#[test]
fn the_report_says_by_how_much() {
    let bounds: Counts = typed_call(100_000.0)
        .into_iter()
        .chain(mmap(0.02))
        .collect();
    let found: Counts = typed_call(106_000.0).into_iter().chain(mmap(1.5)).collect();
    let text = report(&compare(&bounds, &found, &Kind::ALL)).unwrap_err();
    assert_eq!(
        text,
        "| count | bound | found | |\n|---|---|---|---|\n\
         | typed_call: instructions | 100000 | 106000 | **above** by +6.0 % |\n\
         | typed_call: mmap | 0.02 | 1.50 | **above** |\n"
    );
}

#[test]
fn new_bounds_change_nothing_but_their_lines() {
    let found = counts(&[
        (Name::instructions("accept"), 900.4),
        (Name::instructions("tick"), 70.0),
        (Name::system_call("accept", "fsync_per_commit"), 1.0),
        (Name::system_call("typed_call", "mmap"), 0.0),
    ]);
    let new = Bounds {
        made: BTreeMap::from([("rustc".to_owned(), "rustc 1.96.0".to_owned())]),
        counts: bounds_of(&found),
    };
    let text = rewritten(FILE, &new, &Kind::ALL).unwrap();
    let expected = r#"# Why it is so.
[made]
rustc = "rustc 1.96.0"

# Of a call.
[instructions]
accept = 900 # The row, and its share of a commit.
tick = 70

[system_calls.typed_call]
mmap = 0.05

[system_calls.accept]
fsync_per_commit = 1.40
"#;
    assert_eq!(text, expected);
    let read = Bounds::read(&text).unwrap();
    assert!(report(&compare(&read.counts, &found, &Kind::ALL)).is_ok());
    assert_eq!(rewritten(&text, &new, &Kind::ALL).unwrap(), text);
}

#[test]
fn one_kind_alone_leaves_the_other_as_it_was() {
    let new = Bounds {
        made: BTreeMap::new(),
        counts: bounds_of(&mmap(1.0)),
    };
    let text = rewritten(FILE, &new, &[Kind::SystemCalls]).unwrap();
    assert_eq!(
        text,
        FILE.replace("mmap = 0.02", "mmap = 1.15")
            .replace("futex = 0.50\n", "")
    );
}

#[test]
fn every_phase_has_its_bounds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/counts.toml");
    let bounds = Bounds::read(&fs::read_to_string(file).unwrap()).unwrap();
    for tool in ["machine", "rustc", "valgrind"] {
        assert!(bounds.made.contains_key(tool), "{tool}");
    }
    for phase in [
        "accept",
        "finish",
        "http_call",
        "run",
        "tick",
        "typed_call",
        "typed_record",
    ] {
        let bound = bounds.counts.get(&Name::instructions(phase));
        assert!(bound.is_some_and(|bound| *bound > 0.0), "{phase}");
    }
    for phase in ["accept", "execution", "http_call", "typed_call"] {
        for call in [
            "commits",
            "fsync_per_commit",
            "futex",
            "madvise",
            "mmap",
            "mprotect",
            "munmap",
            "other",
        ] {
            let bound = bounds.counts.get(&Name::system_call(phase, call));
            assert!(bound.is_some(), "{phase}: {call}");
        }
    }
}
