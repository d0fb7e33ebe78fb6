//! Every fixed limit on what one attempt may make the host do or hold, in one place.
//!
//! What an author can set (memory, time, CPU, output, logs) stands in the spec; what is here protects the
//! process and is the same for everybody. Instances, memories and tables are counted by the pool (`engine`). A guest that runs into one of these ends with the code
//! `HOST_LIMIT`, or gets an error number where preview 1 has one for it.
//!
//! **Invariant:** plain numbers with their unit in the name; each has a test that shows it bite.

/// Open things that the host keeps for one attempt: streams, pollables, errors, sockets, header fields. The
/// largest of them hold [`FIELDS_BYTES_MAX`], or two of [`BODY_CHUNK_BYTES`].
pub(super) const RESOURCES_MAX: usize = 2_000;

/// Handles of the component model in one attempt, those that guests make for each other included.
pub(super) const HANDLES_MAX: usize = 20_000;

/// Bytes that one host call, or a handler's answer, may copy out of the guest *beside* the output that the
/// spec allows (a list of pollables, a log line, a path). 1 MiB.
pub(super) const HOST_COPY_BYTES_MAX: usize = 1 << 20;

/// Random bytes in one request, as in browsers: 64 KiB. Nothing can interrupt a request, so it must be short.
pub(super) const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// Bytes that a standard stream takes in one write of wasi:io. 64 KiB.
pub(super) const STREAM_PERMIT_BYTES: usize = 64 * 1024;

/// One set of header fields or trailers that a guest makes, in bytes of the host's memory for it: 64 KiB.
pub(super) const FIELDS_BYTES_MAX: usize = 64 * 1024;

/// Header fields of a guest's response.
pub(super) const RESPONSE_HEADERS_MAX: usize = 100;

/// Trailers of a guest's response.
pub(super) const RESPONSE_TRAILERS_MAX: usize = 100;

/// Bytes of a response's body that are held for a caller who speaks HTTP, before the guest first waits: 64 KiB.
pub(super) const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// Names and values of the header fields of a guest's response, in bytes together: 32 KiB.
pub(super) const RESPONSE_HEADER_BYTES_MAX: usize = 32 * 1024;

/// Bytes that a guest's body takes in one write; two of them may wait to be taken. 64 KiB.
pub(super) const BODY_CHUNK_BYTES: usize = 64 * 1024;

/// Log lines kept of one attempt (empty lines cost no bytes but memory). What comes after is cut.
pub(super) const LOG_LINES_MAX: usize = 10_000;

/// The end of stderr that is remembered for error messages, in bytes.
pub(super) const STDERR_TAIL_BYTES: usize = 4096;

/// Longest `error.code` taken from a guest, in bytes.
pub(super) const FAILURE_CODE_BYTES_MAX: usize = 128;

/// Longest `error.message`, in bytes.
pub(super) const FAILURE_MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Longest content type taken from a guest, in bytes.
pub(super) const CONTENT_TYPE_BYTES_MAX: usize = 255;
