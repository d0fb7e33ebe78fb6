//! Golden forms: what each format looks like, byte for byte.

use super::*;
use crate::model::{LogLine, LogStream, Logs};

const VERSION_1: &str = r#"{"format":1,"code":{"wasm":{"digest":"0707070707070707070707070707070707070707070707070707070707070707","shape":"core_command","size":9}},"spec":{"timeout_ms":30000,"cpu_ms":null,"memory_mb":256,"output_bytes_max":6291456,"log_bytes_max":65536,"max_retries":3,"base_delay_ms":100,"max_delay_ms":30000,"max_requeues":1000,"max_age_ms":86400000,"args":[],"env":{"A":"b"},"config":{},"record":"auto","execution_mode":null,"image":null,"endpoint_url":null,"ignored":{}}}"#;

fn version() -> Version {
    Version {
        number: VersionNumber(4),
        code: Code::Wasm {
            digest: Digest::from_bytes([7; 32]),
            shape: Shape::CoreCommand,
            size: 9,
        },
        spec: VersionSpec {
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            ..VersionSpec::default()
        },
        created_at: Timestamp(5),
    }
}

fn host(name: &str) -> crate::model::HostName {
    name.parse().unwrap()
}

fn decode(text: &str) -> Result<Version, Unreadable> {
    decode_version(VersionNumber(4), Timestamp(5), text)
}

