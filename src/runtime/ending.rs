//! How an attempt ended, in the words that users see: one place where every way to fail gets its code.
//!
//! **Invariant:** messages name the limit, its value and the spec's field, or the guest's own words; they
//! never carry a backtrace or a path of the host.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use super::engine::TABLE_ELEMENTS_MAX;
use super::host_limits::{CONTENT_TYPE_BYTES_MAX, FAILURE_MESSAGE_BYTES_MAX};
use super::limits::Denial;
use super::output::Capture;
use super::watch::Cut;
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{ContentType, Failure, JSON};

/// Longest quotation of stderr in a message, in bytes.
const LAST_WORDS_BYTES_MAX: usize = 1024;

/// The media type of an output whose own is not one.
const OCTETS: &str = "application/octet-stream";

/// The code of a guest that trapped.
pub(super) const TRAP: &str = "TRAP";

/// Codes of failures that the runtime gives.
mod code {
    pub(super) use super::TRAP;
    pub(super) const TIMEOUT: &str = "TIMEOUT";
    pub(super) const MEMORY_LIMIT: &str = "MEMORY_LIMIT";
    pub(super) const CPU_LIMIT: &str = "CPU_LIMIT";
    pub(super) const OUTPUT_TOO_LARGE: &str = "OUTPUT_TOO_LARGE";
    pub(super) const HOST_LIMIT: &str = "HOST_LIMIT";
    pub(super) const INSTANCE_ENDED: &str = "INSTANCE_ENDED";
}

/// What is left of an attempt once its store is gone.
pub(super) struct Ending<T> {
    /// What the guest answered, or why it did not.
    pub(super) result: Result<T, Failed>,
    /// Whether its instance was made.
    pub(super) instantiated: bool,
    /// The last growth of memory that it was refused.
    pub(super) denial: Option<Denial>,
    /// Time that it computed.
    pub(super) cpu: Duration,
    /// What it wrote.
    pub(super) capture: Capture,
}

/// Why there is no answer.
pub(super) enum Failed {
    /// The watch cut it.
    Cut(Cut),
    /// wasmtime gave up, mostly because the guest trapped.
    Error(wasmtime::Error),
    /// The same, where several calls were in the instance and nothing tells whose it is.
    Shared(Arc<wasmtime::Error>),
    /// The instance ended by what another call in it did. The text says what that was.
    Bystander(String),
}

impl<T> Ending<T> {
    /// The whole of the run: `judge` says what an answer means, everything else is decided here.
    pub(super) fn judge(
        self,
        attempt: &Attempt,
        judge: impl FnOnce(Result<T, wasmtime::Error>, &Witness<'_>) -> Outcome,
    ) -> Ran {
        self.judge_all(attempt, |result, witness| match result {
            Err(Failed::Cut(cut)) => witness.cut(cut),
            Ok(answer) => judge(Ok(answer), witness),
            Err(Failed::Error(error)) => judge(Err(error), witness),
            Err(Failed::Shared(error)) => shared(witness.error(&error)),
            Err(Failed::Bystander(why)) => bystander(why),
        })
    }

    /// The whole of the run, where an answer may have been given before the guest was cut.
    pub(super) fn judge_all(
        self,
        attempt: &Attempt,
        judge: impl FnOnce(Result<T, Failed>, &Witness<'_>) -> Outcome,
    ) -> Ran {
        let witness = Witness {
            attempt,
            instantiated: self.instantiated,
            denial: self.denial,
            capture: &self.capture,
        };
        let outcome = judge(self.result, &witness);
        let logs = self.capture.written().take_logs();
        Ran {
            outcome,
            logs,
            cpu: Some(self.cpu),
            ..Ran::bare(Outcome::Interrupted)
        }
    }
}

/// What is known about an attempt beside its result.
pub(super) struct Witness<'a> {
    attempt: &'a Attempt,
    instantiated: bool,
    denial: Option<Denial>,
    /// What the guest wrote.
    pub(super) capture: &'a Capture,
}

impl Witness<'_> {
    /// What it means that the guest was cut.
    pub(super) fn cut(&self, cut: Cut) -> Outcome {
        match cut {
            Cut::Stopped => Outcome::Interrupted,
            Cut::TimedOut => Outcome::TimedOut(Failure::new(code::TIMEOUT, self.timed_out())),
            Cut::CpuSpent => Outcome::Limit(Failure::new(
                code::CPU_LIMIT,
                format!(
                    "the function computed for longer than {} ms (cpuMs)",
                    self.attempt.version.spec.cpu_ms.unwrap_or_default(),
                ),
            )),
        }
    }

