//! Durations as ISO 8601 text, which is how nanofaas's clients write and read them: `PT2S`, `PT0.5S`, `P1DT2H`.
//!
//! **Invariant:** what is printed reads back as the same duration; a length that depends on the calendar
//! (months, years) is none.

use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::fmt::temporal::SpanParser;

/// The duration that this text says; a negative one is no longer than nothing.
pub(super) fn parse(text: &str) -> Option<Duration> {
    static PARSER: SpanParser = SpanParser::new();
    let span = PARSER.parse_span(text.trim()).ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    if duration.is_negative() {
        return Some(Duration::ZERO);
    }
    Some(duration.unsigned_abs())
}

/// `PT5M`, `PT0.5S`, `PT1H1S`, as Java writes them.
pub(super) fn iso(duration: Duration) -> String {
    let whole = duration.as_secs();
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    let mut text = "PT".to_owned();
    for (count, unit) in [(hours, 'H'), (minutes, 'M')] {
        if count > 0 {
            text.push_str(&count.to_string());
            text.push(unit);
        }
    }
    let fraction = format!("{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    if seconds > 0 || !fraction.is_empty() || whole == 0 {
        text.push_str(&seconds.to_string());
        if !fraction.is_empty() {
            text.push('.');
            text.push_str(fraction);
        }
        text.push('S');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_iso_8601_is_read() {
        for (text, ms) in [
            ("PT2S", 2_000),
            ("PT0.5S", 500),
            ("PT0,5S", 500),
            ("PT0.001S", 1),
            ("pt2s", 2_000),
            ("PT1M30S", 90_000),
            ("PT1H", 3_600_000),
            ("PT0.5H", 1_800_000),
            ("P1D", 86_400_000),
            ("P1DT1S", 86_401_000),
            ("P1W", 604_800_000),
            ("PT90M", 5_400_000),
            (" PT2S ", 2_000),
            ("PT0S", 0),
            ("-PT2S", 0),
            ("+PT2S", 2_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("PT0.000000001S"), Some(Duration::from_nanos(1)));
        for none in [
            "5s",
            "2",
            "",
            "PT",
            "P",
            "P1M",
            "P1Y",
            "PT2",
            "two seconds",
            "2 s",
            "PT1.S.S",
        ] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn durations_are_written_as_java_writes_them() {
        for (nanos, text) in [
            (0, "PT0S"),
            (500_000_000, "PT0.5S"),
            (1, "PT0.000000001S"),
            (2_000_000_000, "PT2S"),
            (60_000_000_000, "PT1M"),
            (300_000_000_000, "PT5M"),
            (3_661_500_000_000, "PT1H1M1.5S"),
            (86_400_000_000_000, "PT24H"),
        ] {
            assert_eq!(iso(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn durations_read_back(nanos in 0..100_000_000_000_000_u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&iso(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let _ = parse(&text);
        }
    }
}
