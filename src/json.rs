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
    let mut at = start;
    // The kinds of the open brackets, the innermost one in the lowest bit: 1 for an object.
    let (mut open, mut depth) = (0_u128, 0_u32);
    loop {
        // Here a value is expected.
        at = skip_space(text, at);
        match text.get(at)? {
            b'"' => at = string_end(text, at)?,
            b'{' | b'[' if depth == depth_max => return None,
            b'{' => {
                at = skip_space(text, at + 1);
                if text.get(at) == Some(&b'}') {
                    at += 1;
                } else {
                    (open, depth) = (open << 1 | 1, depth + 1);
                    at = name_end(text, at)?;
                    continue;
                }
            }
            b'[' => {
                at = skip_space(text, at + 1);
                if text.get(at) == Some(&b']') {
                    at += 1;
                } else {
                    (open, depth) = (open << 1, depth + 1);
                    continue;
                }
            }
            b'-' | b'0'..=b'9' => at = number_end(text, at)?,
            b't' => at = word_end(text, at, b"true")?,
            b'f' => at = word_end(text, at, b"false")?,
            b'n' => at = word_end(text, at, b"null")?,
            _ => return None,
        }
        // A value has ended, and with it perhaps what it stands in.
        loop {
            if depth == 0 {
                return Some(at);
            }
            at = skip_space(text, at);
            let in_object = open & 1 == 1;
            match text.get(at)? {
                b',' if in_object => {
                    at = name_end(text, skip_space(text, at + 1))?;
                    break;
                }
                b',' => {
                    at += 1;
                    break;
                }
                b'}' if in_object => {}
                b']' if !in_object => {}
                _ => return None,
            }
            (open, depth, at) = (open >> 1, depth - 1, at + 1);
        }
    }
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
    let mut at = start + 1;
    loop {
        at += plain_length(text.get(at..)?);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape_end(text, at)?,
            // A control character.
            _ => return None,
        }
    }
}

/// How many bytes at the beginning are neither a quotation mark nor a backslash nor a control character.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    // The top bit of each byte that is zero; bytes above a zero may be marked too.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let mut length = 0;
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        // Below 0x20: no bit above the lowest five.
        let control = zero(word & (ONES * 0xe0));
        let special = quote | backslash | control;
        if special != 0 {
            // The lowest mark is a true one, whatever stands above it.
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
        rest = after;
    }
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    length + rest.iter().take_while(|byte| is_plain(byte)).count()
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

/// Where a member's name, its colon included, ends.
fn name_end(text: &[u8], start: usize) -> Option<usize> {
    let colon = skip_space(text, string_end(text, start)?);
    (text.get(colon) == Some(&b':')).then_some(colon + 1)
}

fn number_end(text: &[u8], start: usize) -> Option<usize> {
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
    let mut at = start + usize::from(text.get(start) == Some(&b'-'));
    at = match text.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') {
        at = some_digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
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
