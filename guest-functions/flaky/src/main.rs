//! Fails until an attempt that the input names, or by chance, and in the way that it names.
//!
//! For trying things out: retries, backoff, what each exit code means. A plain program, no SDK; which
//! attempt it is stands in the variable `ATTEMPT`.
//!
//! | field | default | meaning |
//! |---|---|---|
//! | `succeedAt` | 3 | the first attempt that succeeds |
//! | `probability`, `seed` | none, 0 | instead: how likely each attempt is to fail, from 0 to 1; the same seed fails the same attempts |
//! | `how` | `retry` | how it fails, see below |
//!
//! | `how` | does | what Pelton makes of it |
//! |---|---|---|
//! | `retry` | exit code 1 | another attempt, while there is one |
//! | `error` | exit code 65, as it does for input that it cannot use | an error, at once |
//! | `requeue` | exit code 75 | again later; spends no attempt, so it goes on until `maxRequeues` |
//! | `trap` | a panic | another attempt, code `TRAP` |
//! | `hang` | never ends | the attempt is stopped at `timeoutMs`, and retried |
//! | `hoard` | takes memory until there is none | an error, code `MEMORY_LIMIT` |
//!
//! Exit codes need the build for `wasm32-wasip1`. On `wasm32-wasip2` Rust's standard library turns each of
//! them into 1, so there `error` and `requeue` are retried too.

use std::env;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

/// May work next time.
const EXIT_RETRY: u8 = 1;
/// `EX_DATAERR`: the input is wrong, and always will be.
const EXIT_ERROR: u8 = 65;
/// `EX_TEMPFAIL`: not now.
const EXIT_REQUEUE: u8 = 75;
/// The first attempt that succeeds, unless the input says.
const SUCCEED_AT: u32 = 3;
/// Bytes that a hoarder takes at once.
const HOARD_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plan {
    succeed_at: Option<u32>,
    probability: Option<f64>,
    seed: Option<u64>,
    #[serde(default)]
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    #[default]
    Retry,
    Error,
    Requeue,
    Trap,
    Hang,
    Hoard,
}

fn main() -> io::Result<ExitCode> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let attempt = attempt();
    match decide(&input, attempt) {
        Ok(None) => {
            writeln!(io::stdout(), "{}", json!({ "attempt": attempt }))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Some(how)) => {
            // Standard error of a command ends in the execution's logs.
            eprintln!("attempt {attempt}: fails on purpose");
            Ok(fail(how))
        }
        Err(complaint) => {
            eprintln!("{complaint}");
            Ok(ExitCode::from(EXIT_ERROR))
        }
    }
}

/// Which attempt this is; the first where nobody says.
fn attempt() -> u32 {
    let said = env::var("ATTEMPT").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Whether this attempt fails, and how.
fn decide(input: &[u8], attempt: u32) -> Result<Option<How>, String> {
    let plan: Plan =
        serde_json::from_slice(input).map_err(|error| format!("the input is no plan: {error}"))?;
    let fails = match (plan.probability, plan.succeed_at) {
        (Some(_), Some(_)) => return Err("say `succeedAt` or `probability`, not both".to_owned()),
        (None, succeed_at) => attempt < succeed_at.unwrap_or(SUCCEED_AT),
        (Some(probability), None) if (0.0..=1.0).contains(&probability) => {
            chance(plan.seed.unwrap_or(0), attempt) < probability
        }
        (Some(probability), None) => {
            return Err(format!("`probability` is from 0 to 1, not {probability}"));
        }
    };
    Ok(fails.then_some(plan.how))
}

/// A number from 0 to 1, 1 excluded, that only seed and attempt decide (splitmix64).
fn chance(seed: u64, attempt: u32) -> f64 {
    let mut bits = seed.wrapping_add(u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn fail(how: How) -> ExitCode {
    match how {
        How::Retry => ExitCode::from(EXIT_RETRY),
        How::Error => ExitCode::from(EXIT_ERROR),
        How::Requeue => ExitCode::from(EXIT_REQUEUE),
        How::Trap => panic!("a panic on purpose"),
        How::Hang => loop {
            thread::sleep(Duration::from_secs(1));
        },
        How::Hoard => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(black_box(vec![1_u8; HOARD_BYTES]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The case's outcome and code, as the host would name them.
    fn seen(input: &[u8], attempt: u32) -> (&'static str, Option<&'static str>) {
        match decide(input, attempt) {
            Ok(None) => ("success", None),
            Ok(Some(How::Retry)) => ("retry", Some("EXIT_1")),
            Ok(Some(How::Error)) | Err(_) => ("error", Some("EXIT_65")),
            Ok(Some(How::Requeue)) => ("requeue", None),
            Ok(Some(How::Trap)) => ("retry", Some("TRAP")),
            Ok(Some(How::Hang | How::Hoard)) => ("a limit", None),
        }
    }

    #[test]
    fn the_cases_come_out() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../cases.json")).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let attempt = case["attempt"].as_u64().unwrap_or(1);
            let attempt = u32::try_from(attempt).unwrap();
            let (outcome, code) = seen(case["input"].to_string().as_bytes(), attempt);
            assert_eq!(
                outcome,
                case["outcome"].as_str().unwrap_or("success"),
                "{case}"
            );
            assert_eq!(code, case["code"].as_str(), "{case}");
            if outcome == "success" {
                assert_eq!(case["output"], json!({ "attempt": attempt }), "{case}");
            }
        }
    }

    #[test]
    fn chance_is_even_and_repeats_itself() {
        let mut failed = 0;
        for seed in 0..1000 {
            let one = chance(seed, 1);
            assert!((0.0..1.0).contains(&one), "{one}");
            assert_eq!(one.to_bits(), chance(seed, 1).to_bits());
            failed += u32::from(one < 0.5);
        }
        assert!((400..600).contains(&failed), "{failed} of 1000");
    }
}