    fn timed_out(&self) -> String {
        let given_ms = self.attempt.version.spec.timeout_ms;
        let left_ms = self.attempt.time_limit.as_millis();
        if left_ms < u128::from(given_ms) {
            // Its caller waits for less, or loading its code took a part.
            format!(
                "the attempt was stopped after the {left_ms} ms that were left to it (timeoutMs is {given_ms})"
            )
        } else {
            format!("the attempt was stopped when its time was over (timeoutMs is {given_ms})")
        }
    }

    /// What an error of wasmtime means: the limit behind it, else the guest's trap, else a fault of ours.
    pub(super) fn error(&self, error: &wasmtime::Error) -> Outcome {
        if error.is::<PoolConcurrencyLimitError>() {
            return Outcome::Fault(format!("no free slot for an instance: {error:#}"));
        }
        if let Some(overflow) = self.capture.written().overflow() {
            return self.output_too_large(overflow.0);
        }
        if let Some(denial) = self.denial {
            return Outcome::Limit(self.denied(denial));
        }
        if is_answer_too_large(error) {
            return self.output_too_large(self.attempt.version.spec.output_bytes_max);
        }
        if let Some(limit) = host_limit(error) {
            let message = format!("the function asked too much of its host: {limit}");
            return Outcome::Limit(Failure::new(code::HOST_LIMIT, message));
        }
        let by_guest = self.instantiated || error.is::<Trap>() || error.is::<WasmBacktrace>();
        if !by_guest {
            return Outcome::Fault(format!("the function could not be run: {error:#}"));
        }
        Outcome::Retry(Failure::new(code::TRAP, self.trap(error)))
    }

    /// How large an output may be, in bytes.
    pub(super) fn output_bytes_max(&self) -> u64 {
        self.attempt.version.spec.output_bytes_max
    }

    /// Writes into the log how a guest ended whose answer had come already.
    pub(super) fn note(&self, failed: &Failed) {
        let outcome = match failed {
            Failed::Cut(cut) => self.cut(*cut),
            Failed::Error(error) => self.error(error),
            Failed::Shared(error) => shared(self.error(error)),
            Failed::Bystander(why) => Outcome::Retry(instance_ended(why)),
        };
        if let Some(failure) = outcome.failure() {
            let Failure { code, message } = failure;
            let line = format!("[pelton] after its response was complete: {code}: {message}");
            self.capture.written().note(&line);
        }
    }

    /// The answer was larger than the spec allows.
    pub(super) fn output_too_large(&self, max: impl std::fmt::Display) -> Outcome {
        Outcome::Limit(Failure::new(
            code::OUTPUT_TOO_LARGE,
            format!("the output is larger than {max} bytes (outputBytesMax)"),
        ))
    }

    /// A sentence about memory for failures that may have come of it, if growth was ever refused.
    pub(super) fn denial_note(&self) -> Option<String> {
        self.denial.map(|denial| self.denied(denial).message)
    }

    /// The last lines of stderr, on one line; empty if there are none.
    pub(super) fn last_words(&self) -> String {
        self.capture.written().last_words(LAST_WORDS_BYTES_MAX)
    }

    fn denied(&self, denial: Denial) -> Failure {
        match denial {
            Denial::Memory { used, wanted } => Failure::new(
                code::MEMORY_LIMIT,
                format!(
                    "the function's memories and tables may take {} MiB together (memoryMb): it had {} KiB \
                     and asked for {} KiB more",
                    self.attempt.version.spec.memory_mb,
                    used.div_ceil(1024),
                    wanted.div_ceil(1024),
                ),
            ),
            Denial::Table { wanted } => Failure::new(
                code::HOST_LIMIT,
                format!(
                    "a table may have {TABLE_ELEMENTS_MAX} elements, whatever memoryMb allows: the function \
                     asked for {wanted}"
                ),
            ),
        }
    }

