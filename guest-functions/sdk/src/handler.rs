//! Which functions are handlers, and how one is called.
//!
//! **Invariant:** input that does not fit never reaches the author's function: it is an error of its own.

use serde::de::DeserializeOwned;

use crate::{Execution, Failure, IntoOutcome, Outcome, Payload};

/// The code of a final error: the input is not what the function takes.
pub const INVALID_INPUT: &str = "INVALID_INPUT";

/// What a handler may take as its input: a [`Payload`] as it is, any `serde` type from JSON.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from JSON",
    note = "derive `serde::Deserialize` for it, or take a `Payload`"
)]
pub trait FromInput: Sized {
    /// Reads the input.
    ///
    /// # Errors
    /// [`INVALID_INPUT`], with what does not fit.
    fn from_input(input: Payload) -> Result<Self, Failure>;
}

impl FromInput for Payload {
    fn from_input(input: Payload) -> Result<Self, Failure> {
        Ok(input)
    }
}

impl<T: DeserializeOwned> FromInput for T {
    fn from_input(input: Payload) -> Result<Self, Failure> {
        input.json()
    }
}

/// A function that can be a handler: `fn(Input) -> Answer` or `fn(&Execution, Input) -> Answer`.
///
/// `Shape` only tells the two apart and is always inferred. Anything else does not compile:
///
/// ```compile_fail,E0277
/// #[pelton_guest::handler]
/// async fn handle(input: String) -> pelton_guest::Payload {
///     pelton_guest::Payload::text(input)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "this function cannot be a handler",
    label = "not `fn(Input) -> Answer` or `fn(&Execution, Input) -> Answer`",
    note = "the input is a `Payload` or a type with `serde::Deserialize`",
    note = "the answer is an `Outcome`, a `Payload` or a `Result`"
)]
pub trait Handler<Shape> {
    /// Runs the function once.
    fn run(&self, execution: &Execution, input: Payload) -> Outcome;
}

impl<F, Input, Answer> Handler<(Input,)> for F
where
    F: Fn(Input) -> Answer,
    Input: FromInput,
    Answer: IntoOutcome,
{
    fn run(&self, _execution: &Execution, input: Payload) -> Outcome {
        match Input::from_input(input) {
            Ok(input) => self(input).into_outcome(),
            Err(failure) => Outcome::Error(failure),
        }
    }
}

impl<F, Input, Answer> Handler<(Execution, Input)> for F
where
    F: Fn(&Execution, Input) -> Answer,
    Input: FromInput,
    Answer: IntoOutcome,
{
    fn run(&self, execution: &Execution, input: Payload) -> Outcome {
        match Input::from_input(input) {
            Ok(input) => self(execution, input).into_outcome(),
            Err(failure) => Outcome::Error(failure),
        }
    }
}
