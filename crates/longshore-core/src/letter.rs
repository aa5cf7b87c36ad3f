//! The metadata of a dead letter, and its form on the wire: one header each, all single-valued
//! UTF-8 text under `longshore-dl-`. `docs/dead-letters.md` is its public description.

use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;

use crate::policy::Reason;
use crate::text::{bounded, hex, parse_rfc3339, rfc3339};
use crate::{GroupName, HeaderName, Headers, HistoryEntry, MessageId, Position, TopicName};

/// What starts the name of every header of a dead letter.
const PREFIX: &str = "longshore-dl-";
const VERSION: &str = "1";
/// The most bytes of all of a letter's headers.
const MAX_LETTER: usize = 16 * 1024;
const MAX_TEXT: usize = 1024;
const MAX_CHAIN: usize = 4 * 1024;
const MAX_CHAIN_ITEMS: usize = 10;
const MAX_BACKTRACE: usize = 8 * 1024;
const MAX_HISTORY_TEXT: usize = 2 * 1024;

/// Why a message is a dead letter, and what happened before.
///
/// The engine makes it; the backend writes it beside the untouched message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Deterministic ([`dead_letter_id`]): a duplicate copy is recognisable, and a second death
    /// after a redrive differs.
    pub id: SmolStr,
    /// Why.
    pub reason: Reason,
    /// More of why, for people.
    pub reason_detail: Option<String>,
    /// The last error, where there was one.
    pub cause: Option<Cause>,
    /// The topic that it was published to, with the tenant's prefix.
    pub source: SmolStr,
    /// The backend's name.
    pub source_backend: SmolStr,
    /// The group that failed it.
    pub source_group: SmolStr,
    /// Where it stood when it was published.
    pub position: Position,
    /// The message's id.
    pub original_id: SmolStr,
    /// When it was published, where that is known.
    pub original_published_at: Option<SystemTime>,
    /// Handler runs.
    pub attempts: u32,
    /// Hand-overs, crashes and lost connections included.
    pub deliveries: u32,
    /// Durable delayed retries.
    pub delayed_retries: u32,
    /// When a run first failed.
    pub first_failed_at: SystemTime,
    /// When the last run failed.
    pub last_failed_at: SystemTime,
    /// When it was moved.
    pub dead_lettered_at: SystemTime,
    /// The last failures, oldest first.
    pub history: Vec<HistoryEntry>,
    /// The name of the handler.
    pub handler: SmolStr,
    /// The message's type.
    pub message_type: Option<SmolStr>,
    /// Which instance failed it last.
    pub instance: SmolStr,
    /// The version of longshore that wrote this.
    pub lib_version: SmolStr,
    /// The fingerprint of the policy that decided.
    pub policy: SmolStr,
    /// How often it had been redriven before it died.
    pub redrive_count: u32,
    /// The id of the letter that it was before the last redrive.
    pub redrive_of: Option<SmolStr>,
    /// SHA-256 of the body.
    pub payload_sha256: SmolStr,
}

/// The error of the last run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The type's name.
    pub error_type: String,
    /// What it says.
    pub message: String,
    /// The code that the handler gave it.
    pub code: Option<String>,
    /// Whether trying again could have helped.
    pub transient: bool,
    /// What caused it, outermost first.
    pub chain: Vec<String>,
    /// Where it arose, where that was asked for.
    pub backtrace: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ChainItem {
    message: String,
}

impl Letter {
    /// The headers of this letter, in at most `room` bytes: backtrace, then history, then chain are
    /// dropped. `None` where not even version, id and reason fit.
    #[must_use]
    pub fn encode(&self, room: usize) -> Option<Headers> {
        let room = room.min(MAX_LETTER);
        let optional = ["error-backtrace", "history", "error-chain"];
        let mut headers = self.all();
        for name in optional {
            if headers.size() <= room {
                return Some(headers);
            }
            headers.retain(|header| header.as_str().strip_prefix(PREFIX) != Some(name));
        }
        if headers.size() <= room {
            return Some(headers);
        }
        let needed = ["version", "id", "reason"].map(|name| format!("{PREFIX}{name}"));
        headers.retain(|header| needed.iter().any(|name| name == header.as_str()));
        (headers.size() <= room).then_some(headers)
    }

