//! Writing to standard output and standard error: tables, JSON, values of functions.
//!
//! **Invariant:** a closed pipe ends a command quietly and never panics; what a function wrote cannot
//! steer a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use base64::Engine as _;

use super::exit::Failure;
use super::wire::Execution;

/// For whom a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// For machines: the server's own JSON, one document.
    Json,
}

/// Writes lines to standard output.
///
/// # Errors
/// [`Failure::Output`].
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write_bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output as they are.
///
/// # Errors
/// [`Failure::Output`].
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(Failure::Output)
}

/// Writes a line to standard error, for people; nobody can be told if that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Shows a function's output as what it is: JSON indented, text as text, other bytes as bytes (as base64
/// on a terminal).
///
/// # Errors
/// [`Failure::Output`].
pub(crate) fn print_output(execution: &Execution) -> Result<(), Failure> {
    let Some(raw) = &execution.output else {
        return Ok(());
    };
    let string = || serde_json::from_str::<String>(raw.get()).ok();
    match execution.output_encoding.as_deref() {
        Some("text") => match string() {
            Some(text) => print(&for_terminal(&text)),
            None => print(&for_terminal(&indent_json(raw.get()))),
        },
        Some("base64") => {
            let base64 = string().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(&base64);
            match bytes {
                Ok(bytes) if !io::stdout().is_terminal() => write_bytes(&bytes),
                _ => {
                    note(
                        "the output is not text; this is its base64 (redirect it to get the bytes)",
                    );
                    print(&base64)
                }
            }
        }
        _ => print(&for_terminal(&indent_json(raw.get()))),
    }
}

/// Text whose control characters are written out, as in `\u{1b}`, newlines and tabs apart: a terminal would
/// obey them, and what is piped often ends on one as well.
pub(crate) fn for_terminal(text: &str) -> Cow<'_, str> {
    let steers = |symbol: char| symbol.is_control() && !matches!(symbol, '\n' | '\t');
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() * 2);
    for symbol in text.chars() {
        if steers(symbol) {
            safe.extend(symbol.escape_unicode());
        } else {
            safe.push(symbol);
        }
    }
    Cow::Owned(safe)
}

/// Indents a JSON text by two blanks a level. Works on the text, so that neither the order of members nor
/// a digit of a number is lost. The text must be valid JSON.
pub(crate) fn indent_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut symbols = text.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(symbol) = symbols.next() {
        match symbol {
            '"' => {
                out.push('"');
                copy_string(&mut symbols, &mut out);
            }
            '{' | '[' => {
                out.push(symbol);
                while symbols.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(closing) = symbols.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(closing);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(symbol);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            blank if blank.is_ascii_whitespace() => {}
            other => out.push(other),
        }
    }
    out
}

/// Copies the rest of a JSON string, its closing quote included.
fn copy_string(symbols: &mut impl Iterator<Item = char>, out: &mut String) {
    while let Some(symbol) = symbols.next() {
        out.push(symbol);
        match symbol {
            '"' => return,
            '\\' => out.extend(symbols.next()),
            _ => {}
        }
    }
}

/// Rows under a heading, each column as wide as its widest cell.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let mut widths = [0_usize; N];
    for row in std::iter::once(&heading).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines = std::iter::once(&heading).chain(rows).map(|row| {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A size in bytes, for people.
pub(crate) fn bytes(size: u64) -> String {
    match size {
        0..1_000 => format!("{size} B"),
        1_000..1_000_000 => format!("{} kB", size.div_ceil(1_000)),
        _ => format!("{}.{} MB", size / 1_000_000, size % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_keeps_order_digits_and_strings() {
        let text = r#"{"b":[1,{ },[]], "a":"x\"{,:\\","n":12345678901234567890.10}"#;
        let indented = indent_json(text);
        assert_eq!(
            indented,
            "{\n  \"b\": [\n    1,\n    {},\n    []\n  ],\n  \"a\": \"x\\\"{,:\\\\\",\n  \"n\": 12345678901234567890.10\n}"
        );
        assert_eq!(indent_json(&indented), indented);
        assert_eq!(indent_json("3"), "3");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["echo".to_owned(), "1".to_owned()]];
        assert_eq!(table(["NAME", "V"], &rows), "NAME  V\necho  1");
    }

    #[test]
    fn escape_sequences_lose_their_power() {
        assert_eq!(for_terminal("a\u{1b}[2J\tb\n"), "a\\u{1b}[2J\tb\n");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(43_210), "44 kB");
        assert_eq!(bytes(12_340_000), "12.3 MB");
    }
}
