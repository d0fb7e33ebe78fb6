//! What a function's way of ending means: every status of a service and every exit code of a program.

use serde_json::{Value, json};

use crate::support::programs::{exits, program};
use crate::support::service::{Reply, Service};
use crate::support::world::World;

/// What one dispatch came to.
struct Came {
    status: &'static str,
    attempts: u64,
    requeues: u64,
    code: Option<&'static str>,
}

const SUCCESS: Came = Came {
    status: "success",
    attempts: 1,
    requeues: 0,
    code: None,
};
const REQUEUE: Came = Came {
    status: "queued",
    attempts: 0,
    requeues: 1,
    code: None,
};

fn error(code: &'static str) -> Came {
    Came {
        status: "error",
        attempts: 1,
        requeues: 0,
        code: Some(code),
    }
}

fn retry(code: &'static str) -> Came {
    Came {
        status: "queued",
        attempts: 1,
        requeues: 0,
        code: Some(code),
    }
}

/// Dispatches `name` once and compares.
async fn check(world: &World, name: &str, expected: &Came) -> Value {
    let id = world.enqueue(name, json!("x")).await;
    let status = world.drain(name).await;
    let execution = world.execution(&id).await;
    assert_eq!(status, expected.status, "{name}: {execution}");
    assert_eq!(
        execution["attempts"], expected.attempts,
        "{name}: {execution}"
    );
    assert_eq!(
        execution["requeues"], expected.requeues,
        "{name}: {execution}"
    );
    let attempts = world.attempts(&id).await;
    let code = attempts[0]["error"]["code"].as_str();
    assert_eq!(code, expected.code, "{name}: {attempts:?}");
    execution
}

#[tokio::test]
async fn a_services_status_is_an_outcome() {
    for (status, expected) in [
        (200, SUCCESS),
        (202, SUCCESS),
        (299, SUCCESS),
        (302, error("UNEXPECTED_STATUS")),
        (304, error("UNEXPECTED_STATUS")),
        (400, error("OWN")),
        (404, error("OWN")),
        (408, retry("OWN")),
        (409, error("OWN")),
        (425, retry("OWN")),
        (429, REQUEUE),
        (499, error("OWN")),
        (500, retry("OWN")),
        (503, retry("OWN")),
        (504, retry("OWN")),
        (599, retry("OWN")),
        (600, error("UNEXPECTED_STATUS")),
    ] {
        let service = Service::answering(move |_| Reply::failure(status, "OWN", "own words")).await;
        let name = format!("status-{status}");
        let world = World::new().pool(&name, &service.url).await;
        let execution = check(&world, &name, &expected).await;
        if expected.code == Some("OWN") && expected.status == "error" {
            assert_eq!(execution["error"]["message"], "own words");
        }
        assert_eq!(service.seen().len(), 1, "redirects are not followed");
    }
}

#[tokio::test]
async fn a_service_says_when_it_wants_to_be_asked_again() {
    for status in [429, 503] {
        let service = Service::answering(move |_| {
            Reply::failure(status, "BUSY", "busy").header("retry-after", "7")
        })
        .await;
        let world = World::new().pool("f", &service.url).await;
        let execution = check(&world, "f", &REQUEUE).await;
        assert_eq!(execution["createdAt"], "2026-01-01T00:00:00.000Z");
        assert_eq!(execution["dueAt"], "2026-01-01T00:00:07.000Z");
    }
}

#[tokio::test]
async fn a_programs_exit_code_is_an_outcome() {
    let mut world = World::new();
    let table = [
        (0, SUCCESS),
        (1, retry("EXIT_1")),
        (2, retry("EXIT_2")),
        (64, error("EXIT_64")),
        (65, error("EXIT_65")),
        (69, retry("EXIT_69")),
        (70, retry("EXIT_70")),
        (75, REQUEUE),
        (77, error("EXIT_77")),
        (78, error("EXIT_78")),
        (125, retry("EXIT_125")),
    ];
    for (code, _) in &table {
        world = world.function(&format!("exit-{code}"), exits(*code, "own words"));
    }
    let world = world.function("trap", program("unreachable")).await;
    for (code, expected) in table {
        let execution = check(&world, &format!("exit-{code}"), &expected).await;
        if expected.status == "error" {
            assert_eq!(execution["error"]["message"], "own words");
        }
    }
    check(&world, "trap", &retry("TRAP")).await;
}
