//! Compares a response with what its head says, and a head with what a client can be expected to take.
//!
//! **Invariant:** every mistake has a code of its own and a message with both numbers.

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use wasmtime_wasi_http::Error;

use super::code;
use crate::model::Failure;
use crate::runtime::host_limits::{RESPONSE_HEADER_BYTES_MAX, RESPONSE_HEADERS_MAX};

/// Compares a body with the length that its head states.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measure {
    stated: Option<u64>,
    seen: u64,
}

impl Measure {
    /// For the body that comes with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let stated = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        Self { stated, seen: 0 }
    }

    /// Bytes that came.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether all bytes came that the head states.
    pub(super) fn is_reached(&self) -> bool {
        self.stated == Some(self.seen)
    }

    /// So many bytes came.
    ///
    /// # Errors
    /// The body is longer than its head says.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), Failure> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.seen = self.seen.saturating_add(bytes);
        match self.stated {
            Some(stated) if self.seen > stated => Err(too_long(stated, self.seen)),
            Some(_) | None => Ok(()),
        }
    }

    /// The body has ended.
    ///
    /// # Errors
    /// It is shorter than its head says.
    pub(super) fn end(&self) -> Result<(), Failure> {
        match self.stated {
            Some(stated) if self.seen < stated => Err(too_short(stated, self.seen)),
            Some(_) | None => Ok(()),
        }
    }

    /// What an error of the body says: the guest's host calls check the length too, and tell only the guest.
    pub(super) fn aborted(&self, error: &Error) -> Failure {
        match (self.stated, error) {
            (Some(stated), Error::HttpResponseBodySize(Some(size))) if *size > stated => {
                too_long(stated, *size)
            }
            (Some(stated), _) if self.seen < stated => too_short(stated, self.seen),
            _ => Failure::new(
                code::BODY_ABORTED,
                "the function gave up its response's body before it was finished",
            ),
        }
    }
}

fn too_long(stated: u64, seen: u64) -> Failure {
    let message = format!(
        "the response's body is longer than its Content-Length of {stated} bytes: at least {seen} bytes"
    );
    Failure::new(code::BODY_TOO_LONG, message)
}

fn too_short(stated: u64, seen: u64) -> Failure {
    let message = format!(
        "the response's body is shorter than its Content-Length of {stated} bytes: it ended after {seen} bytes"
    );
    Failure::new(code::BODY_TOO_SHORT, message)
}

/// The mistake of a head that states a length which is none, or several: no client could tell where the body ends.
pub(super) fn no_length(headers: &HeaderMap) -> Option<Failure> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next()?;
    let is_number = first.to_str().is_ok_and(|length| {
        length.bytes().all(|digit| digit.is_ascii_digit()) && length.parse::<u64>().is_ok()
    });
    if is_number && lengths.all(|other| other == first) {
        return None;
    }
    let message = "the response's Content-Length is not one number of bytes";
    Some(Failure::new(code::CONTENT_LENGTH_INVALID, message))
}

/// The mistake of a head that no client can be expected to take.
pub(super) fn too_many_headers(headers: &HeaderMap) -> Option<Failure> {
    let count = headers.len();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if count <= RESPONSE_HEADERS_MAX && bytes <= RESPONSE_HEADER_BYTES_MAX {
        return None;
    }
    let message = format!(
        "the response has {count} header fields of {bytes} bytes, and may have {RESPONSE_HEADERS_MAX} of \
         {RESPONSE_HEADER_BYTES_MAX} bytes together"
    );
    Some(Failure::new(code::HEADERS_TOO_LARGE, message))
}

/// The mistake of a status that no client can be expected to understand as the last one.
pub(super) fn no_final_status(status: StatusCode) -> Option<Failure> {
    if (200..=599).contains(&status.as_u16()) {
        return None;
    }
    let message = format!("the function answered {status}: functions answer 200 to 599");
    Some(Failure::new(code::UNEXPECTED_STATUS, message))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lengths: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for length in lengths {
            headers.append(CONTENT_LENGTH, HeaderValue::try_from(*length).unwrap());
        }
        headers
    }

    #[test]
    fn a_length_is_one_number() {
        for good in [
            &[][..],
            &["0"],
            &["12"],
            &["7", "7"],
            &["18446744073709551615"],
        ] {
            assert_eq!(no_length(&headers(good)), None, "{good:?}");
        }
        for bad in [
            &[""][..],
            &["+1"],
            &["-1"],
            &["x"],
            &["1, 1"],
            &["1", "2"],
            &["18446744073709551616"],
        ] {
            let mistake = no_length(&headers(bad)).unwrap();
            assert_eq!(mistake.code, code::CONTENT_LENGTH_INVALID, "{bad:?}");
        }
    }

    #[test]
    fn a_body_is_as_long_as_its_head_says() {
        let mut measure = Measure::of(&headers(&["5"]));
        measure.add(3).unwrap();
        assert!(!measure.is_reached());
        assert_eq!(measure.end().unwrap_err().code, code::BODY_TOO_SHORT);
        measure.add(2).unwrap();
        assert!(measure.is_reached());
        measure.end().unwrap();
        assert_eq!(measure.add(1).unwrap_err().code, code::BODY_TOO_LONG);
        assert_eq!(measure.seen(), 6);
        let mut any = Measure::of(&headers(&[]));
        any.add(1_000).unwrap();
        assert!(!any.is_reached());
        any.end().unwrap();
    }
}
