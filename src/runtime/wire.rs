//! What crosses a boundary of ours as JSON: the compiling child's verdict and the label of a kept file.
//!
//! **Invariant:** only shapes of data; whoever reads one decides whether to believe it.

use serde::{Deserialize, Serialize};

use super::Refused;
use super::engine::Flavor;
use crate::model::Shape;

/// What is kept beside a file of wasm, so that nothing has to be read again to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// One of the words of [`shape_word`].
    pub(super) shape: String,
    /// Size of the wasm in bytes.
    pub(super) size: u64,
    /// What the guest takes from the pool.
    pub(super) needs: Needs,
    /// The engine that it runs on. The plain one is not written down: labels are signed, and those of earlier
    /// versions know no other.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub(super) flavor: Flavor,
    /// The interface by which it calls out; not written down where there is none, as `flavor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outgoing: Option<String>,
}

fn is_plain(flavor: &Flavor) -> bool {
    *flavor == Flavor::Plain
}

/// What one instance takes from the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Needs {
    /// Linear memories.
    pub memories: u32,
    /// Tables.
    pub tables: u32,
}

/// The first part of the child's answer; the artifact follows if it accepted the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub(super) enum Verdict {
    /// Compiled.
    Accepted {
        /// SHA-256 of what was read, in hexadecimal digits.
        digest: String,
        /// One of the words of [`shape_word`].
        shape: String,
        /// What one instance takes.
        needs: Needs,
        /// The engine that can load the artifact.
        flavor: Flavor,
        /// The interface by which it calls out.
        outgoing: Option<String>,
    },
    /// See [`Refused::NotWasm`].
    NotWasm { message: String },
    /// See [`Refused::Unsupported`].
    Unsupported { message: String },
    /// See [`Refused::MissingImports`].
    MissingImports {
        message: String,
        imports: Vec<String>,
    },
    /// See [`Refused::TooExpensive`].
    TooExpensive { message: String },
    /// See [`Refused::Failed`].
    Failed { message: String },
}

impl From<Refused> for Verdict {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotWasm(message) => Self::NotWasm { message },
            Refused::Unsupported(message) => Self::Unsupported { message },
            Refused::MissingImports { message, imports } => {
                Self::MissingImports { message, imports }
            }
            Refused::TooExpensive(message) => Self::TooExpensive { message },
            Refused::Busy(message) | Refused::Failed(message) => Self::Failed { message },
        }
    }
}

/// The word for a shape in files and messages of ours.
pub(super) fn shape_word(shape: Shape) -> &'static str {
    match shape {
        Shape::Handler => "handler",
        Shape::Http02 => "http-0.2",
        Shape::Http03 => "http-0.3",
        Shape::Command02 => "command-0.2",
        Shape::Command03 => "command-0.3",
        Shape::CoreCommand => "core-command",
    }
}

/// The shape that a word stands for.
pub(super) fn shape_of(word: &str) -> Option<Shape> {
    [
        Shape::Handler,
        Shape::Http02,
        Shape::Http03,
        Shape::Command02,
        Shape::Command03,
        Shape::CoreCommand,
    ]
    .into_iter()
    .find(|shape| shape_word(*shape) == word)
}
