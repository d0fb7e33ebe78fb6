//! The metrics of a whole server: every line of them is read, and `docs/metrics.md` lists what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use crate::support::api::{Api, Moves};
use crate::support::binary::Server;
use crate::support::guests;

/// One family as it is exposed.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Family {
    /// The labels of its series, those of its kind apart.
    fn labels(&self) -> BTreeSet<&str> {
        let all = self.samples.iter().flat_map(|sample| sample.labels.keys());
        let own = ["le", "quantile"];
        all.map(String::as_str)
            .filter(|label| !own.contains(label))
            .collect()
    }
}

/// Reads the text format 0.0.4 as strictly as it is defined.
#[track_caller]
fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap();
            assert!(!text.trim().is_empty(), "{line}");
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(help.take().as_deref(), Some(name), "no help: {line}");
            let known = ["counter", "gauge", "histogram", "summary"];
            assert!(known.contains(&kind), "{line}");
            current = name.to_owned();
            let family = Family {
                kind: kind.to_owned(),
                samples: Vec::new(),
            };
            let before = families.insert(current.clone(), family);
            assert!(before.is_none(), "twice: {line}");
        } else {
            let sample = read_sample(line);
            let family = families.get_mut(&current).unwrap();
            let ends: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                _ => &[""],
            };
            let end = sample.name.strip_prefix(&current);
            assert!(end.is_some_and(|end| ends.contains(&end)), "{line}");
            family.samples.push(sample);
        }
    }
    families
}

#[track_caller]
fn read_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let is_name = |text: &str| {
        let mut symbols = text.chars();
        symbols
            .next()
            .is_some_and(|s| s.is_ascii_alphabetic() || s == '_')
            && symbols.all(|s| s.is_ascii_alphanumeric() || s == '_')
    };
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
    };
    assert!(is_name(name), "{line}");
    let mut found = BTreeMap::new();
    for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once("=\"").unwrap();
        let value = value.trim_end_matches('"');
        assert!(is_name(label) && !value.contains(['"', '\\']), "{line}");
        assert!(
            found.insert(label.to_owned(), value.to_owned()).is_none(),
            "{line}"
        );
    }
    let value = value.parse();
    Sample {
        name: name.to_owned(),
        labels: found,
        value: value.unwrap_or_else(|error| panic!("{error}: {line}")),
    }
}

/// Checks what the kind of each family promises.
#[track_caller]
fn check(families: &BTreeMap<String, Family>) {
    for (name, family) in families {
        let mut seen = BTreeSet::new();
        for sample in &family.samples {
            let series = format!("{}{:?}", sample.name, sample.labels);
            assert!(seen.insert(series), "twice: {sample:?}");
            assert!(!sample.value.is_nan(), "{sample:?}");
            if family.kind != "gauge" {
                assert!(sample.value >= 0.0, "{sample:?}");
            }
        }
        match family.kind.as_str() {
            "counter" => assert!(name.ends_with("_total"), "{name}"),
            "histogram" => check_histogram(name, family),
            "gauge" => assert!(!name.ends_with("_total"), "{name}"),
            "summary" => assert!(name.ends_with("_seconds"), "{name}"),
            other => panic!("{other}"),
        }
    }
}

#[track_caller]
fn check_histogram(name: &str, family: &Family) {
    let mut last: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for sample in &family.samples {
        let function = sample.labels.get("function").map_or("", String::as_str);
        match sample.name.strip_prefix(name).unwrap() {
            "_bucket" => {
                let bound: f64 = sample.labels["le"].parse().unwrap();
                let before = last.insert(function, (bound, sample.value));
                let (bound_before, count_before) = before.unwrap_or((f64::NEG_INFINITY, 0.0));
                assert!(
                    bound > bound_before && sample.value >= count_before,
                    "{sample:?}"
                );
            }
            "_count" => {
                let (bound, all) = last[function];
                assert!(bound.is_infinite(), "{name} has no bucket for all");
                assert_eq!(all, sample.value, "{sample:?}");
            }
            _ => {}
        }
    }
}

/// The rows of the tables of `docs/metrics.md`: name → type and labels.
fn catalogue() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| cell.replace('`', "");
        let labels = names(cells[2]);
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        assert!(cells[3].len() > 10, "no meaning: {row}");
        let labels = labels.map(str::to_owned).collect();
        (names(cells[0]), (cells[1].to_owned(), labels))
    })
    .collect()
}

#[test]
fn the_catalogue_is_what_a_server_exposes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    server.deploy("echo", &guests::built("echo").component, &[]);
    server.run(&["invoke", "echo", "-d", "1"]).code(0);
    let id = server.enqueue("echo", "2");
    server.wait_for(&id, |execution| execution["status"] == "success");
    server.run(&["functions", "get", "nobody"]).code(3);

    let text = server.get("/actuator/prometheus");
    let families = read(&text);
    check(&families);
    let exposed: BTreeMap<_, _> = families
        .iter()
        .map(|(name, family)| {
            let labels = family.labels().into_iter().map(str::to_owned);
            (name.clone(), (family.kind.clone(), labels.collect()))
        })
        .collect();
    let listed: BTreeMap<String, (String, BTreeSet<String>)> = catalogue();
    for (name, found) in &exposed {
        assert_eq!(listed.get(name), Some(found), "docs/metrics.md: {name}");
    }
    for name in listed.keys() {
        assert!(
            exposed.contains_key(name),
            "docs/metrics.md lists {name}, which there is not"
        );
    }
    let value = |series: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series}"))
            .trim()
            .parse::<f64>()
            .unwrap()
    };
    assert_eq!(value("function_success_total{function=\"echo\"}"), 2.0);
    let attempts = "function_attempt_total{function=\"echo\",outcome=\"success\"}";
    assert_eq!(value(attempts), 2.0);
    assert_eq!(
        value("function_effective_concurrency{function=\"echo\"}"),
        4.0
    );
    assert_eq!(
        value("pelton_errors_total{code=\"FUNCTION_NOT_FOUND\"}"),
        1.0
    );
    assert_eq!(value("pelton_compilation_ms_count"), 1.0);
    assert!(value("pelton_store_commit_ms_count") >= 2.0);
    assert_eq!(
        value("pelton_store_commit_writes_sum"),
        value("pelton_store_writes_total")
    );
    // The two units of a time agree.
    for end in ["count", "sum"] {
        let of = |unit: &str| {
            value(&format!(
                "function_latency_ms{unit}_{end}{{function=\"echo\"}}"
            ))
        };
        let scale = if end == "sum" { 1_000.0 } else { 1.0 };
        let (ms, seconds) = (of(""), of("_seconds"));
        assert!(
            (ms - seconds * scale).abs() < 1e-6,
            "{end}: {ms} and {seconds}"
        );
    }
    let half = value("function_latency_ms_seconds{function=\"echo\",quantile=\"0.5\"}");
    assert!(half > 0.0);
}

