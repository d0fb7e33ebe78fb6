//! Instances that have several calls in them at once: what is each call's own, and what they share.
//!
//! The guest's `/meet` waits until so many calls are in its instance; what it answers is how many there were at most, and
//! how often it was asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::{join, join_all};
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

/// The execution behind an answer, once it has ended, and what it logged.
async fn recorded(world: &World, answer: &Answer) -> (Value, Vec<String>) {
    let id = answer.header("x-execution-id");
    let execution = world.ended(id).await;
    let lines = world.attempts(id).await[0]["lines"].clone();
    let lines = lines.as_array().unwrap();
    let text = |line: &Value| line["text"].as_str().unwrap().to_owned();
    (execution, lines.iter().map(text).collect())
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
        assert_eq!(recorded(&world, answer).await.0["status"], "success");
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
