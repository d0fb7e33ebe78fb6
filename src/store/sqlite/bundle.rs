//! Bundles: what ended calls sent, got and did, many calls in one row.
//!
//! A call that lived in memory is written behind, in batches, and hardly ever read. A row of its own for
//! its input, its output and its run would cost more than the call did; so the calls of a batch share one,
//! and each keeps only a small state row for itself. The row of a bundle is keyed by the number (`seq`) of
//! its first call; the others follow without gaps. The calls' parts are packed where that makes them smaller.
//!
//! **Invariant:** what is read back is not trusted: anything that is not a bundle is [`Unreadable`], never a
//! panic.

mod packing;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use self::packing::Packer;
use super::read::content_type;
use crate::model::{
    ContentType, ExecutionId, Failure, Fence, IdempotencyKey, Input, JSON, Output, Timestamp,
};
use crate::store::record::{self, Unreadable};
use crate::store::{AttemptRecord, Request};

/// The first byte of a bundle whose parts stand there as they are.
const FORMAT_PLAIN: u8 = 1;
/// The first byte of one whose parts are packed.
const FORMAT_PACKED: u8 = 2;
/// A bundle is closed once it is as large as this, in bytes: to read one call is to read its whole bundle.
const BYTES_ENOUGH: usize = 64 * 1024;
/// Calls in one bundle, at most.
const CALLS_MAX: usize = 256;

/// Bytes before the parts of a bundle that has as many calls as there may be.
const HEAD_BYTES_MAX: usize = head_bytes(CALLS_MAX);
/// A buffer that has grown beyond this is not kept for the next bundle, in bytes.
const BUFFER_BYTES_KEPT: usize = 4 * BYTES_ENOUGH;

/// Bytes before the parts of a bundle that has so many calls: format, number of the first call, count, ends.
const fn head_bytes(calls: usize) -> usize {
    1 + 8 + 4 + 4 * calls
}

/// A bundle that is being filled, and its memory, which serves one after another.
pub(super) struct Bundle {
    first_seq: i64,
    newest_end: Timestamp,
    ids: Vec<u8>,
    /// Where each call's part ends, from the start of the first one's.
    ends: Vec<u32>,
    /// Room for what stands before the parts, and the parts.
    bytes: Vec<u8>,
    packer: Packer,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("first_seq", &self.first_seq)
            .field("calls", &self.ends.len())
            .finish_non_exhaustive()
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self {
            first_seq: 0,
            newest_end: Timestamp(i64::MIN),
            ids: Vec::new(),
            ends: Vec::new(),
            bytes: Vec::new(),
            packer: Packer::default(),
        }
    }
}

impl Bundle {
    /// Empties it, and begins one whose first call has this number.
    pub(super) fn start_at(&mut self, first_seq: i64) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() > BUFFER_BYTES_KEPT {
            bytes = Vec::new();
        }
        bytes.clear();
        bytes.resize(HEAD_BYTES_MAX, 0);
        self.ids.clear();
        self.ends.clear();
        (self.first_seq, self.newest_end, self.bytes) = (first_seq, Timestamp(i64::MIN), bytes);
    }

    /// Whether no call is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds the next call, which [`Call::part`] made a part of.
    ///
    /// # Errors
    /// The parts are longer than their length can be written.
    pub(super) fn add(
        &mut self,
        id: ExecutionId,
        ended: Timestamp,
        part: &[u8],
    ) -> Result<(), Unreadable> {
        self.bytes.extend_from_slice(part);
        self.ends.push(length(self.parts_len())?);
        self.ids.extend_from_slice(id.as_bytes());
        self.newest_end = self.newest_end.max(ended);
        Ok(())
    }

    /// Whether the next call should go into another bundle.
    pub(super) fn is_full(&self) -> bool {
        self.parts_len() >= BYTES_ENOUGH || self.ends.len() >= CALLS_MAX
    }

    pub(super) fn first_seq(&self) -> i64 {
        self.first_seq
    }

    /// When the last of its calls ended.
    pub(super) fn newest_end(&self) -> Timestamp {
        self.newest_end
    }

    /// The calls' ids, one after the other.
    pub(super) fn ids(&self) -> &[u8] {
        &self.ids
    }

    fn parts_len(&self) -> usize {
        self.bytes.len().saturating_sub(HEAD_BYTES_MAX)
    }

    /// The row's payload: format, number of the first call, count, ends, parts.
    ///
    /// # Errors
    /// It has more calls than there may be.
    pub(super) fn body(&mut self) -> Result<&[u8], Unreadable> {
        let mut head = Vec::with_capacity(head_bytes(self.ends.len()));
        head.push(FORMAT_PACKED);
        head.extend_from_slice(&self.first_seq.to_le_bytes());
        head.extend_from_slice(&length(self.ends.len())?.to_le_bytes());
        for end in &self.ends {
            head.extend_from_slice(&end.to_le_bytes());
        }
        // Right before the parts, which are not moved for it.
        let begin = HEAD_BYTES_MAX.checked_sub(head.len());
        let room = begin.and_then(|begin| self.bytes.get_mut(begin..));
        let body = room.ok_or_else(|| Unreadable("a bundle has too many calls".to_owned()))?;
        let (room, parts) = body.split_at_mut(head.len());
        if let Some(packed) = self.packer.pack(&head, parts) {
            return Ok(packed);
        }
        if let Some(format) = head.first_mut() {
            *format = FORMAT_PLAIN;
        }
        room.copy_from_slice(&head);
        Ok(body)
    }
}

