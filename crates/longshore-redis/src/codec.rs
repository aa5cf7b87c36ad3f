//! Between the contract's messages and stream entries.
//!
//! An entry of ours has the fields `body`, `id`, and where there are such `key`, `type`, `ct` and
//! `h`, which holds the headers, packed. Any other field of an entry is a header.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use longshore_core::{
    AckToken, Headers, Letter, Message, MessageId, Position, RETRY_HEADER, Received, Record,
    SmolStr, TopicName,
};
use longshore_driver::hygiene;

use crate::names::{EntryId, Place};
use crate::packed;
use crate::reply::Fields;

/// The token of what is only looked at: no consumer has epoch 0, so it settles nothing.
pub(crate) const INERT: AckToken = AckToken { epoch: 0, slot: 0, seq: 0 };

const BODY: &str = "body";
pub(crate) const ID: &str = "id";
const KEY: &str = "key";
const TYPE: &str = "type";
const CONTENT_TYPE: &str = "ct";
const HEADERS: &str = "h";
const LETTER_PREFIX: &[u8] = b"longshore-dl-";
/// Why a handler never sees a message whose entry somebody removed.
pub(crate) const TRIMMED: &str = "payload-trimmed";

fn is_ours(name: &str) -> bool {
    [BODY, ID, KEY, TYPE, CONTENT_TYPE, HEADERS].contains(&name)
}

/// The fields of a message of our own publisher.
pub(crate) fn outgoing(message: &Message, id: &MessageId, plain: bool) -> Vec<(Bytes, Bytes)> {
    let mut out: Vec<(Bytes, Bytes)> = Vec::with_capacity(4);
    let mut put = |name: &'static str, value: Bytes| out.push((name.into(), value));
    id.with_str(|id| put(ID, Bytes::copy_from_slice(id.as_bytes())));
    if let Some(key) = &message.key {
        put(KEY, key.clone());
    }
    if let Some(kind) = &message.message_type {
        put(TYPE, Bytes::copy_from_slice(kind.as_bytes()));
    }
    if let Some(kind) = &message.content_type {
        put(CONTENT_TYPE, Bytes::copy_from_slice(kind.as_bytes()));
    }
    // A header that is called like a field of ours would be taken for it.
    if plain && packed::of(&message.headers).all(|(name, _)| !is_ours(name)) {
        let own = packed::of(&message.headers);
        let own: Vec<_> = own
            .map(|(name, value)| {
                (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value))
            })
            .collect();
        out.extend(own);
    } else if let Some(packed) = packed::pack(packed::of(&message.headers)) {
        put(HEADERS, packed);
    }
    out.push((BODY.into(), message.body.clone()));
    out
}

/// A received entry, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) body: Bytes,
    pub(crate) id: Option<MessageId>,
    pub(crate) key: Option<Bytes>,
    pub(crate) message_type: Option<SmolStr>,
    pub(crate) content_type: Option<SmolStr>,
    pub(crate) headers: Headers,
    pub(crate) record: Option<Record>,
    pub(crate) letter: Option<Letter>,
}

fn printable(bytes: &[u8]) -> Option<SmolStr> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.bytes().all(|b| (b' '..=b'~').contains(&b)).then(|| SmolStr::new(text))
}

/// Takes the fields of any entry apart: nothing in them is fatal. Of a name that repeats, the first
/// is ours and the others are headers.
pub(crate) fn incoming(fields: &[(Bytes, Bytes)]) -> Parts {
    let mut parts = Parts::default();
    let mut body = None;
    let mut rest: Vec<(Bytes, Bytes)> = Vec::new();
    for (name, value) in fields {
        match &name[..] {
            b"body" if body.is_none() => body = Some(value.clone()),
            b"id" if parts.id.is_none() => {
                let id = std::str::from_utf8(value).ok().and_then(|id| MessageId::new(id).ok());
                match id {
                    Some(id) => parts.id = Some(id),
                    None => rest.push((name.clone(), value.clone())),
                }
            }
            b"key" if parts.key.is_none() => parts.key = Some(value.clone()),
            b"type" if parts.message_type.is_none() => parts.message_type = printable(value),
            b"ct" if parts.content_type.is_none() => parts.content_type = printable(value),
            b"h" => match packed::unpack(value) {
                Some(unpacked) => rest.extend(unpacked),
                None => rest.push((name.clone(), value.clone())),
            },
            _ => rest.push((name.clone(), value.clone())),
        }
    }
    parts.body = body.unwrap_or_default();
    if rest.is_empty() {
        return parts;
    }
    let split = hygiene::split(rest);
    parts.headers = split.headers;
    parts.record = split.record;
    parts.letter = split.letter;
    parts
}

