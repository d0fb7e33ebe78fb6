//! Tells JSON from what is none, and where a value ends, without making anything of it.
//!
//! Payloads pass through as they were written; all that is ever asked of one is whether it is JSON. A parser
//! that knows no values answers that several times as fast as one that could make them.
//!
//! **Invariant:** what is accepted here is JSON by RFC 8259 as long as it is UTF-8, and nests no deeper than
//! was asked for; nothing here recurses or allocates.

/// Deepest nesting that can be asked for: one bit for each open bracket.
pub const DEPTH_MAX: u32 = u128::BITS;

/// Where the value ends that begins at `start`; white space may stand before it, and is not looked for
/// behind it. `None` if there is no whole value, or it nests deeper than `depth_max` (or [`DEPTH_MAX`]).
///
/// The text of strings is not checked for being UTF-8.
pub fn value_end(text: &[u8], start: usize, depth_max: u32) -> Option<usize> {
    let depth_max = depth_max.min(DEPTH_MAX);
    // The kinds of the open brackets, the innermost one in the lowest bit: 1 for an object.
    let (mut open, mut depth, mut in_object) = (0_u128, 0_u32, false);
    let (mut byte, mut at) = next(text, start)?;
    loop {
        // Here a value begins: with `byte`, at `at`.
        at = match byte {
            b'"' => string_rest(text, at + 1)?,
            b'{' | b'[' if depth == depth_max => return None,
            b'{' => {
                (byte, at) = next(text, at + 1)?;
                if byte == b'}' {
                    at + 1
                } else {
                    (open, depth, in_object) = (open << 1 | 1, depth + 1, true);
                    (byte, at) = member_value(text, byte, at)?;
                    continue;
                }
            }
            b'[' => {
                (byte, at) = next(text, at + 1)?;
                if byte == b']' {
                    at + 1
                } else {
                    (open, depth, in_object) = (open << 1, depth + 1, false);
                    continue;
                }
            }
            b'-' | b'0'..=b'9' => number_end(text, byte, at)?,
            b't' => word_end(text, at, b"true")?,
            b'f' => word_end(text, at, b"false")?,
            b'n' => word_end(text, at, b"null")?,
            _ => return None,
        };
        // A value has ended, and with it perhaps what it stands in.
        loop {
            if depth == 0 {
                return Some(at);
            }
            (byte, at) = next(text, at)?;
            if byte == b',' {
                (byte, at) = next(text, at + 1)?;
                if in_object {
                    (byte, at) = member_value(text, byte, at)?;
                }
                break;
            }
            if byte != if in_object { b'}' } else { b']' } {
                return None;
            }
            (open, depth, at) = (open >> 1, depth - 1, at + 1);
            in_object = open & 1 == 1;
        }
    }
}

/// The next byte that is no white space, and where it stands: nearly always at `at`.
///
/// This and the two below are inlined by order: as calls, they make a scan dearer by a third.
#[inline(always)]
fn next(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let byte = *text.get(at)?;
    if byte > b' ' {
        return Some((byte, at));
    }
    spaced(text, at)
}

/// The same where there is white space.
#[cold]
#[inline(never)]
fn spaced(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let at = skip_space(text, at);
    Some((*text.get(at)?, at))
}

/// The first byte of a member's value, and where it stands: behind the name that begins with `byte` at `at`.
#[inline(always)]
fn member_value(text: &[u8], byte: u8, at: usize) -> Option<(u8, usize)> {
    if byte != b'"' {
        return None;
    }
    let (byte, at) = next(text, string_rest(text, at + 1)?)?;
    if byte != b':' {
        return None;
    }
    next(text, at + 1)
}

/// Whether all of this is one JSON value that nests no deeper than `depth_max`.
pub fn is_json(text: &[u8], depth_max: u32) -> bool {
    let end = value_end(text, 0, depth_max);
    end.is_some_and(|end| skip_space(text, end) == text.len()) && std::str::from_utf8(text).is_ok()
}

/// The first place at or after `at` that has no white space.
pub fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Where the string ends whose first quotation mark is at `start`.
pub fn string_end(text: &[u8], start: usize) -> Option<usize> {
    if text.get(start) != Some(&b'"') {
        return None;
    }
    string_rest(text, start + 1)
}

/// Where the string ends whose text goes on at `at`; eight bytes are looked at together.
#[inline(always)]
fn string_rest(text: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    while let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        // A subtraction leaves the top bit set in each byte that is less than what is taken from it, in bytes
        // that had it set before, which are nothing special, and perhaps in those above a true mark: the lowest
        // mark is a true one. With the second bit turned over, the quotation mark comes right after the control
        // characters: both are found by one subtraction.
        let low = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
        let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        let special = (low | backslash) & !word & TOPS;
        if special != 0 {
            at += special.trailing_zeros() as usize / 8;
            match text.get(at)? {
                b'"' => return Some(at + 1),
                b'\\' => at = escape_end(text, at)?,
                // A control character.
                _ => return None,
            }
            continue;
        }
        at += 8;
    }
    string_tail(text, at)
}

/// The same byte by byte, for the end of the text.
#[cold]
#[inline(never)]
fn string_tail(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape_end(text, at)?,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// Where the escape ends whose backslash is at `start`.
fn escape_end(text: &[u8], start: usize) -> Option<usize> {
    match text.get(start + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(start + 2),
        b'u' => {
            let digits = text.get(start + 2..start + 6)?;
            digits
                .iter()
                .all(u8::is_ascii_hexdigit)
                .then_some(start + 6)
        }
        _ => None,
    }
}

/// Where the number ends that begins with `byte` at `start`.
fn number_end(text: &[u8], byte: u8, start: usize) -> Option<usize> {
    let digits = |mut at: usize| {
        while let Some(b'0'..=b'9') = text.get(at) {
            at += 1;
        }
        at
    };
    let some_digits = |at: usize| {
        let end = digits(at);
        (end > at).then_some(end)
    };
    let (byte, at) = match byte {
        b'-' => (*text.get(start + 1)?, start + 1),
        _ => (byte, start),
    };
    let mut at = match byte {
        b'0' => at + 1,
        b'1'..=b'9' => digits(at + 1),
        _ => return None,
    };
    let mut next = text.get(at);
    if next == Some(&b'.') {
        at = some_digits(at + 1)?;
        next = text.get(at);
    }
    if let Some(b'e' | b'E') = next {
        let signed = matches!(text.get(at + 1), Some(b'+' | b'-'));
        at = some_digits(at + 1 + usize::from(signed))?;
    }
    Some(at)
}

fn word_end(text: &[u8], start: usize, word: &[u8]) -> Option<usize> {
    text.get(start..)?
        .starts_with(word)
        .then_some(start + word.len())
}

#[cfg(test)]
mod tests;