/// The ids of a bundle's calls, in the order of their numbers.
///
/// # Errors
/// They are no ids.
pub(super) fn ids(stored: &[u8]) -> Result<Vec<ExecutionId>, Unreadable> {
    let (ids, rest) = stored.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(damaged());
    }
    Ok(ids.iter().map(|id| ExecutionId::from_bytes(*id)).collect())
}

/// What a bundle keeps of one call, as it is written.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Absent where the input went past us.
    pub(super) request: Option<&'a Request>,
    pub(super) output: Option<&'a Output>,
    pub(super) attempts: &'a [AttemptRecord],
}

/// The same as it is read back. The request lacks what the state row has: trace id and parent.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) request: Option<Request>,
    pub(super) output: Option<Output>,
    pub(super) attempts: Vec<AttemptRecord>,
}

/// The call of this number in a stored bundle.
///
/// # Errors
/// It is not there, or the bundle is damaged.
pub(super) fn find(body: Vec<u8>, seq: i64) -> Result<Kept, Unreadable> {
    let mut reader = Reader {
        bytes: Bytes::from(body),
    };
    let format = reader.byte()?;
    let first_seq = i64::from_le_bytes(reader.array()?);
    let count = reader.length()?;
    let index = seq.checked_sub(first_seq).ok_or_else(damaged)?;
    let index = usize::try_from(index).map_err(|_| damaged())?;
    if index >= count {
        return Err(damaged());
    }
    let ends = reader.take(count.checked_mul(4).ok_or_else(damaged)?)?;
    let end_of = |index: usize| {
        let end = ends
            .get(index * 4..)
            .and_then(|ends| ends.first_chunk::<4>());
        let end = u32::from_le_bytes(*end.ok_or_else(damaged)?);
        usize::try_from(end).map_err(|_| damaged())
    };
    let begin = match index.checked_sub(1) {
        Some(before) => end_of(before)?,
        None => 0,
    };
    let end = end_of(index)?;
    let parts = match format {
        FORMAT_PLAIN => reader.bytes,
        // A count of none is beyond its last call already.
        FORMAT_PACKED => packing::unpack(&reader.bytes, end_of(count.saturating_sub(1))?)?.into(),
        _ => return Err(damaged()),
    };
    if begin > end || end > parts.len() {
        return Err(damaged());
    }
    read_part(parts.slice(begin..end))
}

/// What [`Call::part`] made a part of.
///
/// # Errors
/// It is damaged.
pub(super) fn read_part(part: Bytes) -> Result<Kept, Unreadable> {
    let mut reader = Reader { bytes: part };
    let kept = reader.kept()?;
    if reader.bytes.is_empty() {
        Ok(kept)
    } else {
        Err(damaged())
    }
}

fn damaged() -> Unreadable {
    Unreadable("stored bundle: damaged, or of an unknown format".to_owned())
}

