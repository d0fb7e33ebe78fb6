//! Each fixed limit bites, with the code that users see.

use super::*;
use crate::runtime::engine::{
    CORE_INSTANCES_PER_GUEST_MAX, MEMORIES_PER_GUEST_MAX, TABLES_PER_GUEST_MAX,
};
use crate::runtime::host_limits::{
    HANDLES_MAX, HOST_COPY_BYTES_MAX, LOG_LINES_MAX, RANDOM_BYTES_MAX, RESOURCES_MAX,
};

/// What the host keeps for each thing that a preview 1 program waits for.
const THINGS_PER_SUBSCRIPTION: usize = 2;

#[tokio::test]
async fn random_bytes_are_bounded_per_request() {
    let ask = |len: u64| {
        let start = format!("(drop (call $random_get (i32.const 100) (i32.const {len})))");
        program("64", "", &start)
    };
    succeeded(&run_plain(&ask(RANDOM_BYTES_MAX)).await);
    let ran = run_plain(&ask(RANDOM_BYTES_MAX + 1)).await;
    assert!(limited(&ran, "HOST_LIMIT").contains("exceeds limit"));
}

#[tokio::test]
async fn a_list_of_things_to_wait_for_is_bounded() {
    // Subscriptions to the clock: zeroes are "the wall clock, at once". Each is two things of the host.
    let wait = |count: usize| {
        let start = format!(
            "(drop (call $poll_oneoff
                (i32.const 1024) (i32.const 2000000) (i32.const {count}) (i32.const 8)))"
        );
        program("64", "", &start)
    };
    let most = RESOURCES_MAX / THINGS_PER_SUBSCRIPTION;
    succeeded(&run_plain(&wait(most)).await);
    let ran = run_plain(&wait(most + 1)).await;
    assert!(limited(&ran, "HOST_LIMIT").contains("resources"));
}

#[tokio::test]
async fn log_lines_are_bounded_even_when_they_are_empty() {
    for (lines, truncated) in [(LOG_LINES_MAX, false), (LOG_LINES_MAX + 1, true)] {
        let start = format!(
            "(memory.fill (i32.const 100) (i32.const 10) (i32.const {lines}))
            (call $write (i32.const 2) (i32.const 100) (i32.const {lines}))"
        );
        let ran = run_plain(&program("1", "", &start)).await;
        succeeded(&ran);
        assert_eq!(ran.logs.lines.len(), LOG_LINES_MAX);
        assert_eq!(ran.logs.truncated, truncated, "{lines} lines");
    }
}

#[tokio::test]
async fn instances_memories_and_tables_are_bounded_before_anything_runs() {
    let nested = |count: usize| {
        let instances = "(core instance (instantiate $m))".repeat(count);
        handlers::component(&format!("(core module $m) {instances}"), handlers::ECHO)
    };
    // The main module is an instance too.
    let most = CORE_INSTANCES_PER_GUEST_MAX as usize - 1;
    succeeded(&run_plain(&handler(&nested(most))).await);
    let too_many = wat::parse_str(nested(most + 1)).unwrap();
    assert!(Component::new(&WORLD.engines.plain().engine, too_many).is_err());

    for (item, most) in [
        ("(memory 0)", MEMORIES_PER_GUEST_MAX),
        ("(table 0 funcref)", TABLES_PER_GUEST_MAX),
    ] {
        let module = |count: u32| {
            let wat = format!("(module {})", item.repeat(count as usize));
            Module::new(&WORLD.engines.plain().engine, wat::parse_str(wat).unwrap())
        };
        assert!(module(most).is_ok(), "{item}");
        assert!(module(most + 1).is_err(), "{item}");
    }
}

#[tokio::test]
async fn what_one_host_call_may_copy_is_bounded() {
    let write = |len: usize| components::writing("stderr", len);
    let attempt = attempt(|spec| spec.output_bytes_max = 0);
    succeeded(&run(&command(&write(HOST_COPY_BYTES_MAX)), &attempt).await);
    let ran = run(&command(&write(HOST_COPY_BYTES_MAX + 1)), &attempt).await;
    assert!(limited(&ran, "HOST_LIMIT").contains("one host call"));
}

#[tokio::test]
async fn open_resources_are_bounded() {
    let open = |count| command(&components::opening_streams(count));
    succeeded(&run_plain(&open(RESOURCES_MAX)).await);
    limited(&run_plain(&open(RESOURCES_MAX + 1)).await, "HOST_LIMIT");
}

#[tokio::test]
async fn handles_that_components_make_for_themselves_are_bounded() {
    let make = |count| command(&components::making_handles(count));
    succeeded(&run_plain(&make(HANDLES_MAX)).await);
    let ran = run_plain(&make(HANDLES_MAX + 1)).await;
    assert!(limited(&ran, "HOST_LIMIT").contains("handle limit"));
}