    fn all(&self) -> Headers {
        let mut out = Encoder(Headers::new());
        out.text("version", VERSION);
        out.text("id", &self.id);
        out.text("reason", self.reason.as_str());
        out.maybe("reason-detail", self.reason_detail.as_deref());
        if let Some(cause) = &self.cause {
            out.text("error-type", &cause.error_type);
            out.text("error-message", &cause.message);
            out.maybe("error-code", cause.code.as_deref());
            out.text("error-class", if cause.transient { "transient" } else { "permanent" });
            out.json("error-chain", chain(&cause.chain), MAX_CHAIN);
            out.bounded("error-backtrace", cause.backtrace.as_deref(), MAX_BACKTRACE);
        }
        out.text("source", &self.source);
        out.text("source-backend", &self.source_backend);
        out.text("source-group", &self.source_group);
        match &self.position {
            Position::None => {}
            Position::Sequence(sequence) => out.text("source-stream-seq", &sequence.to_string()),
            Position::Entry(id) => out.text("source-stream-id", id),
            Position::Offset { partition, offset } => {
                out.text("source-partition", &partition.to_string());
                out.text("source-offset", &offset.to_string());
            }
        }
        out.text("original-id", &self.original_id);
        out.time("original-published-at", self.original_published_at);
        out.text("attempts", &self.attempts.to_string());
        out.text("deliveries", &self.deliveries.to_string());
        out.text("delayed-retries", &self.delayed_retries.to_string());
        out.time("first-failed-at", Some(self.first_failed_at));
        out.time("last-failed-at", Some(self.last_failed_at));
        out.time("dead-lettered-at", Some(self.dead_lettered_at));
        out.json("history", self.history.clone(), MAX_HISTORY_TEXT);
        out.text("handler", &self.handler);
        out.maybe("message-type", self.message_type.as_deref());
        out.text("instance", &self.instance);
        out.text("lib-version", &self.lib_version);
        out.text("policy", &self.policy);
        out.text("redrive-count", &self.redrive_count.to_string());
        out.maybe("redrive-of", self.redrive_of.as_deref());
        out.text("payload-sha256", &self.payload_sha256);
        out.0
    }

    /// Reads the headers that [`Letter::encode`] writes, from among all headers of a dead letter.
    /// `None` where version, id or reason are missing or unknown; anything else that is missing or
    /// malformed is empty.
    #[must_use]
    pub fn decode<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Self> {
        let fields = Decoder(
            headers
                .into_iter()
                .filter_map(|(name, value)| {
                    Some((name.strip_prefix(PREFIX)?, std::str::from_utf8(value).ok()?))
                })
                .collect(),
        );
        if fields.get("version")? != VERSION {
            return None;
        }
        let epoch = SystemTime::UNIX_EPOCH;
        Some(Self {
            id: bounded(fields.get("id")?, MAX_TEXT).into(),
            reason: fields.get("reason")?.parse().ok()?,
            reason_detail: fields.owned("reason-detail"),
            cause: fields.get("error-type").map(|error_type| Cause {
                error_type: bounded(error_type, MAX_TEXT),
                message: fields.owned("error-message").unwrap_or_default(),
                code: fields.owned("error-code"),
                transient: fields.get("error-class") == Some("transient"),
                chain: fields
                    .json::<Vec<ChainItem>>("error-chain")
                    .into_iter()
                    .flatten()
                    .map(|item| item.message)
                    .collect(),
                backtrace: fields.get("error-backtrace").map(str::to_owned),
            }),
            source: fields.small("source"),
            source_backend: fields.small("source-backend"),
            source_group: fields.small("source-group"),
            position: fields.position(),
            original_id: fields.small("original-id"),
            original_published_at: fields.time("original-published-at"),
            attempts: fields.number("attempts"),
            deliveries: fields.number("deliveries"),
            delayed_retries: fields.number("delayed-retries"),
            first_failed_at: fields.time("first-failed-at").unwrap_or(epoch),
            last_failed_at: fields.time("last-failed-at").unwrap_or(epoch),
            dead_lettered_at: fields.time("dead-lettered-at").unwrap_or(epoch),
            history: fields.json("history").unwrap_or_default(),
            handler: fields.small("handler"),
            message_type: fields.get("message-type").map(SmolStr::new),
            instance: fields.small("instance"),
            lib_version: fields.small("lib-version"),
            policy: fields.small("policy"),
            redrive_count: fields.number("redrive-count"),
            redrive_of: fields.get("redrive-of").map(SmolStr::new),
            payload_sha256: fields.small("payload-sha256"),
        })
    }

