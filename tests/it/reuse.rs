//! Instances that answer more than one call: what they keep, what they must not, and what ends them.
//!
//! The guests count their calls in a global. Tests that share the process's runtime have functions of their own names.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use pelton::model::Dice;
use pelton::net::Loopback;
use pelton::runtime::{InProcessCompiler, Options, ReuseCalls, Runtime};
use serde_json::{Value, json};

use crate::support::guests;
use crate::support::origin::{Origin, ok};
use crate::support::probes::Probe;
use crate::support::programs::{COPIES, program};
use crate::support::web_guests::{http02, http03};
use crate::support::world::{World, within};

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";

const SHAPES: [(&str, Probe); 3] = [
    ("handler", Probe::Handler),
    ("http02", Probe::Http02),
    ("http03", Probe::Http03),
];

/// A runtime in a folder of its own.
fn runtime(folder: &Path, change: impl FnOnce(&mut Options)) -> Runtime {
    let mut options = Options::new(folder);
    options.guests_max = 8;
    options.outgoing.loopback = Loopback::Allowed;
    change(&mut options);
    Runtime::open(&options, Arc::new(InProcessCompiler::new().unwrap())).unwrap()
}

/// A spec with what all probes have to be granted.
fn granted(mut spec: Value) -> Value {
    spec["allowHosts"] = json!([]);
    spec
}

/// A world with a function of each shape under names that begin with `prefix`.
async fn shapes(prefix: &str, spec: &Value) -> World {
    let mut world = World::new().background();
    for (name, probe) in SHAPES {
        let name = format!("{prefix}-{name}");
        world = world
            .function(&name, probe.wasm())
            .spec(granted(spec.clone()));
    }
    world.await
}

fn names(prefix: &str) -> impl Iterator<Item = String> + '_ {
    SHAPES
        .iter()
        .map(move |(name, _)| format!("{prefix}-{name}"))
}

/// The output of a call, or the code of its failure.
async fn asked(world: &World, name: &str, probe: &str) -> String {
    let input = json!({"probe": probe});
    let answer = within(name, world.invoke(name, input)).await.expect(200);
    match answer["output"].as_str() {
        Some(output) => output.trim_end().to_owned(),
        None => answer["error"]["code"].as_str().unwrap().to_owned(),
    }
}

async fn all_asked(world: &World, name: &str, probes: &[&str]) -> Vec<String> {
    let mut answers = Vec::new();
    for probe in probes {
        answers.push(asked(world, name, probe).await);
    }
    answers
}

/// The outcome of an execution from the queue, and what it logged.
async fn queued(world: &World, name: &str, probe: &str) -> (Value, Vec<String>) {
    let id = world.enqueue(name, json!({"probe": probe})).await;
    let execution = world.ended(&id).await;
    let lines = world.attempts(&id).await[0]["lines"].clone();
    let lines = lines.as_array().unwrap();
    let text = |line: &Value| line["text"].as_str().unwrap().to_owned();
    (execution, lines.iter().map(text).collect())
}

const COUNTS: [&str; 5] = ["count"; 5];

#[tokio::test]
async fn every_call_gets_a_fresh_instance_unless_the_function_says_otherwise() {
    let world = shapes("fresh", &json!({})).await;
    for name in names("fresh") {
        assert_eq!(all_asked(&world, &name, &COUNTS[..3]).await, ["1"; 3]);
    }
}

#[tokio::test]
async fn an_instance_answers_as_many_calls_as_it_may_and_no_more() {
    let world = shapes("counted", &json!({"reuse": {"maxCalls": 3}})).await;
    for name in names("counted") {
        let counts = all_asked(&world, &name, &COUNTS).await;
        assert_eq!(counts, ["1", "2", "3", "1", "2"], "{name}");
    }
}

#[tokio::test]
async fn a_web_functions_instance_answers_through_its_own_path_too() {
    let world = World::new()
        .background()
        .function("direct-02", http02())
        .spec(json!({"reuse": {"maxCalls": 3}}))
        .function("direct-03", http03())
        .spec(json!({"reuse": {"maxCalls": 3}}))
        .await;
    for name in ["direct-02", "direct-03"] {
        let mut counts = Vec::new();
        for _ in 0..5 {
            let answer = within(name, world.get(&format!("/fn/{name}/count"))).await;
            assert_eq!(answer.status, 200);
            counts.push(String::from_utf8(answer.body.to_vec()).unwrap());
            // The caller may be answered before its guest has ended.
            world.ended(answer.header("x-execution-id")).await;
        }
        assert_eq!(counts, ["1", "2", "3", "1", "2"], "{name}");
        // What is answered is the call's own, in either direction.
        for body in ["one".to_owned(), "two".repeat(100_000)] {
            let path = format!("/fn/{name}/echo");
            let answer = within(name, world.ask("POST", &path, &[], body.clone())).await;
            assert_eq!(answer.body, body);
        }
    }
}

