//! The words of the domain as types that cannot hold a wrong value: names, ids, numbers, payloads.
//!
//! **Invariant:** knows nothing but itself. No clock, no serde, no I/O: whoever speaks JSON or SQL converts.

mod dice;
mod host;
mod id;
mod map;
mod payload;
mod reach;
mod runtime_config;
mod secret;
mod spec;

pub use dice::Dice;
pub use host::{HostName, InvalidHostName};
pub use id::{
    Digest, ExecutionId, Fence, FunctionId, FunctionName, IdempotencyKey, InvalidDigest,
    InvalidFunctionName, InvalidIdempotencyKey, Timestamp, VersionNumber,
};
pub use map::{IdHasher, IdMap, IdSet};
pub use payload::{ContentType, Encoding, Failure, Input, JSON, LogLine, LogStream, Logs, Output};
pub use reach::{Host, HostPattern, InvalidHost, InvalidHostPattern, Origin, Scheme};
pub use runtime_config::{
    RuntimeConfig, RuntimeOverrides, RuntimeRevision, RuntimeSetting, runtime_limits,
    wait_complaint, whole_complaint,
};
pub use secret::{Exposure, InvalidSecretName, OpenSecret, SecretName, SecretUse, SecretValue};
pub use spec::{
    Backoff, Code, ExecutionMode, FunctionSettings, RecordMode, Reuse, Shape, Spec, Version,
    VersionSpec, limits,
};
