//! What WASI tells a guest about the world: its arguments, its environment, its input, its streams.
//!
//! **Invariant:** a guest sees its spec and its execution, and nothing of the machine or the process.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;

use super::given::Given;
use super::host_limits::{RANDOM_BYTES_MAX, RESOURCES_MAX};
use super::output::Capture;
use crate::execution::Attempt;
use crate::model::{ExecutionId, FunctionName, LogStream, Version};

/// The variables that every guest has; the spec's own of the same name give way.
const EXECUTION_ID: &str = "EXECUTION_ID";
const TRACE_ID: &str = "TRACE_ID";
const ATTEMPT: &str = "ATTEMPT";
const FUNCTION_NAME: &str = "FUNCTION_NAME";

/// Everything that WASI's answers are made from, shared and not yet built.
pub(super) struct Surroundings {
    execution_id: ExecutionId,
    function: FunctionName,
    version: Arc<Version>,
    attempt: u32,
    trace_id: Option<Arc<str>>,
    given: Given,
    stdin: Bytes,
    capture: Capture,
}

impl Surroundings {
    /// What the guest of `attempt` finds: what it is `given`, `stdin` to read, `capture` to write to.
    pub(super) fn new(attempt: &Attempt, given: Given, stdin: Bytes, capture: Capture) -> Self {
        Self {
            execution_id: attempt.execution_id,
            function: attempt.function.clone(),
            version: Arc::clone(&attempt.version),
            attempt: attempt.number,
            trace_id: attempt.trace_id.clone(),
            given,
            stdin,
            capture,
        }
    }

    /// Tells of another call of the same version. What it is given stays, for whoever reuses an instance sees to it
    /// that it is the same; so does the WASI context, which knows nothing of a call then.
    pub(super) fn renew(&mut self, attempt: &Attempt) {
        self.execution_id = attempt.execution_id;
        self.attempt = attempt.number;
        self.trace_id.clone_from(&attempt.trace_id);
    }

    /// Whose guest it is.
    pub(super) fn function(&self) -> &FunctionName {
        &self.function
    }

    /// What it runs.
    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// What it is given.
    pub(super) fn given(&self) -> &Given {
        &self.given
    }

    /// Where it writes to.
    pub(super) fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Builds the WASI context. The defaults deny: no directories, no addresses, no name lookup.
    pub(super) fn build(&self) -> WasiP1Ctx {
        let mut builder = WasiCtxBuilder::new();
        builder
            .arg(self.function.as_str())
            .args(&self.version.spec.args)
            .envs(&self.environment())
            .stdin(MemoryInputPipe::new(self.stdin.clone()))
            .stdout(self.capture.stream(LogStream::Stdout))
            .stderr(self.capture.stream(LogStream::Stderr))
            .allow_tcp(false)
            .allow_udp(false)
            .max_random_size(RANDOM_BYTES_MAX);
        let mut wasi = builder.build_p1();
        wasi.ctx().table.set_max_capacity(RESOURCES_MAX);
        wasi
    }

    /// A value of its configuration.
    pub(super) fn config_value(&self, key: &str) -> Option<&str> {
        let specified = self.version.spec.config.get(key).map(String::as_str);
        specified.or_else(|| {
            let mut given = self.given.config();
            given.find(|(name, _)| *name == key).map(|(_, value)| value)
        })
    }

    /// Its whole configuration.
    pub(super) fn config(&self) -> impl Iterator<Item = (&str, &str)> {
        let specified = self.version.spec.config.iter();
        specified
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .chain(self.given.config())
    }

    /// Takes a message for the log. Only the message may have tabs in it.
    pub(super) fn log(&self, level: &str, context: &str, message: &str) {
        if self.capture.written().takes_lines() {
            let context = context.replace(['\t', '\n'], " ");
            self.capture.line(
                LogStream::Logging,
                &format!("{level}\t{context}\t{message}"),
            );
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let is_ours =
            |name: &str| matches!(name, EXECUTION_ID | TRACE_ID | ATTEMPT | FUNCTION_NAME);
        let specified = self.version.spec.env.iter();
        let specified = specified
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain(self.given.env())
            .filter(|(name, _)| !is_ours(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut environment = Vec::with_capacity(self.version.spec.env.len() + 4);
        environment.extend(specified);
        let mut ours = |name: &str, value: String| environment.push((name.to_owned(), value));
        // Programs read their environment once: where instances are reused, they would take the first call's for
        // that of all.
        let is_reused = self.version.spec.reuse.is_some();
        if !is_reused {
            ours(EXECUTION_ID, self.execution_id.to_string());
            ours(ATTEMPT, self.attempt.to_string());
        }
        ours(FUNCTION_NAME, self.function.to_string());
        if !is_reused && let Some(trace_id) = &self.trace_id {
            ours(TRACE_ID, trace_id.to_string());
        }
        environment
    }
}