#[tokio::test]
async fn logs_are_the_calls_own_and_their_limit_is_anew() {
    let spec = json!({"reuse": {}, "logBytesMax": 6});
    let world = shapes("logs", &spec).await;
    for name in names("logs") {
        for call in 1..=3 {
            let (execution, lines) = queued(&world, &name, "count").await;
            assert_eq!(execution["status"], "success", "{execution}");
            assert_eq!(lines, [format!("call {call}")], "{name}");
        }
    }
}

#[tokio::test]
async fn cpu_time_is_counted_anew_for_each_call() {
    // All calls together compute for longer than the limit of one.
    let spec = json!({"reuse": {}, "cpuMs": 400, "maxRetries": 1});
    let world = shapes("cpu", &spec).await;
    for name in names("cpu") {
        for call in 1..=30 {
            assert_eq!(asked(&world, &name, "burn").await, call.to_string());
        }
        assert_eq!(asked(&world, &name, "spin").await, "CPU_LIMIT");
        assert_eq!(asked(&world, &name, "count").await, "1");
    }
}

#[tokio::test]
async fn a_trap_a_limit_or_a_timeout_ends_the_instance() {
    let spec = json!({"reuse": {}, "maxRetries": 1, "memoryMb": 16, "timeoutMs": 2000, "outputBytesMax": 6});
    let world = shapes("ends", &spec).await;
    for name in names("ends") {
        let counts = all_asked(&world, &name, &["count", "count", "panic", "count"]).await;
        assert_eq!(counts, ["1", "2", "TRAP", "1"], "{name}");
        let counts = all_asked(&world, &name, &["random", "count", "spin", "count"]).await;
        assert_eq!(counts, ["OUTPUT_TOO_LARGE", "1", "TIMEOUT", "1"], "{name}");
        // Memory is the instance's: what it hoards adds up, until it is told.
        let hoards = all_asked(&world, &name, &["hoard"; 4]).await;
        assert_eq!(hoards[..2], ["2", "3"], "{name}");
        let told = |hoard: &String| hoard == "MEMORY_LIMIT" || hoard == "TRAP";
        assert!(hoards.iter().any(told), "{name}: {hoards:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_takes_its_instance_with_it() {
    let world = shapes("cancelled", &json!({"reuse": {}, "maxRetries": 1})).await;
    for name in names("cancelled") {
        assert_eq!(asked(&world, &name, "count").await, "1");
        let id = world.enqueue(&name, json!({"probe": "sleep"})).await;
        world.reached(&id, "running").await;
        let cancelled = world
            .ask("POST", &format!("/v1/executions/{id}:cancel"), &[], "")
            .await;
        assert!(cancelled.status < 300, "{cancelled:?}");
        assert_eq!(world.ended(&id).await["status"], "cancelled");
        // The next call may come before the interrupted guest has let go: it gets another instance anyway.
        assert_eq!(asked(&world, &name, "count").await, "1", "{name}");
    }
}

#[tokio::test]
async fn a_changed_function_never_meets_an_instance_from_before() {
    let world = shapes("changed", &json!({"reuse": {}})).await;
    for ((_, probe), name) in SHAPES.iter().zip(names("changed")) {
        let path = format!("/v1/functions/{name}");
        let two = ["count", "count"];
        assert_eq!(all_asked(&world, &name, &two).await, ["1", "2"]);
        let patched = world.patch(&path, json!({"timeoutMs": 29_000})).await;
        patched.expect(200);
        assert_eq!(all_asked(&world, &name, &two).await, ["1", "2"], "PATCH");
        let patched = world.patch(&path, json!({"concurrency": 3})).await;
        patched.expect(200);
        assert_eq!(all_asked(&world, &name, &two).await, ["1", "2"], "setting");
        world.upload(&name, probe.wasm()).await.expect(200);
        assert_eq!(all_asked(&world, &name, &two).await, ["1", "2"], "deploy");
        assert!(world.delete(&path).await.status < 300);
        let again = world
            .upload_with(&name, &granted(json!({"reuse": {}})), &probe.wasm())
            .await;
        again.expect(201);
        assert_eq!(all_asked(&world, &name, &two).await, ["1", "2"], "again");
        world.patch(&path, json!({"reuse": null})).await.expect(200);
        assert_eq!(all_asked(&world, &name, &two).await, ["1", "1"], "off");
    }
}

#[tokio::test]
async fn functions_of_the_same_code_share_no_instance() {
    let spec = granted(json!({"reuse": {}}));
    let world = World::new()
        .background()
        .function("twin-a", Probe::Handler.wasm())
        .spec(spec.clone())
        .function("twin-b", Probe::Handler.wasm())
        .spec(spec)
        .await;
    for (name, expected) in [
        ("twin-a", "1"),
        ("twin-b", "1"),
        ("twin-a", "2"),
        ("twin-b", "2"),
    ] {
        assert_eq!(asked(&world, name, "count").await, expected);
    }
}

#[tokio::test]
async fn an_instance_that_waits_gives_way_to_whoever_needs_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |options| options.guests_max = 2);
    let told = runtime.clone();
    let mut world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime));
    for name in ["a", "b", "c"] {
        world = world
            .function(name, Probe::Handler.wasm())
            .spec(granted(json!({"reuse": {"idleMs": 3_600_000}})));
    }
    for name in ["d", "e", "f"] {
        world = world
            .function(name, http03())
            .spec(json!({"reuse": {"idleMs": 3_600_000}, "invokePath": "/count"}));
    }
    let world = world.function("fresh", program(COPIES)).await;
    for name in ["a", "b", "c", "a", "d", "e", "f", "a", "d"] {
        assert_eq!(asked(&world, name, "count").await, "1", "{name}");
    }
    let warm = told.stats().warm;
    assert_eq!((warm.idle, warm.reused), (2, 0));
    assert_eq!(asked(&world, "d", "count").await, "2");
    for name in ["fresh", "fresh"] {
        let answer = within(name, world.invoke(name, json!("x")))
            .await
            .expect(200);
        assert_eq!(answer["output"], "x");
    }
    let warm = told.stats().warm;
    assert!(warm.evicted >= 7, "{warm:?}");
    assert!(warm.idle >= 1 && warm.idle_bytes > 0, "{warm:?}");
    told.keep_none();
    assert_eq!((told.stats().warm.idle, told.stats().permits_used), (0, 0));
}

