//! Runs programs: input on stdin, output on stdout, logs on stderr, and an exit code that says how it went.
//!
//! **Invariant:** the exit code decides the outcome, by the one table in [`exited`].

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use wasmtime::{Engine, InstancePre};
use wasmtime_wasi::{I32Exit, p2, p3};

use super::ending::Witness;
use super::host::Ctx;
use super::output::Capture;
use super::run::{Life, usize_of};
use super::watch::Reins;
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{Failure, Input};

/// The program's entry in preview 1.
const START: &str = "_start";

/// Runs one attempt of a `wasi:cli/run@0.2` component.
pub(super) async fn run_02(
    code: &p2::bindings::CommandPre<Ctx>,
    attempt: &Attempt,
    reins: &Reins<'_>,
) -> Ran {
    let mut life = begin(code.engine(), attempt, reins);
    let lived = {
        let guest = pin!(async {
            let command = code.instantiate_async(&mut life.store).await?;
            life.store.data_mut().instantiated = true;
            let run = command.wasi_cli_run();
            match run.call_run(&mut life.store).await? {
                Ok(()) => Ok(0),
                Err(()) => Ok(1),
            }
        });
        life.watch.live(guest).await
    };
    life.end(lived).judge(attempt, judge)
}

/// Runs one attempt of a `wasi:cli/run@0.3` component.
pub(super) async fn run_03(
    code: &p3::bindings::CommandPre<Ctx>,
    attempt: &Attempt,
    reins: &Reins<'_>,
) -> Ran {
    let mut life = begin(code.engine(), attempt, reins);
    let capture = life.capture.clone();
    let lived = {
        let guest = pin!(async {
            let command = code.instantiate_async(&mut life.store).await?;
            life.store.data_mut().instantiated = true;
            let ran = life.store.run_concurrent(async |accessor| {
                let run = async {
                    let result = command.wasi_cli_run().call_run(accessor).await?;
                    // What it wrote may still be on its way out of a task of its own.
                    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                    Ok(result)
                };
                until_overflow(&capture, run).await
            });
            match ran.await?? {
                Ok(()) => Ok(0),
                Err(()) => Ok(1),
            }
        });
        life.watch.live(guest).await
    };
    life.end(lived).judge(attempt, judge)
}

/// Ends a program whose output is too large: the streams of 0.3 tell only the program, which may go on.
async fn until_overflow<T>(
    capture: &Capture,
    run: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    let mut run = pin!(run);
    poll_fn(|cx| {
        let polled = run.as_mut().poll(cx);
        match capture.written().overflow() {
            Some(overflow) => Poll::Ready(Err(overflow.into())),
            None => polled,
        }
    })
    .await
}

/// Runs one attempt of a preview 1 module.
pub(super) async fn run_core(code: &InstancePre<Ctx>, attempt: &Attempt, reins: &Reins<'_>) -> Ran {
    let mut life = begin(code.module().engine(), attempt, reins);
    // Preview 1 writes straight from the guest's memory, in small pieces: a large write costs the host
    // nothing, and one that is larger than the output may be shall end as that, not as "out of memory".
    let memory = attempt.version.spec.memory_mb.saturating_mul(1 << 20);
    life.store.set_hostcall_fuel(usize_of(memory));
    let lived = {
        let guest = pin!(async {
            let instance = code.instantiate_async(&mut life.store).await?;
            life.store.data_mut().instantiated = true;
            let start = instance.get_typed_func::<(), ()>(&mut life.store, START)?;
            start.call_async(&mut life.store, ()).await?;
            Ok(0)
        });
        life.watch.live(guest).await
    };
    life.end(lived).judge(attempt, judge)
}

fn begin(engine: &Engine, attempt: &Attempt, reins: &Reins<'_>) -> Life {
    let spec = &attempt.version.spec;
    let capture = Capture::with_output(
        usize_of(spec.log_bytes_max),
        usize_of(spec.output_bytes_max),
    );
    Life::begin(engine, attempt, reins, stdin(&attempt.input), capture)
}

fn judge(ended: Result<i32, wasmtime::Error>, witness: &Witness<'_>) -> Outcome {
    match ended {
        Ok(code) => exited(code, witness),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => exited(*code, witness),
            None => witness.error(&error),
        },
    }
}

/// What an exit code means (sysexits.h where it has a word for it).
fn exited(code: i32, witness: &Witness<'_>) -> Outcome {
    match code {
        0 => Outcome::Success {
            content_type: None,
            body: witness.capture.written().take_output(),
        },
        // EX_USAGE, EX_DATAERR, EX_NOPERM, EX_CONFIG: trying again would not help.
        64 | 65 | 77 | 78 => Outcome::Error(exit_failure(code, witness)),
        // EX_TEMPFAIL
        75 => Outcome::Requeue(None),
        _ => Outcome::Retry(exit_failure(code, witness)),
    }
}

fn exit_failure(code: i32, witness: &Witness<'_>) -> Failure {
    // Preview 1's codes are unsigned: -1 is shown as what the guest's own platform would call 4294967295.
    let code = code.cast_unsigned();
    let mut message = witness.last_words();
    if message.is_empty() {
        message = format!("the program ended with exit code {code}");
    }
    if let Some(note) = witness.denial_note() {
        message.push_str("; ");
        message.push_str(&note);
    }
    Failure {
        code: format!("EXIT_{code}").into(),
        message,
    }
}

/// A JSON string is given as its text; anything else, JSON or not, as the bytes it came in.
fn stdin(input: &Input) -> Bytes {
    if input.content_type.is_json() && input.body.trim_ascii_start().starts_with(b"\"") {
        // Something that only begins like a string is passed on as it is: the program may say what is wrong.
        if let Ok(text) = serde_json::from_slice::<String>(&input.body) {
            return text.into();
        }
    }
    input.body.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContentType, JSON};

    #[test]
    fn a_json_string_is_given_as_its_text_and_everything_else_as_it_came() {
        let given = |content_type: ContentType, body: &'static [u8]| {
            stdin(&Input {
                content_type,
                body: Bytes::from_static(body),
            })
        };
        assert_eq!(given(JSON, br#" "a\nb\u00fc" "#), "a\nbü");
        assert_eq!(given(JSON, br#"{"a": "b"}"#), r#"{"a": "b"}"#);
        assert_eq!(given(JSON, b"17"), "17");
        assert_eq!(given(JSON, br#""broken"#), r#""broken"#);
        let plain = ContentType("text/plain".into());
        assert_eq!(given(plain, br#""quoted""#), r#""quoted""#);
    }
}
