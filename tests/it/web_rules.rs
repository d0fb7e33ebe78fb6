//! The rules of `wasi:http` 0.2 that a host has to see to: what names, values, methods and statuses there are, what may
//! be changed, how long a body is, and in which order things may be given back.

use std::fmt::Write as _;

use serde_json::json;

use crate::support::probes::rules_http02;
use crate::support::world::World;

/// The groups of rules, as paths of the guest that tries them.
const RULES: [&str; 13] = [
    "names",
    "values",
    "forbidden",
    "immutable",
    "lookups",
    "requests",
    "responses",
    "options",
    "lengths",
    "request",
    "order",
    "parent-first",
    "unset",
];

#[tokio::test]
async fn a_guest_is_allowed_what_the_rules_allow_and_refused_the_rest() {
    let mut world = World::new();
    for rules in RULES {
        world = world
            .function(rules, rules_http02())
            .spec(json!({"invokePath": format!("/{rules}"), "maxRetries": 1}));
    }
    let world = world.await;
    let mut told = String::new();
    for rules in RULES {
        let answer = world.invoke(rules, json!("try")).await.expect(200);
        let _ = writeln!(told, "{rules}");
        let came = match answer["output"].as_str() {
            Some(output) => output.to_owned(),
            None => format!(
                "{}: {}",
                answer["error"]["code"], answer["error"]["message"]
            ),
        };
        for line in came.lines() {
            let _ = writeln!(told, "    {line}");
        }
    }
    insta::assert_snapshot!(told);
}