    fn trap(&self, error: &wasmtime::Error) -> String {
        let mut message = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => error.root_cause().to_string(),
        };
        let innermost = error
            .downcast_ref::<WasmBacktrace>()
            .and_then(|backtrace| backtrace.frames().first()?.func_name());
        if let Some(name) = innermost {
            message.push_str(&format!(" in `{name}`"));
        }
        let words = self.last_words();
        if !words.is_empty() {
            message.push_str(&format!("; stderr ends with: {words}"));
        }
        shorten(&mut message, FAILURE_MESSAGE_BYTES_MAX);
        message
    }
}

/// An attempt that ended with its instance by another call's doing costs nothing.
pub(super) fn bystander(why: String) -> Outcome {
    Outcome::Fault(why)
}

/// The same for whoever cannot be run again.
pub(super) fn instance_ended(why: &str) -> Failure {
    Failure::new(code::INSTANCE_ENDED, why.to_owned())
}

/// What it means that an instance with several calls in it ended like this, and nothing tells by whose doing.
pub(super) fn shared(mut outcome: Outcome) -> Outcome {
    if let Outcome::Retry(failure) | Outcome::Limit(failure) = &mut outcome {
        failure.message.push_str(
            "; several calls were in the instance, and nothing tells whose doing this was",
        );
    }
    outcome
}

/// Whether the data that was too much was a handler's answer: then no guest was running any more.
fn is_answer_too_large(error: &wasmtime::Error) -> bool {
    is_copy_limit(error) && !error.is::<WasmBacktrace>()
}

/// wasmtime's error for [`super::host_limits::HOST_COPY_BYTES_MAX`], which has no public type.
fn is_copy_limit(error: &wasmtime::Error) -> bool {
    let cause = error.root_cause().to_string();
    cause.starts_with("too much data is being copied between the host and the guest")
}

/// The fixed limit that was reached, in words, if the error is one. wasmtime has no types for most of them;
/// a test for each limit sees to it that its words are still these.
fn host_limit(error: &wasmtime::Error) -> Option<String> {
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Some("too many open streams, pollables or other resources".to_owned());
    }
    if is_copy_limit(error) {
        return Some("too much data for one host call".to_owned());
    }
    let cause = error.root_cause().to_string();
    let random = cause.starts_with("requested len") && cause.contains("exceeds limit");
    let counts = cause.starts_with("resource limit exceeded");
    let handles = cause.ends_with("store handle limit exceeded");
    let fields = cause == "total size of fields exceeds limit";
    (random || counts || handles || fields).then_some(cause)
}

/// A media type ends up in headers: what is no plausible one must not. `None`: nothing was stated.
pub(super) fn media_type(stated: String) -> Option<ContentType> {
    if stated.is_empty() {
        return None;
    }
    // What nearly all say: no memory of its own for it from here on.
    if stated == JSON.0 {
        return Some(JSON);
    }
    let plausible = stated.len() <= CONTENT_TYPE_BYTES_MAX
        && stated.contains('/')
        && stated.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    Some(ContentType(if plausible {
        Cow::Owned(stated)
    } else {
        Cow::Borrowed(OCTETS)
    }))
}

/// Cuts `text` to at most `bytes_max` bytes, between characters.
pub(super) fn shorten(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_that_are_none_become_octets() {
        let of = |text: &str| media_type(text.to_owned()).map(|stated| stated.0.into_owned());
        assert_eq!(
            of("text/plain; charset=utf-8").as_deref(),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(of(""), None);
        assert_eq!(of("text/html\r\nSet-Cookie: a=b").as_deref(), Some(OCTETS));
        assert_eq!(
            of(&format!("text/{}", "x".repeat(300))).as_deref(),
            Some(OCTETS)
        );
        assert_eq!(of("json").as_deref(), Some(OCTETS));
    }
}