#[tokio::test]
async fn an_instance_that_nobody_calls_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |_| {});
    let told = runtime.clone();
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("f", Probe::Handler.wasm())
        .spec(granted(json!({"reuse": {"idleMs": 100}})))
        .await;
    for _ in 0..2 {
        asked(&world, "f", "count").await;
        within("its end", async {
            while told.stats().warm.idle > 0 || told.stats().permits_used > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(told.stats().warm.evicted, 0);
}

#[tokio::test]
async fn a_plane_may_keep_none() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |options| options.warm_instances_max = 0);
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("f", Probe::Handler.wasm())
        .spec(granted(json!({"reuse": {}})))
        .await;
    assert_eq!(all_asked(&world, "f", &COUNTS[..2]).await, ["1", "1"]);
}

#[tokio::test]
async fn a_test_may_have_each_instance_answer_another_number_of_calls() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |options| {
        options.reuse_calls = ReuseCalls::Random(Dice::seeded(7));
    });
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("f", Probe::Handler.wasm())
        .spec(granted(json!({"reuse": {"maxCalls": 5}})))
        .await;
    let mut last = 0;
    let mut lives = BTreeSet::new();
    for _ in 0..60 {
        let count: u32 = asked(&world, "f", "count").await.parse().unwrap();
        if count == 1 {
            lives.insert(last);
        }
        last = count;
    }
    lives.remove(&0);
    assert!(lives.len() > 2 && lives.last() <= Some(&5), "{lives:?}");
}

#[tokio::test]
async fn what_a_guest_does_after_its_answer_is_held_to_its_calls_limits() {
    let spec = json!({"reuse": {}, "timeoutMs": 300, "maxRetries": 1});
    let world = World::new()
        .background()
        .function("late", http03())
        .spec(spec)
        .await;
    for path in ["/spin-after", "/doze-after"] {
        for _ in 0..2 {
            let answer = within(path, world.get("/fn/late/count")).await;
            assert_eq!(answer.body, "1", "{path}");
            world.ended(answer.header("x-execution-id")).await;
            let answer = within(path, world.get(&format!("/fn/late{path}"))).await;
            assert_eq!(answer.body, "2", "{path}");
            let execution = world.ended(answer.header("x-execution-id")).await;
            assert_eq!(execution["status"], "success", "{execution}");
        }
    }
    assert_eq!(
        world.metric("function_inFlight{function=\"late\"}").await,
        Some(0.0)
    );
}

