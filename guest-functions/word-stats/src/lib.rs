//! Counts the words of a text: how many, how many different ones, the most frequent, their average length.
//!
//! The input is `{"text": "…", "topN": 10}` or the text alone. The contract is older than Pelton: what it cannot
//! count is an ordinary answer, `{"error": "…"}`, and not an error of the execution. `order-intake` shows the
//! other way.

use pelton_guest::{Outcome, handler};
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
struct Complaint {
    error: &'static str,
}

#[handler]
fn handle(input: Value) -> Outcome {
    match words::count(&input) {
        Ok(stats) => Outcome::success_json(&stats),
        Err(error) => Outcome::success_json(&Complaint { error }),
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
}
