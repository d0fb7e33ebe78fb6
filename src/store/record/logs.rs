//! What an attempt wrote, as bytes.
//!
//! **Invariant:** what was encoded is decoded as it was; anything else is refused, and never read beyond its end.

use super::Unreadable;
use crate::model::{LogLine, LogStream, Logs};

/// The format of logs, their first byte. (Streams 3 and 4 came with version 2 of the schema.)
const LOGS_FORMAT: u8 = 1;

/// Logs as bytes: format, whether cut, then each line as stream, length (u32, little endian) and
/// text. None where nothing was written.
pub(crate) fn encode_logs(logs: &Logs) -> Result<Option<Vec<u8>>, Unreadable> {
    if logs.lines.is_empty() && !logs.truncated {
        return Ok(None);
    }
    let text_bytes: usize = logs.lines.iter().map(|line| line.text.len() + 5).sum();
    let mut bytes = Vec::with_capacity(text_bytes + 2);
    bytes.push(LOGS_FORMAT);
    bytes.push(u8::from(logs.truncated));
    for line in &logs.lines {
        let len = u32::try_from(line.text.len())
            .map_err(|_| Unreadable::of("logs", "a line is longer than 4 GiB"))?;
        bytes.push(match line.stream {
            LogStream::Stdout => 1,
            LogStream::Stderr => 2,
            LogStream::Logging => 3,
            LogStream::Plane => 4,
        });
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(line.text.as_bytes());
    }
    Ok(Some(bytes))
}

/// The logs in these bytes.
pub(crate) fn decode_logs(bytes: Option<&[u8]>) -> Result<Logs, Unreadable> {
    let Some(bytes) = bytes else {
        return Ok(Logs::default());
    };
    let damaged = || Unreadable::of("logs", "damaged, or of an unknown format");
    let [LOGS_FORMAT, truncated @ (0 | 1), lines_stored @ ..] = bytes else {
        return Err(damaged());
    };
    let mut rest = lines_stored;
    let mut lines = Vec::new();
    while let Some((stream, after)) = rest.split_first() {
        let (len, after) = after.split_first_chunk::<4>().ok_or_else(damaged)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| damaged())?;
        let (text, after) = after.split_at_checked(len).ok_or_else(damaged)?;
        lines.push(LogLine {
            stream: match stream {
                1 => LogStream::Stdout,
                2 => LogStream::Stderr,
                3 => LogStream::Logging,
                4 => LogStream::Plane,
                _ => return Err(damaged()),
            },
            text: String::from_utf8(text.to_vec()).map_err(|_| damaged())?,
        });
        rest = after;
    }
    Ok(Logs {
        lines,
        truncated: *truncated == 1,
    })
}
