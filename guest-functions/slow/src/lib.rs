//! Takes its time: waits, and then computes, for as long as the input says.
//!
//! For trying things out: limits in time (`timeoutMs`, `cpuMs`, `X-Timeout-Ms`), concurrency, fairness, a
//! stop while something runs. Waiting costs no processor time and computing does, which is what `cpuMs`
//! tells apart: `{"waitMs": 1000}` passes under `cpuMs` 100, `{"computeMs": 1000}` does not.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use pelton_guest::{Execution, Failure, handler};
use serde::{Deserialize, Serialize};

/// The longest of each, in ms: no attempt may run for longer anyway.
const LONGEST_MS: u64 = 300_000;
/// Rounds of computing between two looks at the clock, which belongs to the host and costs a call.
const ROUNDS: u32 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    wait_ms: u64,
    #[serde(default)]
    compute_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    waited_ms: u64,
    computed_ms: u64,
    attempt: u32,
}

#[handler]
fn handle(execution: &Execution, wish: Wish) -> Result<Done, Failure> {
    if wish.wait_ms.max(wish.compute_ms) > LONGEST_MS {
        return Err(Failure::new(
            "TOO_LONG",
            format!("waitMs and computeMs are at most {LONGEST_MS}"),
        ));
    }
    thread::sleep(Duration::from_millis(wish.wait_ms));
    compute(Duration::from_millis(wish.compute_ms));
    Ok(Done {
        waited_ms: wish.wait_ms,
        computed_ms: wish.compute_ms,
        attempt: execution.attempt,
    })
}

/// Keeps the processor busy with nothing that a compiler could leave out.
fn compute(time: Duration) {
    let start = Instant::now();
    let mut number: u64 = 1;
    while start.elapsed() < time {
        for _ in 0..ROUNDS {
            number = black_box(
                number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use pelton_guest::testing;

    use super::*;

    #[test]
    fn the_cases_come_out() {
        testing::check_cases(handle, include_str!("../cases.json"));
    }

    #[test]
    fn it_never_takes_less_than_was_asked_for() {
        let start = Instant::now();
        let wish = Wish {
            wait_ms: 10,
            compute_ms: 10,
        };
        handle(&Execution::default(), wish).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
