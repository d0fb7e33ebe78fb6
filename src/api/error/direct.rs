//! What a caller gets who speaks with a function and has no answer from it.
//!
//! A function's own word (an error, a retry) is for its callers and is told. Why it broke is for its author: the
//! message says in which execution that is found, and no more, for anybody may be the caller. The same holds for
//! how the server is set up.
//!
//! **Invariant:** every ending has its status, and the code of the execution's failure.

use axum::http::{HeaderName, HeaderValue, StatusCode};

use super::{BUSY_RETRY_AFTER_S, Error};
use crate::api::invocations::id_header;
use crate::api::wire::X_EXECUTION_ID;
use crate::execution::{CALLER_GONE, Status};
use crate::model::{ExecutionId, Failure};
use crate::runtime::Ending;
use crate::store::ExecutionRecord;

impl Error {
    /// Names the execution that this is about.
    pub(in crate::api) fn about(self, id: ExecutionId) -> Self {
        let is_named = |(name, _): &(HeaderName, HeaderValue)| name == X_EXECUTION_ID;
        match id_header(id) {
            Some(id) if !self.0.headers.iter().any(is_named) => {
                self.with_header(X_EXECUTION_ID, id)
            }
            Some(_) | None => self,
        }
    }

    /// The answer to a direct call whose execution ended like this, without a response of the function's.
    pub(in crate::api) fn of_execution(record: &ExecutionRecord, ending: Option<Ending>) -> Self {
        let error = match (record.execution.status(), record.execution.failure()) {
            // Whoever is still there to read this sent a body that cannot be read to its end.
            (Status::Timeout, Some(failure)) if failure.code == CALLER_GONE => {
                Self::bad_request("the request's body broke off before its end")
            }
            (Status::Timeout, failure) => timed_out(failure),
            (Status::Cancelled, _) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "CANCELLED".to_owned(),
                "the call was cancelled",
            ),
            (_, Some(failure)) => of_ending(failure, ending, record.id),
            (_, None) => Self::new(
                StatusCode::BAD_GATEWAY,
                "NO_RESPONSE".to_owned(),
                format!("the function gave no response: see execution {}", record.id),
            ),
        };
        error.about(record.id)
    }
}

fn code_of(failure: &Failure) -> String {
    failure.code.clone().into_owned()
}

fn timed_out(failure: Option<&Failure>) -> Error {
    let code = failure.map_or_else(|| "TIMEOUT".to_owned(), code_of);
    let message = "the function did not answer in time: raise its timeoutMs if it needs longer";
    Error::new(StatusCode::GATEWAY_TIMEOUT, code, message)
}

fn of_ending(failure: &Failure, ending: Option<Ending>, id: ExecutionId) -> Error {
    let own_word = |status| Error::new(status, code_of(failure), failure.message.clone());
    let for_its_author = |status, what: &str| {
        let message = format!("{what}: the log of execution {id} says why");
        Error::new(status, code_of(failure), message)
    };
    match ending {
        Some(Ending::Error) => own_word(StatusCode::UNPROCESSABLE_ENTITY),
        Some(Ending::Unready) => Error::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code_of(failure),
            format!("the function cannot be run as it is set up here: execution {id} says why"),
        ),
        Some(Ending::Retry) => own_word(StatusCode::SERVICE_UNAVAILABLE),
        Some(Ending::Requeue(delay_ms)) => {
            let delay_s = delay_ms.map_or(BUSY_RETRY_AFTER_S, |ms| ms.div_ceil(1000).max(1));
            own_word(StatusCode::SERVICE_UNAVAILABLE).retry_after(delay_s)
        }
        Some(Ending::Limit) => for_its_author(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the function ran into a limit",
        ),
        Some(Ending::Broken | Ending::Success | Ending::TimedOut) => {
            for_its_author(StatusCode::BAD_GATEWAY, "the function broke off")
        }
        Some(Ending::Fault) => Error::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code_of(failure),
            "something went wrong in the server, which is not the function's fault: its log has more",
        ),
        Some(Ending::Interrupted) | None => own_word(StatusCode::SERVICE_UNAVAILABLE),
    }
}
