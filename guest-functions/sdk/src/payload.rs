//! Bytes and their media type.
//!
//! **Invariant:** the bytes are never touched: what came in goes out.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;

/// The code of a failure to write an answer as JSON.
const INVALID_OUTPUT: &str = "INVALID_OUTPUT";

/// What a caller sent, or what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// A media type, `application/json` unless the caller said otherwise.
    pub content_type: String,
    /// The bytes.
    pub body: Vec<u8>,
}

impl Payload {
    /// Bytes of the given media type.
    pub fn new(content_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            content_type: content_type.into(),
            body: body.into(),
        }
    }

    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new("text/plain; charset=utf-8", text.into())
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// `INVALID_OUTPUT` if the value has no JSON form, such as a map whose keys are no strings.
    pub fn from_json(value: &impl Serialize) -> Result<Self, Failure> {
        match serde_json::to_vec(value) {
            Ok(body) => Ok(Self::new("application/json", body)),
            Err(error) => Err(Failure::new(INVALID_OUTPUT, error.to_string())),
        }
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// [`INVALID_INPUT`](crate::INVALID_INPUT), with what does not fit and where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::new(crate::INVALID_INPUT, error.to_string()))
    }
}
