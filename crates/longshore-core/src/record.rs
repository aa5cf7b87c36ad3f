//! What travels with a message between its attempts.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{MessageId, text};

/// The header, field or value that holds the record.
pub const RETRY_HEADER: &str = "longshore-retry";
/// The most bytes of an encoded record.
pub const MAX_RECORD: usize = 2048;
/// The most entries of a history.
pub const MAX_HISTORY: usize = 10;

const VERSION: u8 = 1;
/// More hand-overs than any message has; a larger count was forged, and could not be counted on.
const MAX_DELIVERIES: u32 = 1_000_000;

/// The retry record.
///
/// The engine makes it; the backend writes it as the first durable step of the settlement that
/// carries it. It replaces the one before, so its size does not grow over the attempts.
///
/// `deliveries` as the engine makes it counts every hand-over so far. A backend that copies writes
/// it as it is, because the copy's own count starts anew; one that retries in place writes it less
/// its own count for this copy, which goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The id, where the message came without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
    /// Handler runs that failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Hand-overs before the present copy's first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deliveries: u32,
    /// Returns that were no crash: graceful ones that the broker counts, and all up to a move into
    /// the suspect lane.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub explained: u32,
    /// Durable delayed retries.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delayed: u32,
    /// How often it was redriven.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub redrives: u32,
    /// When a run first failed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::time")]
    pub first_failed_at: Option<SystemTime>,
    /// When it was published, where copies lose that.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::time")]
    pub published_at: Option<SystemTime>,
    /// Not to be handled before, where the place it waits in keeps no time of its own.
    /// Written in milliseconds, rounded up: cut off, it would let a retry come early.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::time_at_least")]
    pub not_before: Option<SystemTime>,
    /// The position of the message as published, once it is known to be a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<SmolStr>,
    /// Whether it has been in the suspect lane.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
    /// The last failures, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The attempt that failed.
    pub n: u32,
    /// When, RFC 3339.
    #[serde(with = "text::time", default)]
    pub at: Option<SystemTime>,
    /// The delay before the next attempt, in milliseconds; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The type of the error.
    pub error_type: SmolStr,
    /// Who ran it.
    pub instance: SmolStr,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u8,
    #[serde(flatten)]
    record: T,
}

impl Record {
    /// As JSON text of at most [`MAX_RECORD`] bytes: the oldest history goes first.
    #[must_use]
    pub fn encode(&self) -> String {
        let text = encode(self);
        if text.len() <= MAX_RECORD {
            return text;
        }
        let mut shorter = self.clone();
        while !shorter.history.is_empty() {
            shorter.history.remove(0);
            let text = encode(&shorter);
            if text.len() <= MAX_RECORD {
                return text;
            }
        }
        // Without history it is some numbers, times and two short texts.
        encode(&shorter)
    }

    /// Reads what [`Record::encode`] writes. `None` for anything else: an unreadable record counts
    /// as none, and the next retry replaces it.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_RECORD {
            return None;
        }
        let Versioned { v, mut record }: Versioned<Self> = serde_json::from_slice(bytes).ok()?;
        if v != VERSION || record.history.len() > MAX_HISTORY {
            return None;
        }
        record.history.iter_mut().for_each(|entry| {
            entry.error_type = SmolStr::from(text::bounded(&entry.error_type, 128));
        });
        Some(record)
    }

    /// Reads a record that travelled on a copy, where any program could have written it. `None`
    /// also where its counts do not fit each other: what explains hand-overs cannot be more than
    /// them, or it would hide a message that kills its handler's process.
    #[must_use]
    pub fn decode_copy(bytes: &[u8]) -> Option<Self> {
        let record = Self::decode(bytes)?;
        let explained = record.delayed.checked_add(record.explained)?;
        let plausible = explained <= record.deliveries && record.deliveries <= MAX_DELIVERIES;
        plausible.then_some(record)
    }

    /// Bounds what a forged record can do: attempts to `max_attempts + 1`, the first failure to
    /// now, not-before to `now + longest_delay`. It can then neither overflow a count nor park a
    /// message for ever.
    #[must_use]
    pub fn clamped(mut self, max_attempts: u32, now: SystemTime, longest_delay: Duration) -> Self {
        self.failures = self.failures.min(max_attempts);
        self.first_failed_at = self.first_failed_at.map(|at| at.min(now));
        let latest = now.checked_add(longest_delay).unwrap_or(now);
        self.not_before = self.not_before.map(|at| at.min(latest));
        self
    }

    /// Adds a failure to the history, dropping the oldest beyond [`MAX_HISTORY`].
    pub fn remember(&mut self, entry: HistoryEntry) {
        if self.history.len() >= MAX_HISTORY {
            self.history.drain(..=self.history.len() - MAX_HISTORY);
        }
        self.history.push(entry);
    }
}