fn length(len: usize) -> Result<u32, Unreadable> {
    u32::try_from(len).map_err(|_| Unreadable("a call is larger than 4 GiB".to_owned()))
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Unreadable> {
    out.extend_from_slice(&length(bytes.len())?.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) -> Result<(), Unreadable> {
    out.push(bytes.is_some().into());
    bytes.map_or(Ok(()), |bytes| put(out, bytes))
}

fn put_optional_number(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(number.is_some().into());
    if let Some(number) = number {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn text(content_type: Option<&ContentType>) -> Option<&[u8]> {
    content_type.map(|stated| stated.0.as_bytes())
}

impl Call<'_> {
    /// The call as a part of a bundle. `bytes` is about how many it takes.
    ///
    /// # Errors
    /// Something in it is longer than its length can be written.
    pub(super) fn part(&self, bytes: usize) -> Result<Vec<u8>, Unreadable> {
        let mut part = Vec::with_capacity(bytes);
        self.write(&mut part)?;
        Ok(part)
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        out.push(self.request.is_some().into());
        if let Some(request) = self.request {
            write_request(out, request)?;
        }
        out.push(self.output.is_some().into());
        if let Some(output) = self.output {
            put_optional(out, text(output.content_type.as_ref()))?;
            out.extend_from_slice(&record::encoding_code(output.encoding).to_le_bytes());
            put(out, &output.body)?;
        }
        out.extend_from_slice(&length(self.attempts.len())?.to_le_bytes());
        self.attempts
            .iter()
            .try_for_each(|attempt| write_attempt(out, attempt))
    }
}

fn write_request(out: &mut Vec<u8>, request: &Request) -> Result<(), Unreadable> {
    let stated = Some(&request.input.content_type).filter(|stated| **stated != JSON);
    put_optional(out, text(stated))?;
    put(out, &request.input.body)?;
    out.extend_from_slice(&length(request.metadata.len())?.to_le_bytes());
    for (name, value) in &*request.metadata {
        put(out, name.as_bytes())?;
        put(out, value.as_bytes())?;
    }
    put_optional(out, request.traceparent.as_deref().map(str::as_bytes))?;
    let key = request.idempotency_key.as_ref();
    put_optional(out, key.map(|key| key.as_str().as_bytes()))
}

fn write_attempt(out: &mut Vec<u8>, attempt: &AttemptRecord) -> Result<(), Unreadable> {
    out.extend_from_slice(&attempt.fence.0.to_le_bytes());
    out.extend_from_slice(&attempt.number.to_le_bytes());
    out.extend_from_slice(&attempt.started_at.0.to_le_bytes());
    out.extend_from_slice(&attempt.finished_at.0.to_le_bytes());
    put(out, record::outcome_of(attempt.outcome)?.as_bytes())?;
    let failure = attempt.failure.as_ref();
    put_optional(out, failure.map(|failure| failure.code.as_bytes()))?;
    put_optional(out, failure.map(|failure| failure.message.as_bytes()))?;
    out.push(attempt.cold_start.into());
    put_optional_number(out, attempt.init_ms);
    out.extend_from_slice(&attempt.run_us.to_le_bytes());
    put_optional_number(out, attempt.cpu_us);
    put_optional(out, record::encode_logs(&attempt.logs)?.as_deref())
}

/// What is left to be read.
struct Reader {
    bytes: Bytes,
}

impl Reader {
    fn take(&mut self, count: usize) -> Result<Bytes, Unreadable> {
        if count > self.bytes.len() {
            return Err(damaged());
        }
        Ok(self.bytes.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or_else(damaged)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        Ok(self.array::<1>()?[0])
    }

    fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(damaged()),
        }
    }

    fn length(&mut self) -> Result<usize, Unreadable> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| damaged())
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn time(&mut self) -> Result<Timestamp, Unreadable> {
        Ok(Timestamp(i64::from_le_bytes(self.array()?)))
    }

    fn sized(&mut self) -> Result<Bytes, Unreadable> {
        let count = self.length()?;
        self.take(count)
    }

    fn text(&mut self) -> Result<String, Unreadable> {
        String::from_utf8(self.sized()?.into()).map_err(|_| damaged())
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        if self.flag()? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    fn request(&mut self) -> Result<Request, Unreadable> {
        let stated = self.optional(Self::text)?;
        let input = Input {
            content_type: stated.map_or(JSON, content_type),
            body: self.sized()?,
        };
        let mut metadata = Vec::new();
        for _ in 0..self.length()? {
            metadata.push((self.text()?, self.text()?));
        }
        let traceparent = self.optional(Self::text)?;
        let key = self.optional(Self::text)?;
        let key: Option<IdempotencyKey> = key
            .map(|key| key.parse())
            .transpose()
            .map_err(|_| damaged())?;
        Ok(Request {
            input,
            metadata: metadata.into(),
            trace_id: None,
            traceparent: traceparent.map(Arc::from),
            idempotency_key: key,
            parent: None,
        })
    }

    fn kept(&mut self) -> Result<Kept, Unreadable> {
        let request = self.optional(Self::request)?;
        let output = self.optional(|reader| {
            let stated = reader.optional(Self::text)?;
            Ok(Output {
                content_type: stated.map(content_type),
                encoding: record::encoding_of(i64::from_le_bytes(reader.array()?))?,
                body: reader.sized()?,
            })
        })?;
        let mut attempts = Vec::new();
        for _ in 0..self.length()? {
            attempts.push(self.attempt()?);
        }
        Ok(Kept {
            request,
            output,
            attempts,
        })
    }

    fn attempt(&mut self) -> Result<AttemptRecord, Unreadable> {
        let fence = Fence(self.number()?);
        let number = u32::from_le_bytes(self.array()?);
        let (started_at, finished_at) = (self.time()?, self.time()?);
        let outcome = record::outcome_of(&self.text()?)?;
        let (code, message) = (self.optional(Self::text)?, self.optional(Self::text)?);
        Ok(AttemptRecord {
            fence,
            number,
            started_at,
            finished_at,
            outcome,
            failure: code.map(|code| Failure {
                code: code.into(),
                message: message.unwrap_or_default(),
            }),
            cold_start: self.flag()?,
            init_ms: self.optional(Self::number)?,
            run_us: self.number()?,
            cpu_us: self.optional(Self::number)?,
            logs: {
                let logs = self.optional(Self::sized)?;
                record::decode_logs(logs.as_deref())?
            },
        })
    }
}

#[cfg(test)]
mod tests;
