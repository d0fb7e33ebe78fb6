//! HTTP functions that answer wrongly, queued: what the execution ends as, after how many attempts, and that nobody
//! pays for it but the function.

use serde_json::{Value, json};

use crate::support::web_guests::{http02, http03};
use crate::support::world::World;

/// Attempts that each execution may have.
const ATTEMPTS_MAX: u64 = 2;

/// What a function does wrong, and what comes of it.
struct Mistake {
    path: &'static str,
    status: &'static str,
    /// All that it may have, or one.
    attempts: u64,
    code: &'static str,
    /// What the message tells.
    told: &'static str,
}

const fn mistake(
    path: &'static str,
    status: &'static str,
    attempts: u64,
    code: &'static str,
    told: &'static str,
) -> Mistake {
    Mistake {
        path,
        status,
        attempts,
        code,
        told,
    }
}

/// May not happen the next time.
const fn passing(path: &'static str, code: &'static str, told: &'static str) -> Mistake {
    mistake(path, "error", ATTEMPTS_MAX, code, told)
}

/// Tried again it would be the same.
const fn last(path: &'static str, code: &'static str, told: &'static str) -> Mistake {
    mistake(path, "error", 1, code, told)
}

const MISTAKES: [Mistake; 22] = [
    passing("/never", "NO_RESPONSE", "without a response"),
    passing("/error-code", "RESPONSE_ERROR", "own words"),
    passing("/twice", "RESPONSE_SET_TWICE", "second response"),
    passing("/panic", "TRAP", "own words"),
    passing("/panic-late", "TRAP", "own words, late"),
    passing("/short", "BODY_TOO_SHORT", "10 bytes: it ended after 5"),
    passing("/long", "BODY_TOO_LONG", "3 bytes"),
    passing("/aborted", "BODY_ABORTED", "gave up"),
    passing("/flood?count=101", "RESPONSE_HEADERS_TOO_LARGE", "101"),
    passing(
        "/flood?count=2&bytes=17000",
        "RESPONSE_HEADERS_TOO_LARGE",
        "2 header fields",
    ),
    last("/with?status=100", "UNEXPECTED_STATUS", "2xx, 4xx or 5xx"),
    last(
        "/with?status=199&body=text",
        "UNEXPECTED_STATUS",
        "2xx, 4xx or 5xx",
    ),
    last("/with?status=304", "UNEXPECTED_STATUS", "304"),
    // The host refuses to take these, and the guest does not expect that.
    passing("/with?status=99", "TRAP", "panicked"),
    passing("/with?h=content-length:many", "TRAP", "panicked"),
    passing(
        "/with?h=content-length:1&h=content-length:2",
        "TRAP",
        "panicked",
    ),
    passing("/with?h=x%20y:1", "TRAP", "panicked"),
    passing("/with?h=x:a%0D%0Ab:c", "TRAP", "panicked"),
    passing("/with?h=connection:close", "TRAP", "panicked"),
    mistake(
        "/stall",
        "timeout",
        ATTEMPTS_MAX,
        "TIMEOUT",
        "timeoutMs is 300",
    ),
    last("/down?bytes=100001", "OUTPUT_TOO_LARGE", "100000 bytes"),
    last("/alloc", "MEMORY_LIMIT", "16 MiB"),
];

/// What the host of 0.2 lets a function say.
const MISTAKES_02: [Mistake; 3] = [
    last(
        "/with?status=600&body=text",
        "UNEXPECTED_STATUS",
        "2xx, 4xx or 5xx",
    ),
    last("/with?status=999", "UNEXPECTED_STATUS", "2xx, 4xx or 5xx"),
    // It takes so many fields and no more, and that is the end of whoever gives it more.
    last(
        "/flood?count=90&bytes=2000",
        "HOST_LIMIT",
        "total size of fields exceeds limit",
    ),
];

/// That of 0.3 does not.
const MISTAKES_03: [Mistake; 1] = [passing("/with?status=600", "TRAP", "panicked")];

#[tokio::test]
async fn a_queued_call_that_is_answered_wrongly_ends_as_the_mistake_says() {
    let spec = json!({
        "maxRetries": ATTEMPTS_MAX, "retryBackoff": {"baseDelayMs": 0}, "concurrency": 1,
        "timeoutMs": 300, "memoryMb": 16, "outputBytesMax": 100_000,
    });
    let world = World::new()
        .function("http02", http02())
        .spec(spec.clone())
        .function("http03", http03())
        .spec(spec)
        .await;
    let mut all = Vec::new();
    for (name, own) in [("http02", &MISTAKES_02[..]), ("http03", &MISTAKES_03)] {
        for wrong in MISTAKES.iter().chain(own) {
            all.extend(complaints(&world, name, wrong).await);
        }
        // The function has one slot, and it is free.
        invokes(&world, name, "/echo").await;
        let id = world.enqueue(name, json!("honest")).await;
        assert_eq!(world.drain(name).await, "success");
        assert_eq!(world.execution(&id).await["output"], "honest");
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// Calls go to this path.
async fn invokes(world: &World, name: &str, path: &str) {
    let path = json!({ "invokePath": path });
    let patched = world.patch(&format!("/v1/functions/{name}"), path).await;
    patched.expect(200);
}

/// What of an execution is not as it should be.
async fn complaints(world: &World, name: &str, wrong: &Mistake) -> Vec<String> {
    invokes(world, name, wrong.path).await;
    let id = world.enqueue(name, json!("x")).await;
    let mut statuses = Vec::new();
    while statuses.last().is_none_or(|status| status == "queued") {
        statuses.push(world.drain(name).await);
    }
    let execution = world.execution(&id).await;
    let attempts = world.attempts(&id).await;
    let mut seen = vec![(
        json!([wrong.status, wrong.code, wrong.attempts, 0, Value::Null]),
        json!([
            execution["status"],
            execution["error"]["code"],
            execution["attempts"],
            execution["faults"],
            execution["output"]
        ]),
    )];
    // Each attempt says the same for itself.
    seen.push((json!(wrong.attempts), json!(attempts.len())));
    for attempt in &attempts {
        seen.push((json!(wrong.code), attempt["error"]["code"].clone()));
        let is_told = attempt.to_string().contains(wrong.told);
        seen.push((
            json!(wrong.told),
            if is_told {
                json!(wrong.told)
            } else {
                attempt.clone()
            },
        ));
    }
    let differing = seen
        .into_iter()
        .filter(|(expected, found)| expected != found);
    let path = wrong.path;
    differing
        .map(|(expected, found)| format!("{name} {path}: {expected}, but {found}"))
        .collect()
}