#[tokio::test]
async fn a_callers_body_is_not_kept_for_the_next_call() {
    let world = World::new()
        .background()
        .function("keeper", http02())
        .spec(json!({"reuse": {}}))
        .await;
    for call in 1..=3 {
        let (sender, body) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
        let stream = futures_util::stream::unfold(body, |mut body| async {
            let piece = body.recv().await?;
            Some((piece, body))
        });
        let body = axum::body::Body::from_stream(stream);
        let answer = within("keeper", world.ask("POST", "/fn/keeper/keep", &[], body)).await;
        assert_eq!(answer.body, call.to_string());
        // The guest has not let go of its body, and yet it is gone.
        within("the body's end", sender.closed()).await;
    }
}

#[tokio::test]
async fn an_instance_knows_nothing_of_a_call_in_its_environment() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |_| {});
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("f", Probe::Handler.wasm())
        .spec(granted(json!({"reuse": {}, "env": {"OWN": "1"}})))
        .await;
    let told = asked(&world, "f", "env").await;
    let names: Vec<_> = told
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    assert_eq!(names, ["FUNCTION_NAME", "OWN"]);
    world
        .patch("/v1/functions/f", json!({"reuse": null}))
        .await
        .expect(200);
    let told = asked(&world, "f", "env").await;
    assert!(told.contains("EXECUTION_ID="), "{told}");
}

#[tokio::test]
async fn an_instance_never_answers_with_an_old_secret() {
    let world = World::new()
        .background()
        .setup(|setup| setup.registry.secrets.key = Some(KEY.parse().unwrap()))
        .await;
    let set = async |value: &str| {
        let json = [("content-type", "application/json")];
        let body = json!({"value": value}).to_string();
        let answer = world.ask("PUT", "/v1/secrets/own", &json, body).await;
        assert!(answer.status < 300, "{answer:?}");
    };
    set("one").await;
    let spec = json!({
        "reuse": {},
        "allowHosts": ["a.example"],
        "secrets": {
            "OWN": {"secret": "own", "as": "env"},
            "STAND_IN": {"secret": "own", "as": "placeholder", "hosts": ["a.example"]},
        },
    });
    let name = "secretive";
    let wasm = Probe::Handler.wasm();
    world.upload_with(name, &spec, &wasm).await.expect(201);
    let told = asked(&world, name, "env").await;
    assert!(told.contains("OWN=one"), "{told}");
    // The text that stands for a secret is the instance's, which may have kept it.
    assert_eq!(asked(&world, name, "env").await, told);
    assert_eq!(asked(&world, name, "count").await, "1");
    set("two").await;
    assert_eq!(asked(&world, name, "count").await, "1");
    let told = asked(&world, name, "env").await;
    assert!(told.contains("OWN=two"), "{told}");
}

#[tokio::test]
async fn requests_are_counted_anew_for_each_call() {
    let service = Origin::answering(|_| ok("told")).await;
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |options| options.outgoing.requests_max = 1);
    let told = runtime.clone();
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("f", http02())
        .function("g", http03())
        .await;
    let origin = service.url();
    for name in ["f", "g"] {
        let spec = json!({
            "reuse": {}, "allowHosts": [origin],
            "invokePath": format!("/send?to={origin}/"),
        });
        let path = format!("/v1/functions/{name}");
        world.patch(&path, spec).await.expect(200);
        for _ in 0..3 {
            let answer = within(name, world.invoke(name, json!("x")))
                .await
                .expect(200);
            assert_eq!(answer["output"], "status 200", "{name}: {answer}");
        }
    }
    assert_eq!(told.stats().warm.reused, 4);
}

