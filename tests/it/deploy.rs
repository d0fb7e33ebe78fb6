//! What lies in `deploy/` is about the Pelton that is built: its flags, its variables, the files of the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::binary::{Ran, pelton};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// What `pelton SUBCOMMAND --help` says; fails where there is no such subcommand.
#[track_caller]
fn help(subcommand: &str) -> String {
    let mut command = pelton();
    let ran = Ran::of(command.args([subcommand, "--help"]).output().unwrap());
    ran.code(0).stdout
}

/// The settings of a unit file, by section and name; one of a name in several lines has several values.
#[track_caller]
fn unit(text: &str) -> BTreeMap<(String, String), Vec<String>> {
    let mut settings: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut section = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = Some(name.to_owned());
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let place = (section.clone().expect("a section first"), name.to_owned());
        settings.entry(place).or_default().push(value.to_owned());
    }
    settings
}

/// The flags among some words, `--name=value` and `--name value` alike.
fn flags<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let flags = words.iter().filter(|word| word.starts_with("--"));
    flags
        .map(|flag| flag.split_once('=').map_or(*flag, |(name, _)| name))
        .collect()
}

#[test]
fn the_unit_starts_this_pelton() {
    let text = read("deploy/pelton.service");
    let unit = unit(&text);
    let sections: Vec<_> = unit.keys().map(|(section, _)| section.as_str()).collect();
    for section in ["Unit", "Service", "Install"] {
        assert!(sections.contains(&section), "{sections:?}");
    }
    let of = |name: &str| {
        let found = unit.get(&("Service".to_owned(), name.to_owned()));
        found.unwrap_or_else(|| panic!("no {name}"))[0].clone()
    };
    let start = of("ExecStart");
    let words: Vec<_> = start.split_whitespace().collect();
    let [program, subcommand, rest @ ..] = words.as_slice() else {
        panic!("{start}");
    };
    assert!(Path::new(program).is_absolute(), "{start}");
    assert_eq!(Path::new(program).file_name().unwrap(), "pelton");
    let help = help(subcommand);
    let flags = flags(rest);
    assert!(!flags.is_empty());
    for flag in flags {
        assert!(help.contains(&format!("      {flag}")), "no {flag}: {help}");
    }
    // Where the data folder is: the one that systemd makes.
    let folder = format!("%S/{}", of("StateDirectory"));
    assert!(rest.contains(&folder.as_str()), "{start}");
    assert_eq!(of("UMask"), "0077");
    // A grace of 30 s, and the 25 s in which what is interrupted ends.
    let stop: u64 = of("TimeoutStopSec").parse().unwrap();
    assert!(stop > 55, "{stop}");
    assert!(help.contains("--shutdown-grace-ms"), "{help}");
}

#[test]
fn the_container_is_built_from_what_there_is() {
    let text = read("deploy/Containerfile").replace("\\\n", " ");
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .filter(|words: &Vec<_>| !words.is_empty())
        .collect();
    let all = |what: &'static str| lines.iter().filter(move |words| words[0] == what);
    let mut copied = Vec::new();
    for words in all("COPY") {
        let [sources @ .., _] = &words[1..] else {
            panic!("{words:?}");
        };
        if sources.iter().any(|word| word.starts_with("--from=build")) {
            assert!(sources.contains(&"/src/target/release/pelton"), "{words:?}");
            continue;
        }
        for source in sources {
            assert!(root().join(source).exists(), "no {source}");
            copied.push(*source);
        }
    }
    for needed in ["Cargo.toml", "Cargo.lock", "src", "wit"] {
        assert!(copied.contains(&needed), "{copied:?}");
    }
    // Targets that the manifest names and the image does not copy are made up there.
    let manifest = read("Cargo.toml");
    let run: String = all("RUN").flatten().copied().collect::<Vec<_>>().join(" ");
    let paths = manifest.lines().filter_map(|line| {
        let path = line.strip_prefix("path = \"")?.strip_suffix('"')?;
        Some(path).filter(|path| !path.starts_with("src/"))
    });
    let paths: Vec<_> = paths.collect();
    assert!(!paths.is_empty());
    for path in paths {
        assert!(
            run.contains(path),
            "the image lacks {path}, which cargo asks for"
        );
    }
    let entry = all("ENTRYPOINT").next().unwrap().join(" ");
    assert!(entry.contains("/usr/local/bin/pelton"), "{entry}");
    let subcommand = all("CMD").next().unwrap()[1].trim_matches(['[', ']', '"']);
    let help = help(subcommand);
    for words in all("ENV") {
        for (name, _) in words[1..].iter().map(|word| word.split_once('=').unwrap()) {
            assert!(
                help.contains(&format!("[env: {name}]")),
                "no {name}: {help}"
            );
        }
    }
    for port in all("EXPOSE").flat_map(|words| &words[1..]) {
        assert!(help.contains(&format!(":{port}]")), "no {port}: {help}");
    }
}
