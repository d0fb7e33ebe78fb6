//! What the layers below say, as errors of HTTP.
//!
//! **Invariant:** every variant of theirs is named, so that a new one is a decision about its status.

use axum::http::StatusCode;

use super::{BUSY_RETRY_AFTER_S, Error};
use crate::registry;
use crate::runtime::Refused;
use crate::scheduler::{CallError, RuntimeConfigError};
use crate::secrets;
use crate::store;

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::UnknownFunction(name) => Self::unknown_function(name.as_str()),
            CallError::QueueFull {
                crowded,
                retry_after_s,
            } => Self::crowded(&error, crowded, *retry_after_s),
            CallError::RateLimited { retry_after_s, .. } => {
                Self::rejected(&error, "RATE_LIMITED", "rate", *retry_after_s)
            }
            CallError::KeyReused(id) => {
                Self::unprocessable("IDEMPOTENCY_KEY_REUSED", error.to_string()).about(*id)
            }
            CallError::Forgotten(id) => Self::execution_forgotten(error.to_string()).about(*id),
            CallError::NotRedrivable(id) | CallError::FunctionReplaced(id, _) => {
                Self::new(StatusCode::CONFLICT, "NOT_REDRIVABLE", error.to_string()).about(*id)
            }
            CallError::InputNotKept(id) => {
                Self::new(StatusCode::CONFLICT, "INPUT_NOT_KEPT", error.to_string()).about(*id)
            }
            CallError::UnknownVersion(message) => Self::unknown_version(message.clone()),
            CallError::CodeGone(message) => Self::code_gone(message.clone()),
            CallError::Stopping => Self::stopping(&error),
            CallError::StoppingFirst(id) => Self::stopping(&error).about(*id),
            CallError::Store(inner) => inner.clone().into(),
        }
    }
}

impl From<RuntimeConfigError> for Error {
    fn from(error: RuntimeConfigError) -> Self {
        match error {
            RuntimeConfigError::Invalid(complaints) => Self::invalid_config(complaints),
            RuntimeConfigError::Conflict { current } => {
                Self::new(StatusCode::CONFLICT, "REVISION_CONFLICT", error.to_string())
                    .with("currentRevision", current)
            }
            RuntimeConfigError::Store(inner) => inner.into(),
        }
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        use registry::Error as E;
        match error {
            E::UnknownFunction(name) => Self::unknown_function(name.as_str()),
            E::NameTaken(_) => Self::name_taken(error.to_string()),
            E::UnknownVersion(message) => Self::unknown_version(message),
            E::CodeGone(message) => Self::code_gone(message),
            E::Invalid(complaints) => Self::invalid(complaints),
            E::UnknownImage(message) => Self::unprocessable("IMAGE_NOT_FOUND", message),
            E::NoProvider(message) => Self::unprocessable("NO_PROVIDER", message),
            E::TooManyFunctions(message) => Self::unprocessable("TOO_MANY_FUNCTIONS", message),
            E::TooManyVersions(message) => Self::unprocessable("TOO_MANY_VERSIONS", message),
            E::HostTaken(message) => Self::new(StatusCode::CONFLICT, "HOST_TAKEN", message),
            E::Refused(refused) => refused.into(),
            E::NotGranted(message) => Self::unprocessable("NOT_GRANTED", message),
            E::Secrets(error) => error.into(),
            E::Store(inner) => inner.into(),
        }
    }
}

impl From<secrets::Error> for Error {
    fn from(error: secrets::Error) -> Self {
        use secrets::Error as E;
        let message = error.to_string();
        match error {
            E::NoKey => Self::unprocessable("SECRETS_KEY_MISSING", message),
            E::Missing(_) => Self::unprocessable("UNKNOWN_SECRET", message),
            E::TooMany(_) => Self::unprocessable("TOO_MANY_SECRETS", message),
            E::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "SECRET_NOT_FOUND", message),
            E::InUse { .. } => Self::new(StatusCode::CONFLICT, "SECRET_IN_USE", message),
            E::Store(inner) => inner.into(),
            E::Internal(inside) => Self::internal(inside),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotWasm(message) => Self::unprocessable("NOT_WASM", message),
            Refused::Unsupported(message) => Self::unprocessable("UNSUPPORTED_WASM", message),
            Refused::MissingImports { message, imports } => {
                Self::unprocessable("MISSING_IMPORTS", message).with_details(imports)
            }
            Refused::TooExpensive(message) => Self::unprocessable("COMPILE_LIMIT", message),
            Refused::Busy(message) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message)
                .retry_after(BUSY_RETRY_AFTER_S),
            Refused::Failed(inside) => Self::internal(inside),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::Poisoned(_) | store::Error::Closed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "STORE_UNAVAILABLE",
                "the store takes no writes at the moment: try again once the server has been restarted",
            )
            .retry_after(BUSY_RETRY_AFTER_S)
            .with_inside(&error),
            store::Error::NameTaken => {
                Self::name_taken("a function of this name exists already".to_owned())
            }
            store::Error::NoSuchFunction => Self::new(
                StatusCode::NOT_FOUND,
                "FUNCTION_NOT_FOUND",
                "the function was deleted while the request was on its way",
            ),
            store::Error::Failed(_) => Self::internal(&error),
        }
    }
}
