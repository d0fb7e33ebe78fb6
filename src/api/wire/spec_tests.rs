//! What specs are accepted, and what is said of those that are not.
//!
//! **Invariant:** every field of the spec is named here, with a value that is taken and one that is not.

use axum::response::IntoResponse;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::spec::{NewFunction, full_spec, merge_patch, to_object};
use super::spec_names;
use crate::model::{
    Backoff, ExecutionMode, Exposure, FunctionName, FunctionSettings, RecordMode, SecretUse, Spec,
    VersionSpec,
};

fn members(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn name() -> FunctionName {
    "echo".parse().unwrap()
}

fn full(value: Value) -> Result<Spec, Vec<String>> {
    full_spec(members(value), &name())
}

#[track_caller]
fn complaints(value: Value) -> Vec<String> {
    full(value).unwrap_err()
}

#[test]
fn nothing_said_is_every_default() {
    assert_eq!(full(json!({})), Ok(Spec::default()));
    let nulls: Map<_, _> = to_object(&Spec::default())
        .into_iter()
        .map(|(name, _)| (name, Value::Null))
        .collect();
    assert_eq!(full(Value::Object(nulls)), Ok(Spec::default()));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a row for each field")]
fn every_field_is_read() {
    let spec = full(json!({
        "name": "echo", "timeoutMs": 5, "cpuMs": 6, "memoryMb": 7, "outputBytesMax": 8, "logBytesMax": 9,
        "maxRetries": 10, "retryBackoff": {"baseDelayMs": 0, "maxDelayMs": 12}, "maxRequeues": 13,
        "maxAgeMs": 14, "args": ["a", ""], "env": {"A": "1"}, "config": {"k": "v"}, "record": "full",
        "invokePath": "/in?a=b", "reuse": {"maxCalls": 7, "idleMs": 200},
        "concurrency": 15, "queueSize": 16, "ratePerSecond": 17, "burst": 18, "hosts": ["b.example", "a.example"], "executionMode": "POOL",
        "endpointUrl": "http://x/", "image": "any", "runtimeMode": "STDIO", "command": ["sh"],
        "resources": {"cpu": "1"}, "scalingConfig": null, "version": 3, "createdAt": "long ago",
        "allowHosts": ["*.example.org:8443"],
        "secrets": {
            "ENV": {"secret": "one", "as": "env"}, "GONE": null,
            "KEY": {"secret": "two", "as": "placeholder", "hosts": ["api.example.org:8443"]},
        },
    }))
    .unwrap();
    let expected = Spec {
        settings: FunctionSettings {
            concurrency: 15,
            queue_size: 16,
            rate_per_second: Some(17),
            burst: Some(18),
            hosts: ["a.example", "b.example"]
                .map(|host| host.parse().unwrap())
                .into(),
        },
        version: VersionSpec {
            timeout_ms: 5,
            cpu_ms: Some(6),
            memory_mb: 7,
            output_bytes_max: 8,
            log_bytes_max: 9,
            max_retries: 10,
            retry_backoff: Backoff {
                base_delay_ms: 0,
                max_delay_ms: 12,
            },
            max_requeues: 13,
            max_age_ms: 14,
            args: vec!["a".to_owned(), String::new()],
            env: [("A".to_owned(), "1".to_owned())].into(),
            config: [("k".to_owned(), "v".to_owned())].into(),
            allow_hosts: Some(vec!["https://*.example.org:8443".parse().unwrap()]),
            secrets: [
                (
                    "ENV".to_owned(),
                    SecretUse {
                        secret: "one".parse().unwrap(),
                        exposure: Exposure::Env,
                    },
                ),
                (
                    "KEY".to_owned(),
                    SecretUse {
                        secret: "two".parse().unwrap(),
                        exposure: Exposure::Placeholder {
                            hosts: vec!["api.example.org:8443".parse().unwrap()],
                        },
                    },
                ),
            ]
            .into(),
            invoke_path: Some("/in?a=b".to_owned()),
            reuse: Some(crate::model::Reuse {
                max_calls: 7,
                max_concurrent: 1,
                idle_ms: 200,
            }),
            record: RecordMode::Full,
            execution_mode: Some(ExecutionMode::Pool),
            image: Some("any".to_owned()),
            endpoint_url: Some("http://x/".to_owned()),
            ignored: [
                ("runtimeMode".to_owned(), "\"STDIO\"".to_owned()),
                ("command".to_owned(), "[\"sh\"]".to_owned()),
                ("resources".to_owned(), "{\"cpu\":\"1\"}".to_owned()),
            ]
            .into(),
        },
    };
    assert_eq!(spec, expected);
}

#[test]
fn all_complaints_come_at_once() {
    insta::assert_snapshot!(
        complaints(json!({
            "name": "other", "timeoutMs": 0, "timeoutMillis": 7, "cpuMs": "fast", "memoryMb": 4097,
            "outputBytesMax": -1, "logBytesMax": 1.5, "maxRetries": 101, "maxRequeues": [], "maxAgeMs": {},
            "retryBackoff": {"baseDelayMs": 86_400_001_u64, "maxDelay": 3}, "args": ["a\u{0}", "b"],
            "env": {"A=B": "1", "": "2", "ATTEMPT": "3", "N": "\u{0}", "M": 4}, "config": ["x"],
            "record": "everything", "concurrency": 0, "queueSize": 10_000_001, "burst": 3,
            "executionMode": "pool", "endpointUrl": " ", "image": 5, "runtimeMode": "GRPC",
            "imagePullSecrets": "a", "concurency": 4, "zzzzzzzz": 1, "entry": "x", "files": null,
        }))
        .join("\n")
    );
}

#[test]
fn a_placeholder_that_could_never_leave_is_refused() {
    let said = |allowed: Value, hosts: Value| {
        complaints(json!({
            "allowHosts": allowed,
            "secrets": {"KEY": {"secret": "a", "as": "placeholder", "hosts": hosts}},
        }))
    };
    for (allowed, hosts, missing) in [
        (Value::Null, json!(["a.example"]), "https://a.example"),
        (json!([]), json!(["a.example"]), "https://a.example"),
        (
            json!(["a.example"]),
            json!(["a.example", "b.example"]),
            "https://b.example",
        ),
        (
            json!(["http://a.example"]),
            json!(["a.example"]),
            "https://a.example",
        ),
        (
            json!(["a.example:8443"]),
            json!(["a.example"]),
            "https://a.example",
        ),
        (
            json!(["*.a.example"]),
            json!(["a.example"]),
            "https://a.example",
        ),
        (
            json!(["a.example"]),
            json!(["*.a.example"]),
            "https://*.a.example",
        ),
    ] {
        let told = format!(
            "secrets.\"KEY\": hosts: allowHosts does not allow {missing}, so the secret can never be sent there: list \
             it there too, or leave it out here"
        );
        assert_eq!(
            said(allowed.clone(), hosts.clone()),
            [told],
            "{allowed} {hosts}"
        );
    }
    // Where the list itself cannot be read, nothing is said of what is not in it.
    let unread = said(json!(["ftp://a.example"]), json!(["a.example"]));
    assert!(
        matches!(&*unread, [one] if one.starts_with("allowHosts: ")),
        "{unread:?}"
    );
    for (allowed, hosts) in [
        (json!(["a.example", "b.example"]), json!(["a.example"])),
        (json!(["*"]), json!(["a.example"])),
        (json!(["*.example"]), json!(["a.example", "*.b.example"])),
        // As wide as it may be; it leaves to those that are called.
        (json!(["a.example"]), json!(["*"])),
        (json!(["a.b.example"]), json!(["*.example"])),
    ] {
        let spec = json!({
            "allowHosts": allowed,
            "secrets": {"KEY": {"secret": "a", "as": "placeholder", "hosts": hosts}},
        });
        assert!(full(spec).is_ok(), "{allowed} {hosts}");
    }
}

#[test]
fn all_complaints_about_hosts_and_secrets_come_at_once() {
    insta::assert_snapshot!(
        complaints(json!({
            "allowHosts": ["ok.example", "ftp://a.example", "https://u@a.example", "a.example/b", "2130706433"],
            "env": {"BOTH": "1"}, "config": {"BOTH2": "2"},
            "secrets": {
                "": {"secret": "a", "as": "env"}, "A=B": {"secret": "a", "as": "config"},
                "ATTEMPT": {"secret": "a", "as": "env"}, "BOTH": {"secret": "a", "as": "placeholder", "hosts": ["*"]},
                "BOTH2": {"secret": "a", "as": "config"}, "HOSTS": {"secret": "a", "as": "env", "hosts": ["a"]},
                "LIST": [], "NAME": {"secret": "a b", "as": "env"}, "NOBODY": {"secret": "a", "as": "placeholder"},
                "NOTHING": {}, "VALUE": {"value": "hunter2", "as": "env"}, "WAY": {"secret": "a", "as": "header"},
                "WHERE": {"secret": "a", "as": "placeholder", "hosts": ["a/b"]},
            },
        }))
        .join("\n")
    );
    assert_eq!(
        complaints(json!({"allowHosts": "a.example", "secrets": "a"})),
        [
            "secrets: must be an object of entries like {\"secret\": \"NAME\", \"as\": \"env\"}",
            "allowHosts: must be a list of strings",
        ]
    );
    let many: Vec<_> = (0..129)
        .map(|number| format!("h{number}.example"))
        .collect();
    assert_eq!(
        complaints(json!({"allowHosts": many})),
        ["allowHosts: has 129 entries, and may have 128"]
    );
    let many: Map<_, _> = (0..65)
        .map(|number| (format!("K{number}"), json!({"secret": "a", "as": "env"})))
        .collect();
    assert_eq!(
        complaints(json!({"secrets": many})),
        ["secrets: has 65 entries, and may have 64"]
    );
}

#[test]
fn no_hosts_and_an_empty_list_of_hosts_are_two_things() {
    let hosts = |value| full(value).unwrap().version.allow_hosts;
    assert_eq!(hosts(json!({"allowHosts": null})), None);
    assert_eq!(hosts(json!({"allowHosts": []})), Some(Vec::new()));
}

#[test]
fn amounts_are_bounded() {
    let many: Vec<_> = (0..257).map(|i| i.to_string()).collect();
    assert_eq!(
        complaints(json!({"args": many})),
        ["args: has 257 entries, and may have 256"]
    );
    let long = "x".repeat(65_536);
    assert_eq!(
        complaints(json!({"env": {"A": long}})),
        ["env: has 65537 bytes, and may have 65536"]
    );
    let url = "x".repeat(2049);
    assert_eq!(
        complaints(json!({"endpointUrl": url})),
        ["endpointUrl: has 2049 bytes, and may have 2048"]
    );
}

#[test]
fn the_alias_of_the_timeout_is_read() {
    assert_eq!(
        full(json!({"timeoutMillis": 7}))
            .unwrap()
            .version
            .timeout_ms,
        7
    );
    let both = full(json!({"timeoutMillis": 7, "timeoutMs": 7})).unwrap();
    assert_eq!(both.version.timeout_ms, 7);
}

#[test]
fn a_new_function_has_a_name_and_says_what_runs() {
    let parse = |value: Value| NewFunction::parse(&Bytes::from(value.to_string()));
    let new = parse(json!({"name": "echo", "image": "builtin:echo"})).unwrap();
    assert_eq!(new.name, name());
    assert!(parse(json!({"name": "echo", "endpointUrl": "http://x"})).is_ok());

    let said = |value: Value| format!("{:?}", parse(value).unwrap_err());
    let both = said(json!({"image": null, "concurrency": 0}));
    assert!(both.contains("name: is needed"), "{both}");
    assert!(both.contains("image: is needed"), "{both}");
    assert!(
        both.contains("concurrency: must be a whole number from 1"),
        "{both}"
    );
    assert!(said(json!({"name": "", "image": "x"})).contains("starts with a letter"));
    assert!(said(json!([1])).contains("has to be a JSON object, and is a list"));
}

#[test]
fn a_patch_changes_what_it_names() {
    let base = full(json!({
        "timeoutMs": 5, "env": {"A": "1", "B": "2"}, "retryBackoff": {"baseDelayMs": 1, "maxDelayMs": 2},
        "ratePerSecond": 3, "runtimeMode": "HTTP",
    }))
    .unwrap();
    let patch = |value: Value| merge_patch(&base, members(value), &name());

    assert_eq!(patch(json!({})).unwrap(), base);
    let changed = patch(json!({
        "timeoutMillis": 6, "env": {"A": null, "C": "3"}, "retryBackoff": {"baseDelayMs": 0},
        "ratePerSecond": null, "runtimeMode": null,
    }))
    .unwrap();
    assert_eq!(changed.version.timeout_ms, 6);
    assert_eq!(
        changed.version.env,
        [
            ("B".to_owned(), "2".to_owned()),
            ("C".to_owned(), "3".to_owned())
        ]
        .into()
    );
    let backoff = Backoff {
        base_delay_ms: 0,
        max_delay_ms: 2,
    };
    assert_eq!(changed.version.retry_backoff, backoff);
    assert_eq!(changed.settings.rate_per_second, None);
    assert!(changed.version.ignored.is_empty());
    assert_eq!(
        patch(json!({"timeoutMs": null}))
            .unwrap()
            .version
            .timeout_ms,
        30_000
    );

    let misspelt = patch(json!({"timeoutMS": null, "name": "x", "queueSize": 0})).unwrap_err();
    insta::assert_snapshot!(misspelt.join("\n"));
}

/// Any JSON of a few levels, often with names that mean something.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..400_000_u64).prop_map(Value::from),
        // Numbers that are read as they were written; the last digit of others may change on the way.
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 256.0)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let key = prop_oneof!["[A-Z]{1,3}", ".{0,6}", Just("baseDelayMs".to_owned())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Map<String, Value>> {
    let mut names: Vec<_> = to_object(&Spec::default())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.extend(spec_names::IGNORED.iter().map(|name| (*name).to_owned()));
    let name = prop_oneof![4 => prop::sample::select(names), 1 => ".{0,8}"];
    prop::collection::btree_map(name, any_value(), 0..12)
        .prop_map(|members| members.into_iter().collect())
}

fn has_null_inside(value: &Value) -> bool {
    let is_or_has_null = |value: &Value| value.is_null() || has_null_inside(value);
    match value {
        Value::Object(members) => members.values().any(is_or_has_null),
        Value::Array(items) => items.iter().any(has_null_inside),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

proptest! {
    #[test]
    fn any_object_is_judged_and_what_is_accepted_reads_back(object in any_object()) {
        if let Ok(spec) = full_spec(object.clone(), &name()) {
            prop_assert_eq!(full_spec(to_object(&spec), &name()), Ok(spec.clone()));
            // A null inside what is only echoed is a wish to remove it, in a patch.
            if !object.values().any(has_null_inside) {
                prop_assert_eq!(merge_patch(&spec, object, &name()), Ok(spec));
            }
        }
    }

    #[test]
    fn any_patch_is_judged(object in any_object()) {
        let _ = merge_patch(&Spec::default(), object, &name());
    }

    #[test]
    fn any_body_is_answered(body in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Err(error) = NewFunction::parse(&Bytes::from(body)) {
            prop_assert_eq!(error.into_response().status(), 400);
        }
    }
}