/// Every name that nanofaas's code or documentation has is there, or its absence is explained.
#[test]
fn every_name_of_nanofaas_is_there_or_explained() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, absent) = text.split_once("names that Pelton does not have").unwrap();
    let there = catalogue();
    for (name, label) in [
        ("function_enqueue_total", "function"),
        ("function_dispatch_total", "function"),
        ("function_success_total", "function"),
        ("function_error_total", "function"),
        ("function_retry_total", "function"),
        ("function_timeout_total", "function"),
        ("function_queue_rejected_total", "function"),
        ("function_cold_start_total", "function"),
        ("function_warm_start_total", "function"),
        ("function_latency_ms_seconds", "function"),
        ("function_init_duration_ms_seconds", "function"),
        ("function_queue_wait_ms_seconds", "function"),
        ("function_e2e_latency_ms_seconds", "function"),
        ("function_queue_depth", "function"),
        ("function_inFlight", "function"),
        ("function_effective_concurrency", "function"),
        ("function_target_inflight_per_pod", "function"),
        ("function_concurrency_controller_mode", "function"),
        ("sync_queue_depth", "function"),
        ("sync_queue_depth", ""),
        ("sync_queue_wait_seconds", "function"),
        ("sync_queue_wait_seconds", ""),
        ("sync_queue_admitted_total", "function"),
        ("sync_queue_rejected_total", "function"),
        ("sync_queue_timedout_total", "function"),
        ("gateway_service_target_load", "function"),
        ("controlplane_runtime_config_revision", ""),
        ("controlplane_runtime_config_updates_total", "status"),
        ("controlplane_runtime_config_apply_duration_seconds", ""),
        ("_seconds_max", "function"),
        ("function_cold_start_ms", "function"),
        ("scheduler_tick_ms", ""),
        ("dispatcher_k8s_latency_ms", ""),
    ] {
        let is_there = there.get(name).is_some_and(|(_, labels)| match label {
            "" => labels.is_empty(),
            label => labels.contains(label),
        });
        let explained = absent.contains(&format!("`{name}`"));
        assert!(is_there || explained, "{name}{{{label}}}");
    }
}

#[test]
fn a_function_that_nobody_called_has_no_series() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    server.deploy("echo", &guests::built("echo").component, &[]);
    let text = server.get("/actuator/prometheus");
    assert!(!text.contains("\"echo\""), "{text}");
    server.run(&["invoke", "echo", "-d", "1"]).code(0);
    let text = server.get("/actuator/prometheus");
    let success = "function_success_total{function=\"echo\"} 1";
    assert!(text.contains(success), "{text}");
}

#[tokio::test]
async fn every_outcome_and_refusal_is_counted_by_what_it_was() {
    let api = Api::new(Moves::ByHand).await;
    for (name, outcome) in [
        ("echo", "success"),
        ("fails", "error"),
        ("retries", "retry"),
        ("requeues", "requeue"),
    ] {
        api.deploy(name, json!({"queueSize": 1})).await;
        api.enqueue(name, json!(1)).await;
        let path = format!("/v1/functions/{name}:enqueue");
        let full = api.send("POST", &path, json!({"input": 1})).await;
        assert_eq!(full.error(429), "QUEUE_FULL");
        api.drain(name, ()).await.expect(200);
        has_lines(
            &api,
            &[
                &format!("function_attempt_total{{function=\"{name}\",outcome=\"{outcome}\"}} 1"),
                &format!("function_attempt_total{{function=\"{name}\",outcome=\"fault\"}} 0"),
                &format!("function_queue_rejected_total{{function=\"{name}\",reason=\"depth\"}} 1"),
            ],
        )
        .await;
    }
    api.deploy("limited", json!({"ratePerSecond": 1, "burst": 1}))
        .await;
    let path = "/v1/functions/limited:enqueue";
    while api.send("POST", path, json!({"input": 1})).await.status != 429 {}
    has_lines(
        &api,
        &[
            "function_queue_rejected_total{function=\"limited\",reason=\"rate\"} 1",
            "pelton_errors_total{code=\"QUEUE_FULL\"} 4",
            "pelton_errors_total{code=\"RATE_LIMITED\"} 1",
        ],
    )
    .await;
    // Both paths have the same.
    for path in ["/actuator/prometheus", "/metrics"] {
        let text = api.get(path).await;
        check(&read(text.text()));
    }
}

async fn has_lines(api: &Api, lines: &[&str]) {
    let text = api.get("/actuator/prometheus").await;
    for line in lines {
        let found = text.text().lines().any(|found| found == *line);
        assert!(found, "no {line}");
    }
}
