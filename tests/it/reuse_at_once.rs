//! Instances that have several calls in them at once: what is each call's own, and what they share.
//!
//! The guest's `/meet` waits until so many calls are in its instance; what it answers is how many there were at most, and
//! how often it was asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use http_body_util::BodyExt as _;
use pelton::model::Dice;
use pelton::net::Loopback;
use pelton::runtime::{InProcessCompiler, Options, ReuseCalls, Runtime};
use serde_json::{Value, json};

use crate::support::web_guests::{http02, http03};
use crate::support::world::{Answer, World, within};

/// A runtime in a folder of its own.
fn runtime(folder: &Path, change: impl FnOnce(&mut Options)) -> Runtime {
    let mut options = Options::new(folder);
    options.guests_max = 8;
    options.outgoing.loopback = Loopback::Allowed;
    change(&mut options);
    Runtime::open(&options, Arc::new(InProcessCompiler::new().unwrap())).unwrap()
}

/// A world with one function whose instances take several calls at once.
async fn shared(name: &str, spec: Value) -> World {
    World::new()
        .background()
        .function(name, http03())
        .spec(spec)
        .await
}

async fn got(world: &World, path: &str) -> Answer {
    within(path, world.get(path)).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// The execution behind an answer, once it has ended.
async fn recorded(world: &World, answer: &Answer) -> Value {
    world.ended(answer.header("x-execution-id")).await
}

#[tokio::test]
async fn calls_meet_in_one_instance_if_they_may() {
    let world = shared("meet", json!({"reuse": {"maxConcurrent": 4}})).await;
    let both = join(
        got(&world, "/fn/meet/meet?of=2"),
        got(&world, "/fn/meet/meet?of=2"),
    );
    let (one, other) = both.await;
    let answers: BTreeSet<_> = [text(&one), text(&other)].into();
    assert_eq!(answers, ["2 1".to_owned(), "2 2".to_owned()].into());
    for answer in [&one, &other] {
        assert_eq!(recorded(&world, answer).await["status"], "success");
    }
    // The next one finds the same instance, alone.
    let next = got(&world, "/fn/meet/count").await;
    assert_eq!(text(&next), "3");
}

#[tokio::test]
async fn calls_through_the_api_meet_too() {
    let spec = json!({"reuse": {"maxConcurrent": 2}, "invokePath": "/meet?of=2"});
    let world = shared("meet-api", spec).await;
    let both = join(
        within("one", world.invoke("meet-api", json!(1))),
        within("other", world.invoke("meet-api", json!(2))),
    );
    let (one, other) = both.await;
    let mut answers = [one, other].map(|answer| answer.expect(200)["output"].clone());
    answers.sort_by_key(Value::to_string);
    assert_eq!(answers, ["2 1", "2 2"]);
}

/// How many permits a world's guests take.
async fn all_back(told: &Runtime) {
    told.keep_none();
    within("the last guest's end", async {
        while told.stats().permits_used > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stats = told.stats();
    assert_eq!(stats.warm.idle, 0);
    assert_eq!((stats.pool_use.memories, stats.pool_use.tables), (0, 0));
}

#[tokio::test]
async fn no_more_calls_are_in_an_instance_than_may_be() {
    let spec = json!({"reuse": {"maxConcurrent": 2}, "concurrency": 6});
    let world = shared("bounded", spec).await;
    let path = "/fn/bounded/meet?of=2&then=doze";
    let answers = join_all((0..6).map(|_| got(&world, path))).await;
    for answer in &answers {
        assert!(text(answer).starts_with("2 "), "{}", text(answer));
    }
}

#[tokio::test]
async fn an_instance_takes_one_place_however_many_calls_are_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |options| options.guests_max = 1);
    let told = runtime.clone();
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("one-place", http03())
        .spec(json!({"reuse": {"maxConcurrent": 8}, "concurrency": 8}))
        .await;
    let answers = join_all((0..8).map(|_| got(&world, "/fn/one-place/meet?of=8"))).await;
    for answer in &answers {
        assert!(text(answer).starts_with("8 "), "{}", text(answer));
    }
    assert_eq!(told.stats().permits_used, 1);
    assert_eq!(told.stats().warm.reused, 7);
    all_back(&told).await;
}

#[tokio::test]
async fn an_instance_is_given_as_many_calls_as_it_may_have_in_all() {
    let spec = json!({"reuse": {"maxConcurrent": 64, "maxCalls": 3}, "concurrency": 12});
    let world = shared("in-all", spec).await;
    let answers = join_all((0..12).map(|_| got(&world, "/fn/in-all/count"))).await;
    let mut counts: Vec<_> = answers.iter().map(text).collect();
    counts.sort();
    let each = ["1", "2", "3"].into_iter();
    let expected: Vec<_> = each.flat_map(|count| [count; 4]).collect();
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn a_test_may_have_each_instance_end_after_another_number_of_calls() {
    let world = World::new()
        .background()
        .setup(|setup| {
            setup.runtime = None;
            setup.reuse_calls = ReuseCalls::Random(Dice::seeded(5));
        })
        .function("random", http03())
        .spec(json!({"reuse": {"maxConcurrent": 8, "maxCalls": 5}, "concurrency": 8}))
        .await;
    let mut lives = 0;
    let mut longest = 0;
    for _ in 0..10 {
        let answers = join_all((0..6).map(|_| got(&world, "/fn/random/count"))).await;
        for answer in &answers {
            let count: u32 = text(answer).parse().unwrap();
            lives += u32::from(count == 1);
            longest = longest.max(count);
        }
    }
    // As specified there would be twelve lives of five calls each.
    assert!(lives > 14 && lives < 60, "{lives}");
    assert!((2..=5).contains(&longest), "{longest}");
}

#[tokio::test]
async fn a_trap_is_its_calls_own_and_ends_the_instance() {
    let world = shared("trap", json!({"reuse": {"maxConcurrent": 4}})).await;
    for (path, status, code) in [
        ("meet?of=2&then=panic", 502, "TRAP"),
        ("meet?of=2&then=hoard", 500, "MEMORY_LIMIT"),
    ] {
        let path = format!("/fn/trap/{path}");
        let (failed, other) = join(
            got(&world, &path),
            got(&world, "/fn/trap/meet?of=2&then=hang"),
        )
        .await;
        assert_eq!(
            (failed.status, &failed.json["error"]),
            (status, &json!(code)),
            "{path}"
        );
        assert_eq!(other.status, 503, "{}", text(&other));
        assert_eq!(other.json["error"], "INSTANCE_ENDED");
        let message = other.json["message"].as_str().unwrap();
        assert!(message.contains("another call in it failed"), "{message}");
        assert_eq!(text(&got(&world, "/fn/trap/count").await), "1");
    }
}

#[tokio::test]
async fn what_is_nobodys_in_particular_is_everybodys() {
    let spec = json!({"reuse": {"maxConcurrent": 4}, "maxRetries": 1, "invokePath": "/hang"});
    let world = shared("nobodys", spec).await;
    let id = world.enqueue("nobodys", json!(1)).await;
    within("its beginning", world.reached(&id, "running")).await;
    let ended = got(&world, "/fn/nobodys/never").await;
    assert_eq!(
        (ended.status, &ended.json["error"]),
        (502, &json!("NO_RESPONSE"))
    );
    let execution = world.ended(&id).await;
    assert_eq!(execution["error"]["code"], "NO_RESPONSE", "{execution}");
    let message = execution["error"]["message"].as_str().unwrap();
    assert!(message.contains("nothing tells whose doing"), "{message}");
    assert_eq!(text(&got(&world, "/fn/nobodys/count").await), "1");
}

#[tokio::test]
async fn a_queued_call_that_another_one_ended_runs_again_and_it_costs_no_attempt() {
    let spec = json!({
        "reuse": {"maxConcurrent": 4}, "maxRetries": 1, "invokePath": "/meet?of=2&then=doze",
    });
    let world = shared("again", spec).await;
    let id = world.enqueue("again", json!(1)).await;
    let failed = got(&world, "/fn/again/meet?of=2&then=panic").await;
    assert_eq!(failed.status, 502);
    within("its return", world.reached(&id, "queued")).await;
    world.plane.advance(std::time::Duration::from_secs(5));
    // Alone it would wait for another one for ever.
    let other = got(&world, "/fn/again/meet?of=2").await;
    assert_eq!(other.status, 200);
    let execution = world.ended(&id).await;
    assert_eq!(execution["status"], "success", "{execution}");
    assert_eq!(
        (&execution["attempts"], &execution["faults"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_queued_call_that_others_ended_twice_has_an_instance_for_itself() {
    let spec = json!({
        "reuse": {"maxConcurrent": 4}, "maxRetries": 0, "timeoutMs": 1500,
        "invokePath": "/meet?of=2&then=doze",
    });
    let world = shared("twice", spec).await;
    let id = world.enqueue("twice", json!(1)).await;
    for _ in 0..2 {
        let failed = got(&world, "/fn/twice/meet?of=2&then=panic").await;
        assert_eq!(failed.status, 502);
        within("its return", world.reached(&id, "queued")).await;
        world.plane.advance(std::time::Duration::from_secs(60));
    }
    // It meets nobody there, and nobody it.
    let failed = got(&world, "/fn/twice/meet?of=2&then=panic").await;
    assert_eq!(failed.status, 504);
    let execution = world.ended(&id).await;
    assert_eq!(
        (&execution["attempts"], &execution["faults"]),
        (&json!(1), &json!(2)),
        "{execution}"
    );
}

#[tokio::test]
async fn a_call_whose_time_is_over_leaves_the_others_alone() {
    let spec = json!({"reuse": {"maxConcurrent": 4}, "timeoutMs": 600});
    let world = shared("late", spec).await;
    let others = async {
        let first = got(&world, "/fn/late/later?ms=300").await;
        // It is still there when the time of the one that hangs is over.
        let second = got(&world, "/fn/late/later?ms=450").await;
        [first, second]
    };
    let (late, others) = join(got(&world, "/fn/late/hang"), others).await;
    assert_eq!(late.status, 504, "{}", text(&late));
    for other in &others {
        assert_eq!(text(other), "later");
    }
    assert_eq!(recorded(&world, &late).await["status"], "timeout");
    // Nobody knows what the one that hung still does in there.
    assert_eq!(text(&got(&world, "/fn/late/count").await), "1");
}

#[tokio::test]
async fn a_call_that_computes_on_when_its_time_is_over_ends_the_instance() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |_| {});
    let told = runtime.clone();
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("spin", http03())
        .spec(json!({"reuse": {"maxConcurrent": 4}, "timeoutMs": 500}))
        .await;
    let (spun, other) = join(
        got(&world, "/fn/spin/meet?of=2&then=spin"),
        got(&world, "/fn/spin/meet?of=2&then=hang"),
    )
    .await;
    assert_eq!(spun.status, 504, "{}", text(&spun));
    assert!([503, 504].contains(&other.status), "{}", text(&other));
    assert_eq!(text(&got(&world, "/fn/spin/count").await), "1");
    all_back(&told).await;
}

#[tokio::test]
async fn cpu_time_is_held_against_the_call_that_computes() {
    let spec = json!({"reuse": {"maxConcurrent": 4}, "cpuMs": 200});
    let world = shared("burn", spec).await;
    let (spun, other) = join(
        got(&world, "/fn/burn/meet?of=2&then=spin"),
        got(&world, "/fn/burn/meet?of=2&then=hang"),
    )
    .await;
    assert_eq!(
        (spun.status, &spun.json["error"]),
        (500, &json!("CPU_LIMIT"))
    );
    assert_eq!(other.json["error"], "INSTANCE_ENDED", "{}", text(&other));
    assert_eq!(text(&got(&world, "/fn/burn/count").await), "1");
}

#[tokio::test]
async fn a_caller_who_leaves_takes_only_its_own_call_along() {
    let spec = json!({"reuse": {"maxConcurrent": 4}, "concurrency": 8});
    let world = shared("left", spec).await;
    let request = |path: &str| {
        let request = axum::http::Request::get(path).header("host", "127.0.0.1");
        request.body(axum::body::Body::empty()).unwrap()
    };
    let leaving = async {
        // One with a part of its answer, and one before it has any.
        let stalled = world.open(request("/fn/left/stall")).await;
        assert_eq!(stalled.status(), 200);
        let id = stalled.headers()["x-execution-id"]
            .to_str()
            .unwrap()
            .to_owned();
        drop(stalled);
        let execution = world.ended(&id).await;
        assert_eq!(execution["error"]["code"], "CALLER_GONE", "{execution}");
    };
    let (other, ()) = join(got(&world, "/fn/left/later?ms=300"), leaving).await;
    assert_eq!(text(&other), "later");
    assert_eq!(text(&got(&world, "/fn/left/count").await), "1");
    let hung = got(&world, "/fn/left/hang");
    let other = got(&world, "/fn/left/later?ms=100");
    tokio::select! {
        _ = hung => unreachable!("it hangs"),
        other = other => assert_eq!(text(&other), "later"),
    }
    let hung = world.executions_of("left").await;
    let hung = hung
        .iter()
        .find(|it| it["status"] != "success" && it["error"].is_null());
    if let Some(hung) = hung {
        let execution = world.ended(hung["executionId"].as_str().unwrap()).await;
        assert_eq!(execution["error"]["code"], "CALLER_GONE", "{execution}");
    }
    assert_eq!(text(&got(&world, "/fn/left/count").await), "1");
}

#[tokio::test]
async fn answers_that_come_piece_by_piece_do_not_mix() {
    let spec = json!({"reuse": {"maxConcurrent": 16}, "concurrency": 16});
    let world = shared("drips", spec).await;
    let drips = (0..8).map(|caller| {
        let path = format!("/fn/drips/drip?count=40&word=word-{caller}.");
        let world = &world;
        async move { (caller, got(world, &path).await) }
    });
    let echoes = (0..8).map(|caller| {
        let world = &world;
        async move {
            let body = format!("body {caller} ").repeat(30_000);
            let answer = world.ask("POST", "/fn/drips/echo", &[], body.clone()).await;
            assert_eq!(within("echo", async { answer }).await.body, body);
        }
    });
    let (drips, _) = join(join_all(drips), join_all(echoes)).await;
    for (caller, answer) in drips {
        assert_eq!(text(&answer), format!("word-{caller}.").repeat(40));
    }
    // All of them were in one.
    assert_eq!(text(&got(&world, "/fn/drips/count").await), "1");
}

#[tokio::test]
async fn nobody_joins_calls_from_before_a_change() {
    let spec = json!({"reuse": {"maxConcurrent": 4}});
    let path = "/v1/functions/changes";
    for change in [json!({"queueSize": 50}), json!({"timeoutMs": 20_000})] {
        let world = shared("changes", spec.clone()).await;
        assert_eq!(text(&got(&world, "/fn/changes/count").await), "1");
        let (earlier, later) = join(got(&world, "/fn/changes/later?ms=300"), async {
            // It is in there.
            assert_eq!(text(&got(&world, "/fn/changes/count").await), "2");
            world.patch(path, change).await.expect(200);
            got(&world, "/fn/changes/count").await
        })
        .await;
        assert_eq!(
            (text(&earlier), text(&later)),
            ("later".to_owned(), "1".to_owned())
        );
    }
}

#[tokio::test]
async fn what_is_written_while_several_are_in_an_instance_is_marked() {
    let spec = json!({"reuse": {"maxConcurrent": 4}, "invokePath": "/meet?of=2&say=hello"});
    let world = shared("says", spec).await;
    let lines = async |id: &str| {
        world.ended(id).await;
        let lines = world.attempts(id).await[0]["lines"].clone();
        let lines = lines.as_array().unwrap().clone();
        let of = |line: &Value| (line["stream"].clone(), line["text"].clone());
        lines.iter().map(of).collect::<Vec<_>>()
    };
    let ids = [
        world.enqueue("says", json!(1)).await,
        world.enqueue("says", json!(2)).await,
    ];
    let hello = (json!("stdout"), json!("hello"));
    let mut marked = 0;
    for id in &ids {
        let lines = within("logs", lines(id)).await;
        let at = lines.iter().position(|(stream, _)| stream == "pelton");
        marked += usize::from(at.is_some());
        // The first one's own line comes before the other one is there.
        assert!(lines.contains(&hello), "{lines:?}");
    }
    assert_eq!(marked, 2);
    let patch = json!({"invokePath": "/meet?of=1&say=hello"});
    world.patch("/v1/functions/says", patch).await.expect(200);
    let id = world.enqueue("says", json!(3)).await;
    assert_eq!(within("log", lines(&id)).await, [hello]);
}

#[tokio::test]
async fn what_a_guest_does_after_its_answer_is_waited_for_if_it_is_alone() {
    let spec = json!({"reuse": {"maxConcurrent": 4}, "timeoutMs": 400, "invokePath": "/after"});
    let world = shared("after", spec).await;
    let id = world.enqueue("after", json!(1)).await;
    assert_eq!(world.ended(&id).await["status"], "success");
    assert_eq!(
        world.attempts(&id).await[0]["lines"][0]["text"],
        "worked on"
    );
    for path in ["/fn/after/spin-after", "/fn/after/doze-after"] {
        let answer = got(&world, path).await;
        assert_eq!(
            recorded(&world, &answer).await["status"],
            "success",
            "{path}"
        );
        assert_eq!(text(&got(&world, "/fn/after/count").await), "1", "{path}");
        world
            .patch("/v1/functions/after", json!({"queueSize": 60}))
            .await
            .expect(200);
        world
            .patch("/v1/functions/after", json!({"queueSize": 61}))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn only_what_can_take_several_calls_may_ask_for_it() {
    let world = World::new()
        .function("f", http03())
        .spec(json!({"reuse": {}}))
        .await;
    let patch = json!({"reuse": {"maxConcurrent": 64}});
    let shown = world.patch("/v1/functions/f", patch).await.expect(200);
    assert_eq!(shown["reuse"]["maxConcurrent"], 64);
    for wrong in [json!(0), json!(65), json!("2"), json!(1.5)] {
        let patch = json!({"reuse": {"maxConcurrent": wrong}});
        let refused = world.patch("/v1/functions/f", patch).await;
        let complaint = refused.refused(400, "VALIDATION_ERROR");
        assert!(complaint.contains("reuse.maxConcurrent"), "{complaint}");
    }
    let spec = json!({"reuse": {"maxConcurrent": 2}});
    let refused = world.upload_with("g", &spec, &http02()).await;
    let complaint = refused.refused(400, "VALIDATION_ERROR");
    assert!(complaint.contains("for the shape http-0.2"), "{complaint}");
    world.upload("g", http02()).await.expect(201);
    let refused = world.patch("/v1/functions/g", spec).await;
    let complaint = refused.refused(400, "VALIDATION_ERROR");
    assert!(complaint.contains("for the shape http-0.2"), "{complaint}");
}

/// The status and the body of an answer, nothing if the body broke off.
async fn opened(world: &World, path: &str) -> (u16, Option<String>) {
    let request = axum::http::Request::get(path).header("host", "127.0.0.1");
    let response = world
        .open(request.body(axum::body::Body::empty()).unwrap())
        .await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok();
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    (status, body.map(|body| text(body.to_bytes())))
}

/// Whatever happens to calls at once: each is answered as itself or told that its instance ended, and every place of
/// the pool comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_calls_at_once_no_place_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), |options| {
        options.guests_max = 3;
        options.reuse_calls = ReuseCalls::Random(Dice::seeded(17));
    });
    let told = runtime.clone();
    let spec = json!({
        "reuse": {"maxConcurrent": 4, "maxCalls": 9, "idleMs": 100}, "concurrency": 6, "timeoutMs": 3000,
    });
    let world = World::new()
        .background()
        .setup(|setup| setup.runtime = Some(runtime))
        .function("all-a", http03())
        .spec(spec.clone())
        .function("all-b", http03())
        .spec(spec)
        .await;
    let callers = (0..10).map(|caller| {
        let (world, name) = (&world, ["all-a", "all-b"][caller % 2]);
        async move {
            for call in 0..20 {
                let word = format!("{caller}-{call}.");
                let (path, expected) = match (caller + call) % 8 {
                    0 => ("panic".to_owned(), None),
                    1 => ("down?bytes=200000".to_owned(), Some("d".repeat(200_000))),
                    2 => ("later?ms=3".to_owned(), Some("later".to_owned())),
                    _ => (format!("drip?count=3&word={word}"), Some(word.repeat(3))),
                };
                let (status, body) =
                    within(&path, opened(world, &format!("/fn/{name}/{path}"))).await;
                match (status, expected, body) {
                    // A body that had begun breaks off when another call ends the instance.
                    (200, Some(_), None) => {}
                    (200, Some(expected), Some(body)) => assert_eq!(body, expected, "{path}"),
                    (502, None, Some(body)) => assert!(body.contains("TRAP"), "{body}"),
                    (status, _, body) => {
                        assert_eq!(status, 503, "{path}: {body:?}");
                        assert!(body.unwrap().contains("INSTANCE_ENDED"), "{path}");
                    }
                }
            }
        }
    });
    let changes = async {
        for change in 0..10 {
            let path = format!("/v1/functions/{}", ["all-a", "all-b"][change % 2]);
            let patch = json!({"queueSize": 100 + change});
            world.patch(&path, patch).await.expect(200);
        }
    };
    join(join_all(callers), changes).await;
    all_back(&told).await;
}