    /// SHA-256 of `body`, as the field `payload_sha256` holds it.
    #[must_use]
    pub fn payload_sha256(body: &[u8]) -> SmolStr {
        hex(&Sha256::digest(body)).into()
    }
}

/// The id of a dead letter: the first 16 bytes of SHA-256 over the length-prefixed topic, group,
/// origin position, message id and redrive count, in hexadecimal.
#[must_use]
pub fn dead_letter_id(
    topic: &TopicName,
    group: &GroupName,
    origin: &str,
    id: Option<&MessageId>,
    redrives: u32,
) -> SmolStr {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(topic.as_str().as_bytes());
    part(group.as_str().as_bytes());
    part(origin.as_bytes());
    match id {
        Some(id) => id.with_str(|id| part(id.as_bytes())),
        None => part(b""),
    }
    part(redrives.to_string().as_bytes());
    hex(&hash.finalize()[..16]).into()
}

fn chain(messages: &[String]) -> Vec<ChainItem> {
    messages
        .iter()
        .take(MAX_CHAIN_ITEMS)
        .map(|message| ChainItem { message: bounded(message, MAX_TEXT) })
        .collect()
}

struct Encoder(Headers);

impl Encoder {
    fn put(&mut self, name: &str, value: String) {
        let name = HeaderName::new(format!("{PREFIX}{name}")).expect("our own names are valid");
        self.0.append(name, Bytes::from(value));
    }

    fn text(&mut self, name: &str, value: &str) {
        self.put(name, bounded(value, MAX_TEXT));
    }

    fn maybe(&mut self, name: &str, value: Option<&str>) {
        self.bounded(name, value, MAX_TEXT);
    }

    fn bounded(&mut self, name: &str, value: Option<&str>, max: usize) {
        if let Some(value) = value {
            self.put(name, bounded(value, max));
        }
    }

    fn time(&mut self, name: &str, value: Option<SystemTime>) {
        if let Some(value) = value {
            self.put(name, rfc3339(value));
        }
    }

    /// A JSON list of at most `max` bytes: the first items go first.
    fn json<T: Serialize>(&mut self, name: &str, mut items: Vec<T>, max: usize) {
        loop {
            let text = serde_json::to_string(&items).expect("text and numbers have a JSON form");
            if text.len() <= max || items.is_empty() {
                return self.put(name, text);
            }
            items.remove(0);
        }
    }
}

