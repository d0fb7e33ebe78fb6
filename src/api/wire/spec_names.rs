//! The names that a spec may have, and what is said of those that it may not.
//!
//! **Invariant:** every name is in exactly one list.

use serde_json::{Map, Value};

use crate::api::error::{COMPLAINTS_MAX, quoted};
use crate::model::FunctionName;

/// Fields that mean something.
const MEANT: &[&str] = &[
    "name",
    "timeoutMs",
    "timeoutMillis",
    "cpuMs",
    "memoryMb",
    "outputBytesMax",
    "logBytesMax",
    "maxRetries",
    "retryBackoff",
    "maxRequeues",
    "maxAgeMs",
    "args",
    "env",
    "config",
    "allowHosts",
    "secrets",
    "invokePath",
    "reuse",
    "record",
    "concurrency",
    "queueSize",
    "ratePerSecond",
    "burst",
    "hosts",
    "executionMode",
    "endpointUrl",
    "image",
];

/// Fields that an answer has and a request need not leave out.
pub(super) const READ_ONLY: &[&str] = &[
    "version",
    "versions",
    "shape",
    "digest",
    "sizeBytes",
    "requestedExecutionMode",
    "effectiveExecutionMode",
    "createdAt",
    "updatedAt",
    "ignored",
];

/// Fields of nanofaas that mean nothing here: kept, echoed and listed.
pub(super) const IGNORED: &[&str] = &[
    "command",
    "commands",
    "resources",
    "scalingConfig",
    "imagePullSecrets",
    "runtimeMode",
    "runtimeCommand",
];

/// Fields that are going to mean something.
const RESERVED: &[&str] = &["entry", "files"];

/// How alike a name has to be to be suggested, from 0 to 1.
const LIKENESS_MIN: f64 = 0.5;
/// Longest name, in bytes, for which a like one is looked for: the work grows with its length, and nobody
/// misspells a field into more.
const MISSPELT_BYTES_MAX: usize = 64;

/// The longest name that is compared with those that there are, in bytes: comparing takes as many steps as both
/// names have letters, multiplied.
const COMPARED_BYTES_MAX: usize = 64;

/// Names that are compared, in one spec.
const COMPARED_MAX: usize = 100;

/// Whether a spec may not have this name, or not yet.
pub(super) fn is_unknown(name: &str) -> bool {
    ![MEANT, READ_ONLY, IGNORED]
        .iter()
        .any(|list| list.contains(&name))
}

/// Complains of every name that a spec may not have.
pub(super) fn check(object: &Map<String, Value>, complaints: &mut Vec<String>) {
    for (name, value) in object {
        let name = name.as_str();
        if !is_unknown(name) {
            continue;
        }
        if complaints.len() >= COMPLAINTS_MAX {
            // Not shown any more, only counted: no work is spent on it.
            complaints.push(String::new());
            continue;
        }
        if RESERVED.contains(&name) {
            if !value.is_null() {
                complaints.push(format!("{name}: is not supported by this version yet"));
            }
            continue;
        }
        let shown = quoted(name);
        let compared = name.len() <= COMPARED_BYTES_MAX && complaints.len() < COMPARED_MAX;
        let near = Some(name).filter(|_| compared).and_then(nearest);
        complaints.push(match near {
            Some(near) => format!("{shown}: there is no such field, did you mean {near}?"),
            None => format!("{shown}: there is no such field"),
        });
    }
}

/// Complains of every value that only answers have: setting it would do nothing.
pub(super) fn check_read_only(
    patch: &Map<String, Value>,
    function: &FunctionName,
    complaints: &mut Vec<String>,
) {
    for (name, value) in patch {
        if !READ_ONLY.contains(&name.as_str()) || value.is_null() {
            continue;
        }
        let advice = match name.as_str() {
            "version" => format!(
                "POST /v1/functions/{function}:rollback makes another version the active one"
            ),
            "digest" | "shape" | "sizeBytes" => {
                format!("PUT /v1/functions/{function} deploys other code")
            }
            "requestedExecutionMode" | "effectiveExecutionMode" => {
                "it follows from executionMode".to_owned()
            }
            _ => "leave it out".to_owned(),
        };
        complaints.push(format!(
            "{name}: is not what GET shows, and cannot be set: {advice}"
        ));
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    nearest_of(name, MEANT.iter().chain(IGNORED))
}

/// The most alike of some names, if one is alike at all.
pub(super) fn nearest_of(
    name: &str,
    known: impl IntoIterator<Item = &'static &'static str>,
) -> Option<&'static str> {
    if name.len() > MISSPELT_BYTES_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let likeness =
        |known: &str| strsim::normalized_damerau_levenshtein(&name, &known.to_ascii_lowercase());
    known
        .into_iter()
        .copied()
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_one_list() {
        let mut all: Vec<_> = [MEANT, READ_ONLY, IGNORED, RESERVED].concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_misspelt_name_is_told_the_nearest() {
        assert_eq!(nearest("concurency"), Some("concurrency"));
        assert_eq!(nearest("timeout"), Some("timeoutMs"));
        assert_eq!(nearest("QueueSize"), Some("queueSize"));
        assert_eq!(nearest("retries"), Some("maxRetries"));
        assert_eq!(nearest("zzzzzzzz"), None);
    }

    #[test]
    fn long_names_and_many_of_them_cost_no_search() {
        let long = format!("concurrency{}", "y".repeat(MISSPELT_BYTES_MAX));
        assert_eq!(nearest(&long), None);
        let many = (0..COMPLAINTS_MAX + 7).map(|n| (format!("timeout{n}"), Value::Bool(true)));
        let mut complaints = Vec::new();
        check(&many.collect(), &mut complaints);
        assert_eq!(complaints.len(), COMPLAINTS_MAX + 7);
        let (shown, counted) = complaints.split_at(COMPLAINTS_MAX);
        assert!(
            shown
                .iter()
                .all(|complaint| complaint.contains("timeoutMs"))
        );
        assert!(counted.iter().all(String::is_empty));
    }
}
