//! Small helpers for text that leaves the process: bounded, printable, in one time format.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// RFC 3339 in UTC with milliseconds, the one time format on the wire.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    // humantime panics outside the years 1970 to 9999, which a hostile clock could reach.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// Reads what [`rfc3339`] writes (any RFC 3339 time in UTC).
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

/// At most `max` bytes of `text` on a character boundary, control characters escaped.
pub(crate) fn bounded(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    let mut buf = String::new();
    for c in text.chars() {
        buf.clear();
        if c.is_control() {
            let _ = write!(buf, "{}", c.escape_default());
        } else {
            buf.push(c);
        }
        if out.len() + buf.len() > max {
            break;
        }
        out.push_str(&buf);
    }
    out
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Serde for an optional time as RFC 3339 text.
pub(crate) mod time {
    use super::{SystemTime, parse_rfc3339, rfc3339};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(
        at: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.serialize_some(&rfc3339(*at)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| {
            parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
        })
        .transpose()
    }
}

/// The same for a time that must not be written as an earlier one.
pub(crate) mod time_at_least {
    use super::{Duration, SystemTime, time};
    use serde::Serializer;

    pub(crate) use super::time::deserialize;

    /// What the next millisecond lacks at most.
    const REST: Duration = Duration::from_nanos(999_999);

    pub(crate) fn serialize<S: Serializer>(
        at: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time::serialize(&at.map(|at| at.checked_add(REST).unwrap_or(at)), serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_text_ends_on_a_character_and_escapes_control_characters() {
        assert_eq!(bounded("añb", 2), "a");
        assert_eq!(bounded("a\r\nb", 100), "a\\r\\nb");
    }

    #[test]
    fn times_survive_a_round_trip_to_the_millisecond() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse_rfc3339(&rfc3339(at)), Some(at));
        assert!(rfc3339(UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1000)).len() < 30);
    }
}