/// Calls, changes and lacks of room in any order: whoever calls is answered by one of the instances of its own
/// function, and every place of the pool comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_at_once_no_place_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |options| {
        options.guests_max = 4;
        options.warm_instances_max = 3;
        options.reuse_calls = ReuseCalls::Random(Dice::seeded(13));
    });
    let told = runtime.clone();
    let mut world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime));
    for (name, probe) in SHAPES {
        let spec =
            json!({"reuse": {"maxCalls": 4, "idleMs": 100}, "concurrency": 3, "maxRetries": 1});
        world = world.function(name, probe.wasm()).spec(granted(spec));
    }
    let world = world.function("fresh", program(COPIES)).await;
    let callers = (0..9).map(|caller| {
        let (world, (name, _)) = (&world, SHAPES[caller % 3]);
        async move {
            for call in 0..30 {
                let answer = match (caller + call) % 7 {
                    0 => asked(world, name, "panic").await,
                    1 => {
                        let answer = world.invoke("fresh", json!(call)).await.expect(200);
                        assert_eq!(answer["output"], call);
                        continue;
                    }
                    _ => asked(world, name, "count").await,
                };
                let is_count = answer
                    .parse::<u32>()
                    .is_ok_and(|count| (1..=4).contains(&count));
                assert!(is_count || answer == "TRAP", "{name}: {answer}");
            }
        }
    });
    let changes = async {
        for change in 0..20 {
            let (name, _) = SHAPES[change % 3];
            let patch = match change % 2 {
                0 => json!({"timeoutMs": 20_000 + change}),
                _ => json!({"queueSize": 100 + change}),
            };
            let path = format!("/v1/functions/{name}");
            world.patch(&path, patch).await.expect(200);
        }
    };
    let calls = futures_util::future::join_all(callers);
    futures_util::future::join(calls, changes).await;
    told.keep_none();
    within("the last guest's end", async {
        while told.stats().permits_used > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(told.stats().warm.idle, 0);
    let pool = told.stats().pool_use;
    assert_eq!((pool.memories, pool.tables), (0, 0));
}

/// More calls than the host has room for things that one instance has open.
#[tokio::test]
async fn the_host_keeps_nothing_of_a_call_that_has_ended() {
    let spec = json!({"reuse": {"maxCalls": 10_000}, "record": "summary"});
    let world = shapes("long", &spec).await;
    for name in names("long") {
        let mut last = String::new();
        for _ in 0..2100 {
            last = asked(&world, &name, "count").await;
        }
        assert_eq!(last, "2100", "{name}");
    }
}

/// The functions that are written as people write them, each instance ending after another number of calls.
#[tokio::test]
async fn what_functions_answer_does_not_depend_on_the_calls_before() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |options| {
        options.reuse_calls = ReuseCalls::Random(Dice::seeded(11));
    });
    let told = runtime.clone();
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .await;
    for name in [
        "json-transform",
        "word-stats",
        "word-stats-http",
        "word-stats-http3",
    ] {
        let spec = json!({"reuse": {"maxCalls": 6}, "maxRetries": 1});
        let wasm = guests::wasm(name);
        world.upload_with(name, &spec, &wasm).await.expect(201);
        for case in guests::cases(name).iter().cycle().take(30) {
            let input = case["input"].clone();
            let answer = within(name, world.invoke(name, input)).await.expect(200);
            let (field, expected) = match case["outcome"] == "error" {
                true => (&answer["error"]["code"], &case["code"]),
                false => (&answer["output"], &case["output"]),
            };
            assert_eq!(field, expected, "{name} {case}: {answer}");
        }
    }
    let reused = told.stats().warm.reused;
    assert!(reused > 40, "only {reused} calls met a used instance");
}

#[tokio::test]
async fn what_is_said_of_reuse_is_shown_and_what_cannot_be_is_complained_of() {
    let world = World::new()
        .function("f", Probe::Handler.wasm())
        .spec(granted(json!({"reuse": {}})))
        .await;
    let shown = world.get("/v1/functions/f").await.expect(200);
    let defaults = json!({"maxCalls": 128, "maxConcurrent": 1, "idleMs": 10_000});
    assert_eq!(shown["reuse"], defaults);
    let patch = json!({"reuse": {"maxCalls": 7}});
    let shown = world.patch("/v1/functions/f", patch).await.expect(200);
    assert_eq!(shown["reuse"]["maxCalls"], 7);
    let wrong = json!({"reuse": {"maxCalls": 0, "maxConcurrent": 65, "idleMs": 99, "maxIdle": 1}});
    let complaints = world
        .patch("/v1/functions/f", wrong)
        .await
        .refused(400, "VALIDATION_ERROR");
    for field in ["maxCalls: ", "maxConcurrent: ", "idleMs: ", "maxIdle\": "] {
        assert!(complaints.contains(field), "{complaints}");
    }
    let refused = world
        .upload_with("g", &json!({"reuse": {}}), &program(COPIES))
        .await;
    let complaint = refused.refused(400, "VALIDATION_ERROR");
    assert!(
        complaint.contains("a command's instance ends"),
        "{complaint}"
    );
}
