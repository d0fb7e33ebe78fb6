//! The shape of the code, read from its own text: who may import whom, what every file must have.
//!
//! **Invariant:** a rule stands here as data; whoever breaks it is told the file, the rule and the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Modules under `src/` by layer: code imports from lower layers only.
const LAYERS: [(&str, u8); 23] = [
    ("model", 0),
    ("clock", 0),
    ("json", 0),
    ("folder", 0),
    ("answer", 1),
    ("execution", 1),
    ("net", 1),
    ("store", 2),
    ("runtime", 2),
    ("endpoint", 2),
    ("observe", 2),
    ("shutdown", 2),
    ("guests", 2),
    ("scheduler", 3),
    ("registry", 3),
    ("secrets", 3),
    ("api", 4),
    ("console", 4),
    ("config", 5),
    ("app", 5),
    ("cli", 6),
    ("testing", 6),
    ("main", 6),
];

/// Who may import whom within one layer.
const NEIGHBOURS: [(&str, &str); 7] = [
    ("cli", "testing"),
    ("clock", "model"),
    ("scheduler", "registry"),
    ("scheduler", "secrets"),
    ("registry", "secrets"),
    ("app", "config"),
    ("main", "cli"),
];

/// Dependencies with one home: what the name stands for must not leak into the rest.
const HOMES: [(&str, &[&str]); 7] = [
    ("wasmtime", &["runtime"]),
    ("wasmtime_wasi", &["runtime"]),
    ("wasmtime_wasi_http", &["runtime"]),
    ("rusqlite", &["store"]),
    ("axum", &["api", "console"]),
    ("anyhow", &["cli", "app", "testing", "main"]),
    ("clap", &["cli", "config"]),
];

/// What a module's code must not name at all.
const STRANGERS: [(&str, &[&str]); 4] = [
    ("model", &["serde", "Serialize", "Deserialize", "tokio"]),
    ("execution", &["serde", "Serialize", "Deserialize", "tokio"]),
    ("scheduler", &["reqwest", "hyper", "http"]),
    ("registry", &["reqwest", "hyper", "http"]),
];

const FILE_LINES_MAX: usize = 500;

/// A source file of the package.
struct Source {
    /// Relative to the repository's root.
    path: PathBuf,
    /// The module directly under `src/` that it belongs to; `lib` and `main` for themselves.
    module: String,
    text: String,
    /// The text without comments, and without string and character literals.
    code: String,
    /// Whether it is compiled for tests only.
    is_test: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                files_below(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join("src"), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    let mut sources: Vec<Source> = paths.iter().map(|path| read(path)).collect();
    let tests = test_only(&sources);
    for source in &mut sources {
        let stem = source.path.with_extension("");
        let named_so = stem
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .ends_with("tests");
        source.is_test = named_so || stem.ancestors().any(|part| tests.contains(part));
    }
    assert!(sources.len() > 20, "found no sources to look at");
    sources
}

fn read(path: &Path) -> Source {
    let relative = path.strip_prefix(root()).unwrap().to_owned();
    let below = relative.strip_prefix("src").unwrap().with_extension("");
    let module = below.components().next().unwrap();
    let text = fs::read_to_string(path).unwrap();
    Source {
        module: module.as_os_str().to_str().unwrap().to_owned(),
        code: code_of(&text),
        path: relative,
        text,
        is_test: false,
    }
}

/// Files (without `.rs`) and folders of modules that are declared under `#[cfg(test)]`.
fn test_only(sources: &[Source]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for source in sources {
        let stem = source.path.with_extension("");
        let folder = match stem.file_name().unwrap().to_str().unwrap() {
            "mod" | "lib" | "main" => stem.parent().unwrap().to_owned(),
            _ => stem,
        };
        let mut lines = source.code.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line == "#[cfg(test)]"
                && let Some(name) = lines.next().and_then(|line| line.strip_suffix(';'))
                && let Some(name) = name.strip_prefix("mod ")
            {
                found.insert(folder.join(name));
            }
        }
    }
    found
}

/// Rust code without comments and without what stands in literals. Good enough for reading names: a
/// lifetime is told from a character by its missing second quote.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..]
                .find(&end)
                .map_or(rest.len(), |at| start + at + end.len())
        } else if first == '"' {
            string_length(rest)
        } else if first == '\'' {
            char_length(rest)
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    code
}