#[test]
fn a_version_is_written_in_format_3_and_read_in_all() {
    let in_format = |format: &str| VERSION_1.replacen(r#""format":1"#, format, 1);
    let in_3 = in_format(r#""format":3"#);
    assert_eq!(encode_version(&version()).unwrap(), in_3);
    for text in [VERSION_1, &in_format(r#""format":2"#), &in_3] {
        assert_eq!(decode(text).unwrap(), version());
    }
    let mut reused = version();
    reused.spec.reuse = Some(crate::model::Reuse::default());
    let text = encode_version(&reused).unwrap();
    let stored = r#""reuse":{"max_calls":128,"max_concurrent":1,"idle_ms":10000},"record""#;
    assert!(text.contains(stored), "{text}");
    assert_eq!(decode(&text).unwrap(), reused);
    for (field, wrong) in [
        (r#""max_calls":128"#, r#""max_calls":0"#),
        (r#""max_concurrent":1"#, r#""max_concurrent":65"#),
        (r#""idle_ms":10000"#, r#""idle_ms":1"#),
    ] {
        refused(decode(&text.replace(field, wrong)), "not within");
    }
    let mut with_path = version();
    with_path.spec.invoke_path = Some("/in".to_owned());
    let text = encode_version(&with_path).unwrap();
    assert!(
        text.contains(r#""config":{},"invoke_path":"/in","record""#),
        "{text}"
    );
    assert_eq!(decode(&text).unwrap(), with_path);
    let others = [
        (r#"{"wasm":"#, Code::Echo, r#""echo""#),
        (
            r#"{"wasm":"#,
            Code::Endpoint {
                url: "http://a/".into(),
            },
            r#"{"endpoint":{"url":"http://a/"}}"#,
        ),
    ];
    for (_, code, stored) in others {
        let version = Version { code, ..version() };
        let text = encode_version(&version).unwrap();
        assert!(text.contains(&format!(r#""code":{stored}"#)), "{text}");
        assert_eq!(decode(&text).unwrap(), version);
    }
}

#[test]
fn settings_are_written_in_format_3_and_read_in_all() {
    let settings = FunctionSettings {
        concurrency: 4,
        queue_size: 100,
        rate_per_second: Some(50),
        burst: None,
        hosts: [].into(),
    };
    let in_1 = r#"{"format":1,"concurrency":4,"queue_size":100,"rate_per_second":50,"burst":null}"#;
    let in_format = |format: &str| in_1.replacen(r#""format":1"#, format, 1);
    let in_3 = in_format(r#""format":3"#);
    assert_eq!(encode_settings(&settings).unwrap(), in_3);
    for text in [in_1, &in_format(r#""format":2"#), &in_3] {
        assert_eq!(decode_settings(text).unwrap(), settings);
    }
    let settings = FunctionSettings {
        hosts: [host("a.example"), host("b.example")].into(),
        ..settings
    };
    let text = encode_settings(&settings).unwrap();
    assert!(
        text.ends_with(r#""burst":null,"hosts":["a.example","b.example"]}"#),
        "{text}"
    );
    assert_eq!(decode_settings(&text).unwrap(), settings);
    refused(
        decode_settings(&text.replace("a.example", "127.0.0.1")),
        "host name",
    );
}

#[track_caller]
fn refused<T: std::fmt::Debug>(decoded: Result<T, Unreadable>, reason: &str) {
    let error = decoded.expect_err("it was read").to_string();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn hostile_settings_and_versions_are_refused_with_a_reason() {
    refused(decode_settings(""), "settings");
    refused(decode_settings("[]"), "settings");
    refused(decode_settings(r#"{"format":4}"#), "format 4 is unknown");
    refused(decode_settings(r#"{"format":0}"#), "format 0 is unknown");
    let zero =
        r#"{"format":1,"concurrency":0,"queue_size":100,"rate_per_second":null,"burst":null}"#;
    refused(decode_settings(zero), "concurrency is 0");
    for (sound, hostile, reason) in [
        (
            r#""timeout_ms":30000"#,
            r#""timeout_ms":18446744073709551615"#,
            "timeout_ms",
        ),
        (r#""cpu_ms":null"#, r#""cpu_ms":0"#, "cpu_ms"),
        (r#""memory_mb":256"#, r#""memory_mb":-1"#, "version"),
        (r#""max_retries":3"#, r#""max_retries":101"#, "max_retries"),
        (
            r#""max_age_ms":86400000"#,
            r#""max_age_ms":0"#,
            "max_age_ms",
        ),
        (r#""record":"auto""#, r#""record":"never""#, "never"),
        ("core_command", "coffee", "coffee"),
        ("0707", "zz07", "hexadecimal"),
        (r#""args":[],"#, "", "args"),
    ] {
        let text = VERSION_1.replacen(sound, hostile, 1);
        assert_ne!(text, VERSION_1);
        refused(decode(&text), reason);
    }
}

#[test]
fn logs_are_written_and_read_in_format_1() {
    let logs = Logs {
        lines: vec![LogLine {
            stream: LogStream::Stderr,
            text: "hi".to_owned(),
        }],
        truncated: true,
    };
    let bytes = [1, 1, 2, 2, 0, 0, 0, b'h', b'i'];
    assert_eq!(encode_logs(&logs).unwrap().unwrap(), bytes);
    assert_eq!(decode_logs(Some(&bytes)).unwrap(), logs);
    assert_eq!(encode_logs(&Logs::default()).unwrap(), None);
    assert_eq!(decode_logs(None).unwrap(), Logs::default());
}

#[test]
fn damaged_logs_are_refused() {
    let damaged: [&[u8]; 8] = [
        &[],
        &[1],
        &[2, 0],
        &[1, 2],
        &[1, 0, 1],
        &[1, 0, 5, 0, 0, 0, 0],
        &[1, 0, 1, 255, 255, 255, 255, b'a'],
        &[1, 0, 1, 1, 0, 0, 0, 0xff],
    ];
    for bytes in damaged {
        refused(decode_logs(Some(bytes)), "logs");
    }
}

#[test]
fn words_keep_their_numbers() {
    let codes = Status::ALL.map(status_code);
    assert_eq!(codes, [0, 1, 2, 3, 4, 5]);
    for status in Status::ALL {
        assert_eq!(status_of(status_code(status)), Ok(status));
    }
    refused(status_of(6), "status");
    for (code, encoding) in [
        (0, Encoding::Json),
        (1, Encoding::Text),
        (2, Encoding::Base64),
    ] {
        assert_eq!(encoding_code(encoding), code);
        assert_eq!(encoding_of(code), Ok(encoding));
    }
    refused(encoding_of(-1), "encoding");
    refused(outcome_of("coffee"), "outcome");
}

#[test]
fn metadata_is_pairs_in_order() {
    assert_eq!(encode_metadata(&[]).unwrap(), None);
    assert_eq!(*decode_metadata(None).unwrap(), []);
    let pairs = [
        ("b".to_owned(), "1".to_owned()),
        ("a".to_owned(), "\"".to_owned()),
    ];
    let text = encode_metadata(&pairs).unwrap().unwrap();
    assert_eq!(text, r#"[["b","1"],["a","\""]]"#);
    assert_eq!(*decode_metadata(Some(&text)).unwrap(), pairs);
    refused(decode_metadata(Some("[1]")), "metadata");
}
