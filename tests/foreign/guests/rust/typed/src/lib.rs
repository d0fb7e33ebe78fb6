//! A typed handler with nothing but the binding generator.

wit_bindgen::generate!({ path: "../../../../../wit", world: "function" });

use exports::pelton::function::handler::{Execution, Guest, Outcome, Payload};
use pelton::function::types::Failure;

struct Handler;

export!(Handler);

impl Guest for Handler {
    fn handle(execution: Execution, input: Payload) -> Outcome {
        let failure = |message: String| Failure {
            code: "RUST_ERROR".to_owned(),
            message,
        };
        let asked: serde_json::Value = match serde_json::from_slice(&input.body) {
            Ok(asked) => asked,
            Err(error) => return Outcome::Error(failure(error.to_string())),
        };
        match asked["outcome"].as_str() {
            Some("retry") => Outcome::Retry(failure("as asked".to_owned())),
            Some("requeue") => Outcome::Requeue(Some(250)),
            _ => Outcome::Success(Payload {
                content_type: input.content_type,
                body: serde_json::json!({ "madeBy": "wit-bindgen", "said": asked["said"], "attempt": execution.attempt })
                    .to_string()
                    .into_bytes(),
            }),
        }
    }
}
