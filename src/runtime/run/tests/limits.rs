//! The spec's limit of memory: all memories and tables of an attempt together.

use super::*;

/// Grows by one page until that fails, then does `then`.
fn grow_and(then: &str) -> Runnable {
    let start = format!(
        "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) {then}"
    );
    program("1", "", &start)
}

fn mib(memory_mb: u64) -> Attempt {
    attempt(|spec| spec.memory_mb = memory_mb)
}

#[tokio::test]
async fn dying_of_a_refused_growth_is_the_memory_limit() {
    let ran = run(&grow_and("unreachable"), &mib(2)).await;
    let message = limited(&ran, "MEMORY_LIMIT");
    assert_eq!(
        message,
        "the function's memories and tables may take 2 MiB together (memoryMb): it had 2048 KiB and \
         asked for 64 KiB more"
    );
}

#[tokio::test]
async fn a_guest_that_copes_with_a_refused_growth_succeeds() {
    succeeded(&run(&grow_and(""), &mib(1)).await);
}

#[tokio::test]
async fn an_exit_code_after_a_refused_growth_stays_and_mentions_it() {
    let ran = run(&grow_and("(call $exit (i32.const 9))"), &mib(1)).await;
    assert_eq!(retried(&ran).code, "EXIT_9");
    assert!(
        retried(&ran).message.contains("memoryMb"),
        "{:?}",
        ran.outcome
    );
}

#[tokio::test]
async fn more_memory_at_the_start_than_allowed_is_the_memory_limit() {
    let code = program("17", "", "");
    limited(&run(&code, &mib(1)).await, "MEMORY_LIMIT");
    succeeded(&run(&code, &mib(2)).await);
}

#[tokio::test]
async fn tables_count_too() {
    let items = "(table $t 0 funcref)";
    let start = "(loop $more (br_if $more
            (i32.ne (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1))))
        unreachable";
    // One page of memory and 8 bytes an element: 1 MiB is used up long before the pool's bound of a table.
    let items = format!("{items} (table 50000 funcref) (table 50000 funcref)");
    limited(
        &run(&program("1", &items, start), &mib(1)).await,
        "MEMORY_LIMIT",
    );
}

#[tokio::test]
async fn two_memories_share_one_limit() {
    let items = "(memory $second 10)";
    limited(
        &run(&program("10", items, ""), &mib(1)).await,
        "MEMORY_LIMIT",
    );
    succeeded(&run(&program("5", items, ""), &mib(1)).await);
}

#[tokio::test]
async fn garbage_collected_objects_count_too() {
    let items = "(type $array (array (mut i8))) (type $list (struct (field (ref $array)) (field (ref null $list))))
        (global $list (mut (ref null $list)) (ref.null $list))";
    let start = "(loop $more
        (global.set $list (struct.new $list
            (array.new $array (i32.const 1) (i32.const 60000)) (global.get $list)))
        (br $more))";
    limited(
        &run(&program("1", items, start), &mib(4)).await,
        "MEMORY_LIMIT",
    );
}

#[tokio::test]
async fn the_next_attempt_starts_from_nothing() {
    let code = grow_and("unreachable");
    for _ in 0..3 {
        let ran = run(&code, &mib(3)).await;
        assert!(limited(&ran, "MEMORY_LIMIT").contains("it had 3072 KiB"));
    }
}

#[test]
fn memory_that_no_limiter_sees_cannot_be_had() {
    // Shared memories bypass the limiter, so the engine must not have them.
    let wat = r#"(module (memory (export "memory") 1 10 shared) (func (export "_start")))"#;
    let refused = match Module::new(&WORLD.engines.plain().engine, wat::parse_str(wat).unwrap()) {
        Err(_) => true,
        Ok(module) => match WORLD
            .engines
            .plain()
            .linkers
            .module
            .instantiate_pre(&module)
        {
            Err(_) => true,
            Ok(pre) => {
                let ran = futures_util::FutureExt::now_or_never(run_plain(&Runnable::Core(pre)));
                !matches!(ran.unwrap().outcome, Outcome::Success { .. })
            }
        },
    };
    assert!(refused);
}
