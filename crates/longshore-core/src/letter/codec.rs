//! A letter as headers, and back.

use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Cause, Letter};
use crate::text::{bounded, parse_rfc3339, rfc3339};
use crate::{HeaderName, Headers, Position};

/// What starts the name of every header of a dead letter.
pub(super) const PREFIX: &str = "longshore-dl-";
const VERSION: &str = "1";
/// The most bytes of all of a letter's headers.
pub const MAX_LETTER: usize = 16 * 1024;
const MAX_TEXT: usize = 1024;
const MAX_CHAIN: usize = 4 * 1024;
const MAX_CHAIN_ITEMS: usize = 10;
const MAX_BACKTRACE: usize = 8 * 1024;
const MAX_HISTORY_TEXT: usize = 2 * 1024;

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