struct Decoder<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Decoder<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn small(&self, name: &str) -> SmolStr {
        bounded(self.get(name).unwrap_or_default(), MAX_TEXT).into()
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| bounded(value, MAX_TEXT))
    }

    fn number(&self, name: &str) -> u32 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    fn time(&self, name: &str) -> Option<SystemTime> {
        self.get(name).and_then(parse_rfc3339)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Option<T> {
        self.get(name).and_then(|value| serde_json::from_str(value).ok())
    }

    fn position(&self) -> Position {
        if let Some(sequence) = self.get("source-stream-seq").and_then(|text| text.parse().ok()) {
            return Position::Sequence(sequence);
        }
        if let Some(id) = self.get("source-stream-id") {
            return Position::Entry(SmolStr::new(id));
        }
        let partition = self.get("source-partition").and_then(|text| text.parse().ok());
        let offset = self.get("source-offset").and_then(|text| text.parse().ok());
        match (partition, offset) {
            (Some(partition), Some(offset)) => Position::Offset { partition, offset },
            _ => Position::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn letter() -> Letter {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let entry = HistoryEntry {
            n: 1,
            at: Some(at),
            delay_ms: Some(100),
            error_type: "E".into(),
            instance: "i-1".into(),
        };
        Letter {
            id: "0123".into(),
            reason: Reason::AttemptsExhausted,
            reason_detail: Some("two\nlines".into()),
            cause: Some(Cause {
                error_type: "E".into(),
                message: "card declined".into(),
                code: Some("declined".into()),
                transient: true,
                chain: vec!["socket closed".into()],
                backtrace: Some("at main".into()),
            }),
            source: "orders".into(),
            source_backend: "memory".into(),
            source_group: "billing".into(),
            position: Position::Sequence(7),
            original_id: "id-1".into(),
            original_published_at: Some(at),
            attempts: 6,
            deliveries: 8,
            delayed_retries: 3,
            first_failed_at: at,
            last_failed_at: at,
            dead_lettered_at: at,
            history: vec![entry; 10],
            handler: "bill".into(),
            message_type: None,
            instance: "i-1".into(),
            lib_version: "0.1.0".into(),
            policy: "abcd".into(),
            redrive_count: 0,
            redrive_of: None,
            payload_sha256: Letter::payload_sha256(b"{}"),
        }
    }

    fn decode(headers: &Headers) -> Option<Letter> {
        Letter::decode(headers.iter().map(|(name, value)| (name.as_str(), &value[..])))
    }

    #[test]
    fn a_letter_survives_its_codec_with_control_characters_escaped() {
        let mut wanted = letter();
        let read = decode(&wanted.encode(usize::MAX).unwrap()).unwrap();
        wanted.reason_detail = Some("two\\nlines".into());
        assert_eq!(read, wanted);
    }

    #[test]
    fn it_is_dropped_in_the_stated_order_until_it_fits() {
        let mut letter = letter();
        let cause = letter.cause.as_mut().unwrap();
        cause.backtrace = Some("b".repeat(100_000));
        cause.message = "m".repeat(1_000_000);
        cause.chain = vec!["c".repeat(5_000); 20];
        let full = letter.encode(usize::MAX).unwrap();
        assert!(full.size() <= MAX_LETTER, "{}", full.size());
        let has = |headers: &Headers, name: &str| headers.get(&format!("{PREFIX}{name}")).is_some();
        let sizes: Vec<_> = (100..full.size()).rev().step_by(50).collect();
        for room in sizes {
            let headers = letter.encode(room).unwrap();
            assert!(headers.size() <= room);
            assert!(!has(&headers, "error-backtrace") || has(&headers, "history"));
            assert!(!has(&headers, "history") || has(&headers, "error-chain"));
            assert!(!has(&headers, "error-chain") || has(&headers, "source"));
            assert_eq!(decode(&headers).unwrap().id, "0123");
        }
        assert!(letter.encode(50).is_none());
    }

    #[test]
    fn the_id_tells_every_part_from_its_neighbour() {
        let topic = |name| TopicName::new(name).unwrap();
        let group = |name| GroupName::new(name).unwrap();
        let id = MessageId::new("m").unwrap();
        let base = dead_letter_id(&topic("a"), &group("b"), "1", Some(&id), 0);
        assert_eq!(base.len(), 32);
        assert_eq!(base, dead_letter_id(&topic("a"), &group("b"), "1", Some(&id), 0));
        for other in [
            dead_letter_id(&topic("ab"), &group("b"), "1", Some(&id), 0),
            dead_letter_id(&topic("a"), &group("c"), "1", Some(&id), 0),
            dead_letter_id(&topic("a"), &group("b"), "2", Some(&id), 0),
            dead_letter_id(&topic("a"), &group("b"), "1", None, 0),
            dead_letter_id(&topic("a"), &group("b"), "1", Some(&id), 1),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn foreign_or_damaged_headers_are_no_letter() {
        assert_eq!(Letter::decode([]), None);
        let headers = [
            ("longshore-dl-version", &b"1"[..]),
            ("longshore-dl-id", b"x"),
            ("longshore-dl-reason", b"because"),
        ];
        assert_eq!(Letter::decode(headers), None);
        let headers = [
            ("longshore-dl-version", &b"1"[..]),
            ("longshore-dl-id", b"x"),
            ("longshore-dl-reason", b"permanent"),
            ("longshore-dl-attempts", b"-5"),
            ("longshore-dl-history", b"[[["),
        ];
        assert_eq!(Letter::decode(headers).unwrap().attempts, 0);
    }
}