/// The id as published; a foreign message is known by its position.
pub(crate) fn identity(parts: &Parts, place: Place) -> Option<MessageId> {
    parts.id.clone().or_else(|| MessageId::new(place.to_string()).ok())
}

pub(crate) fn position(place: Place) -> Position {
    Position::Entry(place.member())
}

pub(crate) fn published(id: EntryId) -> SystemTime {
    let since = Duration::from_millis(id.ms);
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Puts a delivery together; `record` is the one that counts, `count` the broker's own for this
/// copy.
pub(crate) fn received(
    topic: &TopicName,
    parts: Parts,
    place: Place,
    count: u32,
    record: Option<Record>,
    lease: Option<Duration>,
) -> Received {
    let before = record.as_ref().map_or(0, |record| record.deliveries);
    let id = identity(&parts, place);
    // A record that travelled knows it from before: a copy's own time is that of the copy.
    let known = record.as_ref().and_then(|record| record.published_at);
    let known = known.or_else(|| parts.letter.as_ref()?.original_published_at);
    Received {
        token: INERT,
        topic: topic.clone(),
        body: parts.body,
        key: parts.key,
        id: record
            .as_ref()
            .and_then(|record| record.id.clone())
            .filter(|_| parts.id.is_none())
            .or(id),
        message_type: parts.message_type,
        content_type: parts.content_type,
        headers: parts.headers,
        published_at: Some(known.unwrap_or_else(|| published(place.id))),
        position: position(place),
        deliveries: before.saturating_add(count),
        lease,
        record: record.map(Arc::new),
        letter: parts.letter.map(Arc::new),
    }
}

/// What a copy starts from: every field but what we write anew, and the id, which a foreign message
/// would lose with its position.
pub(crate) fn base(fields: &[(Bytes, Bytes)], id: Option<&MessageId>) -> Fields {
    let ours = |name: &[u8]| name == RETRY_HEADER.as_bytes() || name.starts_with(LETTER_PREFIX);
    let mut out: Fields = fields.iter().filter(|(name, _)| !ours(name)).cloned().collect();
    let named = out.iter().any(|(name, _)| &name[..] == ID.as_bytes());
    if let Some(id) = id.filter(|_| !named) {
        id.with_str(|id| out.push((ID.into(), Bytes::copy_from_slice(id.as_bytes()))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::HeaderName;
    use proptest::prelude::*;

    fn id() -> MessageId {
        MessageId::new("id-1").unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_read_packed_and_plain() {
        let mut message = Message::new("x").key("k\u{0}").message_type("t").content_type("c");
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "")] {
            message = message.header(HeaderName::new(name).unwrap(), value.to_owned());
        }
        for plain in [false, true] {
            let fields = outgoing(&message, &id(), plain);
            assert_eq!(fields.iter().any(|(name, _)| name == "h"), !plain);
            let parts = incoming(&fields);
            assert_eq!(parts.headers, message.headers);
            assert_eq!((parts.id, parts.key), (Some(id()), message.key.clone()));
            assert_eq!(parts.body, message.body);
            assert_eq!(parts.message_type, message.message_type);
            assert_eq!(parts.content_type, message.content_type);
        }
    }

    #[test]
    fn a_header_that_is_called_like_a_field_is_packed_all_the_same() {
        let message = Message::new("x").header(HeaderName::from_static("body"), "y");
        let parts = incoming(&outgoing(&message, &id(), true));
        assert_eq!((parts.body, parts.headers), (message.body, message.headers));
    }

    #[test]
    fn an_entry_by_hand_is_a_message() {
        let field = |name: &'static str, value: &'static str| (name.into(), value.into());
        let parts = incoming(&[field("user", "7"), field("h", "mine"), field("body", "x")]);
        assert_eq!((parts.body, parts.headers.len()), ("x".into(), 2));
        let place: Place = "5-1".parse().unwrap();
        let none = incoming(&[field("user", "7")]);
        assert!(none.body.is_empty());
        assert_eq!(identity(&none, place).unwrap().to_string(), "5-1");
        let copy = base(&[field("user", "7"), field(RETRY_HEADER, "{}")], Some(&id()));
        assert_eq!(copy, [field("user", "7"), field("id", "id-1")]);
    }

    proptest! {
        #[test]
        fn no_entry_of_a_foreign_program_panics(
            list in proptest::collection::vec(
                ("(body|id|key|type|ct|h|longshore-retry|longshore-dl-id|x)", any::<Vec<u8>>()), 0..9)
        ) {
            let fields: Fields =
                list.into_iter().map(|(n, v)| (Bytes::from(n), Bytes::from(v))).collect();
            let _ = incoming(&fields);
        }
    }
}
