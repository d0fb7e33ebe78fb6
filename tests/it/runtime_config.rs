//! The runtime config over HTTP, as nanofaas's clients ask for it, and from the command line.

use pelton::api::RuntimeConfigApi;
use serde_json::{Value, json};

use crate::support::binary::{Server, pelton};
use crate::support::world::{Answer, World};

const PATH: &str = "/v1/admin/runtime-config";
const VALIDATE: &str = "/v1/admin/runtime-config/validate";

fn defaults() -> Value {
    json!({
        "revision": 0,
        "rateMaxPerSecond": 1_000_000,
        "syncQueueEnabled": true,
        "syncQueueAdmissionEnabled": true,
        "syncQueueMaxDepth": 4096,
        "syncQueueMaxEstimatedWait": "PT5M",
        "syncQueueMaxQueueWait": "PT5M",
        "syncQueueRetryAfterSeconds": 2,
    })
}

async fn shown(world: &World) -> Value {
    world.get(PATH).await.expect(200)
}

async fn patch(world: &World, body: Value) -> Answer {
    world.patch(PATH, body).await
}

#[tokio::test]
async fn it_starts_at_revision_0_with_the_values_of_the_start() {
    let world = World::new().await;
    assert_eq!(shown(&world).await, defaults());
    let revision = "controlplane_runtime_config_revision";
    assert_eq!(world.metric(revision).await, Some(0.0));
}

#[tokio::test]
async fn a_change_raises_the_revision_and_is_in_force_when_it_is_answered() {
    let world = World::new().await;
    let answer = patch(
        &world,
        json!({"expectedRevision": 0, "rateMaxPerSecond": 500}),
    )
    .await;
    let changed = answer.expect(200);
    let mut expected = defaults();
    expected["revision"] = json!(1);
    expected["rateMaxPerSecond"] = json!(500);
    assert_eq!(changed["revision"], 1);
    assert_eq!(changed["effectiveConfig"], expected);
    assert_eq!(changed["appliedAt"], "2026-01-01T00:00:00.000Z");
    assert_eq!(changed["changeId"].as_str().unwrap().len(), 36);
    assert_eq!(changed["warnings"], json!([]));
    assert_eq!(shown(&world).await, expected);

    let all = json!({
        "expectedRevision": 1,
        "rateMaxPerSecond": 7,
        "syncQueueEnabled": true,
        "syncQueueAdmissionEnabled": false,
        "syncQueueMaxDepth": 8,
        "syncQueueMaxEstimatedWait": "PT0.5S",
        "syncQueueMaxQueueWait": "P1DT0S",
        "syncQueueRetryAfterSeconds": 9,
    });
    let changed = patch(&world, all).await.expect(200);
    let expected = json!({
        "revision": 2,
        "rateMaxPerSecond": 7,
        "syncQueueEnabled": true,
        "syncQueueAdmissionEnabled": false,
        "syncQueueMaxDepth": 8,
        "syncQueueMaxEstimatedWait": "PT0.5S",
        "syncQueueMaxQueueWait": "PT24H",
        "syncQueueRetryAfterSeconds": 9,
    });
    assert_eq!(changed["effectiveConfig"], expected);
    let warnings = changed["warnings"].to_string();
    assert!(
        warnings.contains("syncQueueMaxEstimatedWait does nothing"),
        "{warnings}"
    );
    // Null goes back to the start.
    let back = json!({"expectedRevision": 2, "syncQueueMaxDepth": null, "rateMaxPerSecond": null});
    let changed = patch(&world, back).await.expect(200);
    assert_eq!(changed["effectiveConfig"]["syncQueueMaxDepth"], 4096);
    assert_eq!(changed["effectiveConfig"]["rateMaxPerSecond"], 1_000_000);
    for (series, value) in [
        ("controlplane_runtime_config_revision", 3.0),
        (
            "controlplane_runtime_config_updates_total{status=\"success\"}",
            3.0,
        ),
        (
            "controlplane_runtime_config_updates_total{status=\"failure\"}",
            0.0,
        ),
        (
            "controlplane_runtime_config_apply_duration_seconds_count",
            3.0,
        ),
    ] {
        assert_eq!(world.metric(series).await, Some(value), "{series}");
    }
}