/// The number of `#` of a raw string that starts here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, symbol) in text.char_indices().skip(1) {
        match symbol {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn char_length(text: &str) -> usize {
    let mut symbols = text.char_indices().skip(1);
    match (symbols.next(), symbols.next()) {
        (Some((_, '\\')), Some(_)) => text[3..].find('\'').map_or(1, |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

fn is_word(symbol: char) -> bool {
    symbol.is_alphanumeric() || symbol == '_'
}

/// Where `word` stands alone in `code`, with what follows it.
fn after_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(word).filter_map(move |(at, _)| {
        let after = &code[at + word.len()..];
        let alone = !code[..at].ends_with(is_word) && !after.starts_with(is_word);
        alone.then_some(after)
    })
}

/// The modules directly under the crate's root that this code names: `crate::a::…` and `crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let name = |text: &str| {
        text.trim_start()
            .split(|s| !is_word(s))
            .next()
            .unwrap()
            .to_owned()
    };
    let mut found = BTreeSet::new();
    for after in after_word(code, "crate") {
        let Some(path) = after.strip_prefix("::") else {
            continue;
        };
        let Some(group) = path.strip_prefix('{') else {
            found.insert(name(path));
            continue;
        };
        let mut depth = 0_u32;
        let mut item = String::new();
        for symbol in group.chars() {
            match symbol {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(name(&item));
                    item.clear();
                }
                other if depth == 0 => item.push(other),
                _ => {}
            }
        }
        found.insert(name(&item));
    }
    found.remove("");
    found
}

#[track_caller]
fn none(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn imports_point_downwards() {
    let layers: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        let from = source.module.as_str();
        let path = source.path.display();
        let Some(layer) = layers.get(from) else {
            offences.push(format!("{path}: the module {from} has no layer yet"));
            continue;
        };
        for to in imports(&source.code) {
            let Some(below) = layers.get(to.as_str()) else {
                // An item of the crate's root, such as a macro.
                continue;
            };
            let neighbour = from == to || NEIGHBOURS.contains(&(from, to.as_str()));
            if below > layer || (below == layer && !neighbour) {
                offences.push(format!(
                    "{path}: {from} (layer {layer}) imports {to} (layer {below})"
                ));
            }
        }
    }
    none("imports point from higher layers to lower ones", offences);
}

#[test]
fn big_dependencies_have_one_home() {
    let mut offences = Vec::new();
    for source in &sources() {
        for (name, homes) in HOMES {
            let named = after_word(&source.code, name).next().is_some();
            if named && !source.is_test && !homes.contains(&source.module.as_str()) {
                offences.push(format!(
                    "{}: names {name}, which belongs to {}",
                    source.path.display(),
                    homes.join(", ")
                ));
            }
        }
        for (module, strangers) in STRANGERS {
            for stranger in strangers {
                let mut named = after_word(&source.code, stranger);
                if source.module == module && !source.is_test && named.next().is_some() {
                    offences.push(format!(
                        "{}: {module} must not name {stranger}",
                        source.path.display()
                    ));
                }
            }
        }
    }
    none(
        "a dependency is named where it belongs, and nowhere else",
        offences,
    );
}

#[test]
fn every_module_says_what_it_does_and_what_always_holds() {
    let mut offences = Vec::new();
    for source in sources() {
        let path = source.path.display();
        if source.is_test {
            continue;
        }
        let head: Vec<_> = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        if head.is_empty() {
            offences.push(format!("{path}: does not begin with //!"));
        } else if !head.join("\n").contains("**Invariant") {
            offences.push(format!("{path}: its //! names no **Invariant:**"));
        }
    }
    none(
        "a module's head says what it does and what always holds",
        offences,
    );
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        let end = source
            .text
            .find("#[cfg(test)]\nmod tests {")
            .unwrap_or(source.text.len());
        let lines = source.text[..end].lines().count();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{}: {lines} lines", source.path.display()));
        }
    }
    none("a file has at most 500 lines, tests apart", offences);
}

#[test]
fn lints_are_expected_with_a_reason_and_nothing_is_left_undone() {
    let mut offences = Vec::new();
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            let undone = ["unimplemented!", "todo!", "unreachable!"];
            let marks = undone.iter().filter(|mark| line.contains(**mark));
            let bare = ["#[allow(", "#![allow("]
                .into_iter()
                .filter(|mark| line.contains(mark));
            for mark in marks.copied().chain(bare) {
                offences.push(format!("{}:{}: {mark}", source.path.display(), number + 1));
            }
        }
    }
    none(
        "nothing is left undone, no lint is silenced without a reason",
        offences,
    );
}