fn encode(record: &Record) -> String {
    serde_json::to_string(&Versioned { v: VERSION, record })
        .expect("numbers, times and text have a JSON form")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn entry(n: u32, error_type: &str) -> HistoryEntry {
        HistoryEntry {
            n,
            at: Some(UNIX_EPOCH + Duration::from_millis(u64::from(n))),
            delay_ms: Some(10),
            error_type: error_type.into(),
            instance: "i".into(),
        }
    }

    #[test]
    fn a_time_not_to_be_handled_before_is_never_cut_short() {
        let at = |nanos| Some(UNIX_EPOCH + Duration::from_nanos(nanos));
        for (nanos, written) in [(5_000_000, 5), (5_000_001, 6), (5_999_999, 6)] {
            let record = Record { not_before: at(nanos), ..Record::default() };
            let text = serde_json::to_string(&record).unwrap();
            let read: Record = serde_json::from_str(&text).unwrap();
            assert_eq!(
                read.not_before,
                Some(UNIX_EPOCH + Duration::from_millis(written)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_record_survives_its_codec_and_keeps_ten_failures() {
        let mut record = Record { failures: 3, suspect: true, ..Record::default() };
        record.first_failed_at = Some(UNIX_EPOCH + Duration::from_millis(1_234));
        (0..25).for_each(|n| record.remember(entry(n, "E")));
        assert_eq!(record.history.len(), MAX_HISTORY);
        assert_eq!(record.history[0].n, 15);
        assert_eq!(Record::decode(record.encode().as_bytes()), Some(record));
    }

    #[test]
    fn the_oldest_history_goes_where_it_would_not_fit() {
        let mut record = Record::default();
        (0..10).for_each(|n| record.remember(entry(n, &"x".repeat(300))));
        let text = record.encode();
        assert!(text.len() <= MAX_RECORD);
        assert_eq!(Record::decode(text.as_bytes()).unwrap().history.last().unwrap().n, 9);
    }

    #[test]
    fn hostile_records_count_as_none_or_are_clamped() {
        let big = format!("{{\"v\":1,\"origin\":\"{}\"}}", "x".repeat(MAX_RECORD));
        for bad in [
            "",
            "1",
            "null",
            "{}",
            "{\"v\":2}",
            "{\"v\":1,\"failures\":-1}",
            "{\"v\":1,\"failures\":\"3\"}",
            "{\"v\":1,\"failures\":18446744073709551616}",
            "{\"v\":1,\"not_before\":\"never\"}",
            &big,
            "\u{0}\u{1}",
        ] {
            assert_eq!(Record::decode(bad.as_bytes()), None, "{bad:.60}");
        }
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let forged =
            br#"{"v":1,"failures":4294967295,"redrives":9,"not_before":"2999-01-01T00:00:00Z"}"#;
        let record = Record::decode(forged).unwrap().clamped(6, now, Duration::from_secs(60));
        assert_eq!(record.failures, 6);
        assert_eq!(record.not_before, Some(now + Duration::from_secs(60)));
    }

    #[test]
    fn a_copys_counts_fit_each_other() {
        for bad in [
            r#"{"v":1,"explained":1}"#,
            r#"{"v":1,"deliveries":3,"delayed":2,"explained":2}"#,
            r#"{"v":1,"deliveries":4294967295,"explained":4294967295}"#,
            r#"{"v":1,"delayed":4294967295,"explained":4294967295,"deliveries":1}"#,
        ] {
            assert!(Record::decode(bad.as_bytes()).is_some(), "{bad}");
            assert_eq!(Record::decode_copy(bad.as_bytes()), None, "{bad}");
        }
        let good = r#"{"v":1,"deliveries":4,"delayed":2,"explained":2}"#;
        assert!(Record::decode_copy(good.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }

        #[test]
        fn counts_survive(failures: u32, deliveries: u32, explained: u32, delayed: u32) {
            let record = Record { failures, deliveries, explained, delayed, ..Record::default() };
            prop_assert_eq!(Record::decode(record.encode().as_bytes()), Some(record));
        }
    }
}