#[tokio::test]
async fn a_change_names_the_revision_that_it_is_made_to() {
    let world = World::new().await;
    for body in [
        json!({"rateMaxPerSecond": 500}),
        json!({"rateMaxPerSecond": 500, "expectedRevision": null}),
    ] {
        let refused = patch(&world, body).await;
        let message = refused.refused(400, "VALIDATION_ERROR");
        assert!(message.contains("expectedRevision: is needed"), "{message}");
    }
    let refused = patch(
        &world,
        json!({"expectedRevision": 99, "rateMaxPerSecond": 500}),
    )
    .await;
    let message = refused.refused(409, "REVISION_CONFLICT");
    assert!(message.contains("at revision 0"), "{message}");
    assert_eq!(refused.json["currentRevision"], 0);
    assert_eq!(shown(&world).await, defaults());
    let failures = "controlplane_runtime_config_updates_total{status=\"failure\"}";
    assert_eq!(world.metric(failures).await, Some(1.0));
}

#[tokio::test]
async fn values_that_cannot_be_meant_are_named_all_at_once_before_the_revision() {
    let world = World::new().await;
    for (body, fields) in [
        (json!({"rateMaxPerSecond": 0}), vec!["rateMaxPerSecond"]),
        (json!({"rateMaxPerSecond": -1}), vec!["rateMaxPerSecond"]),
        (
            json!({"syncQueueMaxEstimatedWait": "PT3S", "syncQueueMaxQueueWait": "PT2S"}),
            vec!["syncQueueMaxEstimatedWait"],
        ),
        (
            json!({"syncQueueMaxQueueWait": "PT0S"}),
            vec!["syncQueueMaxQueueWait"],
        ),
        (
            json!({
                "syncQueueRetryAfterSeconds": 0, "syncQueueMaxDepth": 0, "syncQueueMaxQueueWait": "-PT1S",
                "rateMaxPerSecond": 2_000_000_000_u64,
            }),
            vec![
                "rateMaxPerSecond",
                "syncQueueMaxDepth",
                "syncQueueMaxQueueWait",
                "syncQueueRetryAfterSeconds",
            ],
        ),
    ] {
        for revision in [json!(0), json!(99)] {
            let mut body = body.clone();
            body["expectedRevision"] = revision;
            let refused = patch(&world, body.clone()).await;
            refused.refused(422, "INVALID_CONFIG");
            let asked = world.post(VALIDATE, body).await;
            asked.refused(422, "INVALID_CONFIG");
            for answer in [refused, asked] {
                assert_eq!(answer.json["errors"], answer.json["details"]);
                let errors = answer.json["errors"].as_array().unwrap();
                let mut names: Vec<_> = errors
                    .iter()
                    .map(|error| error.as_str().unwrap().split(':').next().unwrap())
                    .collect();
                names.sort_unstable();
                assert_eq!(names, fields);
            }
        }
    }
    assert_eq!(shown(&world).await, defaults());
}

#[tokio::test]
async fn what_cannot_be_read_is_named_with_its_value() {
    let world = World::new().await;
    for (field, value) in [
        ("syncQueueMaxQueueWait", json!("5s")),
        ("syncQueueMaxQueueWait", json!("P1M")),
        ("syncQueueMaxEstimatedWait", json!(5)),
        ("rateMaxPerSecond", json!("500")),
        ("syncQueueEnabled", json!("yes")),
        ("syncQueueMaxDepth", json!(1.5)),
    ] {
        let mut body = json!({"expectedRevision": 0});
        body[field] = value.clone();
        for answer in [
            patch(&world, body.clone()).await,
            world.post(VALIDATE, body).await,
        ] {
            let message = answer.refused(400, "VALIDATION_ERROR");
            assert!(message.starts_with(field), "{message}");
            assert_eq!(
                (&answer.json["field"], &answer.json["value"]),
                (&json!(field), &value)
            );
        }
    }
    let misspelt = patch(&world, json!({"expectedRevision": 0, "rateMaxPerSec": 5})).await;
    let message = misspelt.refused(400, "VALIDATION_ERROR");
    assert!(
        message.contains("did you mean rateMaxPerSecond?"),
        "{message}"
    );
    let many =
        json!({"syncQueueEnabled": 1, "rateMaxPerSecond": 0, "syncQueueMaxQueueWait": "soon"});
    let message = patch(&world, many).await.refused(400, "VALIDATION_ERROR");
    for field in [
        "syncQueueEnabled",
        "rateMaxPerSecond",
        "syncQueueMaxQueueWait",
        "expectedRevision",
    ] {
        assert!(message.contains(field), "{message}");
    }
    for body in ["", "[]", "{", "null"] {
        let json = [("content-type", "application/json")];
        let answer = world.ask("PATCH", PATH, &json, body.to_owned()).await;
        answer.refused(400, "BAD_REQUEST");
    }
    let answer = world.ask("PATCH", PATH, &[], "{}".to_owned()).await;
    answer.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(shown(&world).await, defaults());
}