#[test]
fn there_is_one_integration_test_binary_and_one_that_fetches() {
    let mut entries: Vec<_> = fs::read_dir(root().join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    entries.sort();
    assert_eq!(
        entries,
        ["foreign", "it"],
        "each further test binary costs a link of everything"
    );
}

/// Winch had an escape that Cranelift had not; a fresh mapping of an image resets memory protection keys, so that
/// instances could read each other.
/// The system that the tests are built for, as cargo writes it.
fn host() -> String {
    let version = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}

#[test]
fn the_runtime_is_built_without_what_is_not_trusted() {
    // What cargo really builds: any package of the tree can turn a feature of another one on. For this machine only:
    // what other systems need has been fetched by nobody on a fresh one.
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &host()])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let name_of: BTreeMap<_, _> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (&package["id"], package["name"].as_str().unwrap()))
        .map(|(id, name)| (id.as_str().unwrap(), name))
        .collect();
    let mut runtimes = 0;
    let mut offences = Vec::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let name = name_of[node["id"].as_str().unwrap()];
        if name.contains("winch") {
            offences.push(name.to_owned());
        }
        // Its inner packages have features of the same names.
        if name != "wasmtime" && !name.starts_with("wasmtime-internal") {
            continue;
        }
        runtimes += usize::from(name == "wasmtime");
        let features = texts(&node["features"]);
        for feature in ["winch", "all-arch", "memory-protection-keys", "cache"] {
            if features.iter().any(|it| it == feature) {
                offences.push(format!("{name} with {feature}"));
            }
        }
    }
    assert_eq!(runtimes, 1, "there is one runtime to look at");
    none("the runtime is built without these", offences);
}

#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    let mut files = Vec::new();
    for folder in [
        "src",
        "tests",
        "docs",
        "guest-functions",
        "examples",
        ".ci",
        "wit",
        "deploy",
    ] {
        files_below(&root().join(folder), &mut files);
    }
    files.extend(["README.md", "Cargo.toml", "clippy.toml"].map(|name| root().join(name)));
    // Written in two halves, so that this file does not find itself.
    let paths = [
        ("/ro", "ot/"),
        ("/ho", "me/"),
        ("/Us", "ers/"),
        ("/tmp/", "wt"),
        ("/wo", "rk/"),
    ];
    let mut offences = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for (start, end) in paths {
            if text.contains(&format!("{start}{end}")) {
                offences.push(format!("{}: {start}{end}", file.display()));
            }
        }
    }
    none(
        "no file names a path that exists on one machine only",
        offences,
    );
}

#[test]
fn documents_point_at_what_exists() {
    let mut documents = Vec::new();
    files_below(&root().join("docs"), &mut documents);
    documents.extend(["README.md", "guest-functions/README.md"].map(|name| root().join(name)));
    let mut offences = Vec::new();
    for document in documents
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(document).unwrap();
        let folder = document.parent().unwrap();
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let links = links
            .filter(|link| !link.contains("://") && !link.starts_with('#'))
            .map(|link| folder.join(link.split('#').next().unwrap()));
        let named = text.split('`').filter(|word| {
            let starts = ["src/", "tests/", "docs/", "guest-functions/", ".ci/"];
            starts.iter().any(|start| word.starts_with(start)) && !word.contains([' ', '*', '<'])
        });
        for path in links.chain(named.map(|name| root().join(name))) {
            if !path.exists() {
                offences.push(format!("{}: {}", document.display(), path.display()));
            }
        }
    }
    none("documents point at files that exist", offences);
}

/// The rows of the first table whose heading starts with `Flag`: their cells, without backquotes.
fn table_of_flags(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter(|line| line.starts_with("| `--"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

#[test]
fn the_table_of_flags_is_the_command_line() {
    let text = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut command = pelton::cli::command();
    command.build();
    let serve = command.find_subcommand("serve").unwrap();
    let bounds: BTreeMap<_, _> = pelton::config::Limits::bounds()
        .into_iter()
        .map(|bound| (bound.flag.clone(), bound))
        .collect();
    let expected: Vec<Vec<String>> = serve
        .get_arguments()
        .filter(|flag| !flag.is_hide_set() && flag.get_long() != Some("help"))
        .map(|flag| {
            let long = flag.get_long().unwrap();
            // A flag without a value has a default of its own: not given.
            let defaults = flag
                .get_default_values()
                .iter()
                .filter(|_| flag.get_num_args().is_some_and(|n| n.takes_values()));
            let range = bounds.get(long).map(|bound| &bound.range);
            vec![
                format!("--{long}"),
                flag.get_env().unwrap().to_str().unwrap().to_owned(),
                defaults.map(|value| value.to_str().unwrap()).collect(),
                range.map_or(String::new(), |range| {
                    format!("{}–{}", range.start(), range.end())
                }),
            ]
        })
        .collect();
    let written: Vec<Vec<String>> = table_of_flags(&text)
        .into_iter()
        .map(|cells| cells[..4].to_vec())
        .collect();
    assert_eq!(
        written, expected,
        "docs/configuration.md differs from `pelton serve --help`"
    );
}

#[test]
fn imports_are_read_as_they_are_written() {
    let code = code_of(
        "use crate::a::B; // crate::no\nuse crate::{c, d::{e, f},\n  g::h}; \
         let x = \"crate::no\"; fn y<'a>(z: &'a crate::i::J) {} r#\"crate::no\"#; '\"'; crate::k!();",
    );
    let found: Vec<_> = imports(&code).into_iter().collect();
    assert_eq!(found, ["a", "c", "d", "g", "i", "k"]);
}
