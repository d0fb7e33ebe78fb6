//! Times as ISO 8601 text in UTC with milliseconds, which is how nanofaas's clients read them.
//!
//! **Invariant:** what is printed reads back as the same time.

use crate::model::Timestamp;

/// `2026-09-01T12:00:00.000Z`. A time that no calendar has is shown as its nearest end.
pub(super) fn iso(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(time.0).unwrap_or(if time.0 < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    format!("{time:.3}")
}

/// The time of this ISO 8601 text, which has to say its offset from UTC.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_have_milliseconds_and_say_utc() {
        assert_eq!(iso(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            iso(Timestamp(1_788_264_000_042)),
            "2026-09-01T12:00:00.042Z"
        );
        assert_eq!(
            parse("2026-09-01T14:00:00.042+02:00"),
            Some(Timestamp(1_788_264_000_042))
        );
        assert_eq!(parse("2026-09-01"), None);
        assert_eq!(
            iso(Timestamp(i64::MAX)).len(),
            "9999-12-30T22:00:00.000Z".len()
        );
    }

    proptest! {
        #[test]
        fn times_read_back(ms in 0..253_000_000_000_000_i64) {
            prop_assert_eq!(parse(&iso(Timestamp(ms))), Some(Timestamp(ms)));
        }

        #[test]
        fn any_time_can_be_shown(ms: i64) {
            let _ = iso(Timestamp(ms));
        }
    }
}