#[tokio::test]
async fn validating_changes_nothing() {
    let world = World::new().await;
    for body in [
        json!({}),
        json!({"rateMaxPerSecond": 500}),
        json!({"rateMaxPerSecond": 500, "expectedRevision": 99}),
    ] {
        let valid = world.post(VALIDATE, body).await.expect(200);
        assert_eq!(valid, json!({"valid": true, "warnings": []}));
    }
    let off = world
        .post(VALIDATE, json!({"syncQueueEnabled": false}))
        .await;
    let warnings = off.expect(200)["warnings"].to_string();
    assert!(warnings.contains("syncQueueEnabled is false"), "{warnings}");
    assert_eq!(shown(&world).await, defaults());
}

#[tokio::test]
async fn turned_off_it_is_not_there() {
    let world = World::new()
        .options(|options| options.runtime_config = RuntimeConfigApi::Off)
        .await;
    for answer in [
        world.get(PATH).await,
        patch(&world, json!({"expectedRevision": 0})).await,
        world.post(VALIDATE, json!({})).await,
    ] {
        let message = answer.refused(404, "NOT_FOUND");
        assert!(message.contains("--runtime-config on"), "{message}");
    }
}

#[tokio::test]
async fn other_methods_are_told_which_there_are() {
    let world = World::new().await;
    for (method, path, allow) in [("PUT", PATH, "GET,HEAD,PATCH"), ("GET", VALIDATE, "POST")] {
        let answer = world.ask(method, path, &[], "".to_owned()).await;
        answer.refused(405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), allow);
    }
}

#[track_caller]
fn shows(text: &str, rows: &[&str]) {
    for row in rows {
        assert!(text.contains(row), "{row:?} is missing in\n{text}");
    }
}

#[test]
fn an_operator_changes_it_from_the_command_line_and_it_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = ["--sync-queue-max-depth", "50", "--no-sync-queue-admission"];
    let mut server = Server::start(&data, &flags);
    let first = server.run(&["config", "get"]).code(0).stdout;
    shows(
        &first,
        &[
            "revision                    0",
            "syncQueueMaxDepth           50",
            "syncQueueAdmissionEnabled   false",
            "syncQueueMaxQueueWait       PT5M",
        ],
    );
    let set = [
        "config",
        "set",
        "rateMaxPerSecond=500",
        "syncQueueMaxQueueWait=PT0.5S",
    ];
    let changed = server.run(&set).code(0);
    shows(&changed.stdout, &["rateMaxPerSecond            500"]);
    shows(&changed.stderr, &["warning: syncQueueAdmissionEnabled"]);
    let valid = server
        .run(&["config", "validate", "syncQueueMaxDepth=9"])
        .code(0);
    assert_eq!(valid.stdout, "valid\n");
    let invalid = server.run(&["config", "set", "rateMaxPerSecond=0"]).code(3);
    shows(&invalid.stderr, &["INVALID_CONFIG"]);
    let stale = [
        "config",
        "set",
        "--expected-revision",
        "0",
        "rateMaxPerSecond=9",
    ];
    let stale = server.run(&stale).code(3);
    shows(&stale.stderr, &["pelton config get"]);
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    drop(server);

    // What was set stays; the rest follows the flags.
    let server = Server::start(
        &data,
        &["--sync-queue-max-depth", "60", "--rate-max-per-second", "9"],
    );
    let shown = server.run(&["config", "get", "--json"]).code(0).json();
    assert_eq!(shown["revision"], 1);
    assert_eq!(shown["rateMaxPerSecond"], 500);
    assert_eq!(shown["syncQueueMaxQueueWait"], "PT0.5S");
    assert_eq!(shown["syncQueueMaxDepth"], 60);
    assert_eq!(shown["syncQueueAdmissionEnabled"], true);
    let back = server
        .run(&["config", "set", "rateMaxPerSecond=null", "--json"])
        .code(0);
    assert_eq!(back.json()["effectiveConfig"]["rateMaxPerSecond"], 9);
}

#[test]
fn a_flag_turns_it_off() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &["--runtime-config", "off"]);
    let refused = server.run(&["config", "get"]).code(3);
    shows(&refused.stderr, &["turned off"]);
    let bad = pelton()
        .args(["config", "set", "rateMaxPerSecond"])
        .output()
        .unwrap();
    assert_eq!(bad.status.code(), Some(2));
}
