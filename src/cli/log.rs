//! The log of a server: to standard error, a line for each event.
//!
//! **Invariant:** one event is one line, whatever stands in it: line ends and what steers a terminal are written
//! out. (In JSON they are anyway.)

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::exit::Failure;
use crate::config::{LogFormat, LogOptions};

/// Sends logs to standard error.
///
/// # Errors
/// [`Failure::Usage`] if the filter cannot be read.
pub(super) fn start(options: &LogOptions) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&options.log_filter).map_err(|error| {
        Failure::Usage(format!(
            "--log-filter {:?} cannot be read: {error}",
            options.log_filter
        ))
    })?;
    let colours = if io::stderr().is_terminal() {
        Colours::Kept
    } else {
        Colours::None
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours == Colours::Kept)
        .with_writer(Lines(colours));
    let started = match options.log_format {
        LogFormat::Pretty => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}").into())
}

/// Makes a panic a line of the log like any other; where it is caught, its execution or request is named as well.
pub(super) fn panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let text = panic
            .payload_as_str()
            .unwrap_or("a panic without a message");
        tracing::error!(
            panic.place = place.as_deref(),
            panic.text = text,
            "a thread panicked"
        );
    }));
}

/// Whether an event may have colours, which are control characters too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    Kept,
    None,
}

/// Standard error, taking an event at a time.
#[derive(Debug, Clone, Copy)]
struct Lines(Colours);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Lines {
    /// Writes one whole event, which is how they come.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&in_one_line(event, self.0))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// An event with its line end, and no control characters before that.
fn in_one_line(event: &[u8], colours: Colours) -> Cow<'_, [u8]> {
    let (text, end) = match event.strip_suffix(b"\n") {
        Some(text) => (text, &b"\n"[..]),
        None => (event, &b""[..]),
    };
    let steers = |byte: u8| match byte {
        b'\t' => false,
        0x1b => colours == Colours::None,
        byte => byte.is_ascii_control(),
    };
    if !text.iter().copied().any(steers) {
        return Cow::Borrowed(event);
    }
    let mut line = Vec::with_capacity(event.len() * 2);
    for byte in text.iter().copied() {
        if steers(byte) {
            line.extend(byte.escape_ascii());
        } else {
            line.push(byte);
        }
    }
    line.extend_from_slice(end);
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let line = |event: &str, colours| {
            let line = in_one_line(event.as_bytes(), colours).into_owned();
            String::from_utf8(line).unwrap()
        };
        assert_eq!(line("a\té error=b\n", Colours::None), "a\té error=b\n");
        assert_eq!(
            line("a\n\r\u{1b}[31mb\u{7f}\n", Colours::None),
            "a\\n\\r\\x1b[31mb\\x7f\n"
        );
        assert_eq!(
            line("\u{1b}[2mnow\u{1b}[0m a\nb\n", Colours::Kept),
            "\u{1b}[2mnow\u{1b}[0m a\\nb\n"
        );
    }
}
