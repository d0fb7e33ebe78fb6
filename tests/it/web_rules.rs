//! The rules of `wasi:http` 0.2 and 0.3 that a host has to see to: what names, values, methods and statuses there are,
//! what may be changed, how long a body is, and in which order things may be given back.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::json;

use crate::support::origin::{Origin, ok};
use crate::support::probes::{rules_http02, rules_http03};
use crate::support::world::World;

/// The groups of rules of 0.2, as paths of the guest that tries them.
const RULES_0_2: [&str; 13] = [
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

/// The groups of rules of 0.3; from `no-number` on the guest breaks one of them in its answer.
const RULES_0_3: [&str; 20] = [
    "names",
    "values",
    "forbidden",
    "immutable",
    "lookups",
    "requests",
    "responses",
    "options",
    "request",
    "sent-short",
    "sent-long",
    "no-authority",
    "no-number",
    "two-lengths",
    "code",
    "trailers-refused",
    "trailers-forbidden",
    "trailers-flood",
    "informational",
    "no-content",
];

/// What came of each group, a line for each try.
async fn told(wasm: Bytes, groups: &[&str]) -> String {
    let origin = Origin::answering(|_| ok("")).await;
    let mut world = World::new().background();
    for group in groups {
        world = world.function(group, wasm.clone()).spec(json!({
            "invokePath": format!("/{group}"),
            "maxRetries": 1,
            "env": {"CALL": origin.address.to_string()},
            "allowHosts": [origin.url()],
        }));
    }
    let world = world.await;
    let mut told = String::new();
    for group in groups {
        let answer = world.invoke(group, json!("try")).await.expect(200);
        let _ = writeln!(told, "{group}");
        let came = match answer["output"].as_str() {
            Some(output) if answer["status"] == "success" => output.to_owned(),
            _ => format!(
                "{}: {}",
                answer["error"]["code"], answer["error"]["message"]
            ),
        };
        for line in came.lines() {
            let _ = writeln!(told, "    {line}");
        }
    }
    told
}

#[tokio::test]
async fn a_guest_is_allowed_what_the_rules_allow_and_refused_the_rest() {
    insta::assert_snapshot!(told(rules_http02(), &RULES_0_2).await);
}

#[tokio::test]
async fn a_guest_of_0_3_is_allowed_what_the_rules_allow_and_refused_the_rest() {
    insta::assert_snapshot!(told(rules_http03(), &RULES_0_3).await);
}
