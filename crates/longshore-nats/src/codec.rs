//! Between the contract's messages and NATS headers.
//!
//! A NATS header is text on one line, and the client trims it and keeps no order among names. So
//! what is no such text is written as base64; and the order of a user's headers, where there is one
//! to keep, stands in a header of its own, which also marks the encoded ones.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::header::{HeaderName as NativeName, HeaderValue, NATS_MESSAGE_ID};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longshore_core::{
    AckToken, Error, ErrorKind, HeaderName, Headers, Letter, Message, MessageId, Outcome, Position,
    Received, Record, Result, SmolStr, TopicName,
};
use longshore_driver::hygiene;

use crate::error::error;

/// The token of what is only looked at: no consumer has epoch 0, so it settles nothing.
pub(crate) const INERT: AckToken = AckToken { epoch: 0, slot: 0, seq: 0 };

pub(crate) const ID: &str = "longshore-id";
const KEY: &str = "longshore-key";
const TYPE: &str = "longshore-type";
const ORDER: &str = "longshore-order";
const CONTENT_TYPE: &str = "Content-Type";
/// What starts the names that the server itself acts on.
pub(crate) const SERVER_PREFIX: &str = "nats-";
/// What starts a key that is not text.
const ENCODED: &str = "base64:";
/// Behind a name in the order: this value is base64. No name has it.
const ENCODED_MARK: char = ':';
/// More names than this are beyond the limit of headers anyway.
const MAX_ORDER: usize = 4096;

fn refuse(text: String) -> Error {
    error(ErrorKind::InvalidMessage, text).with_outcome(Outcome::NotSent)
}

/// Whether the client gives `text` back as it was.
fn survives(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0']) && text.trim() == text
}

fn value(what: &str, text: &str) -> Result<HeaderValue> {
    if !survives(text) {
        return Err(refuse(format!(
            "{what} cannot stand in a NATS header: it has a line end, a NUL, or white space at an \
             end"
        )));
    }
    HeaderValue::from_str(text).map_err(|native| {
        refuse(format!("{what} cannot stand in a NATS header")).with_source(native)
    })
}

fn name(name: &str) -> Result<NativeName> {
    NativeName::from_str(name)
        .map_err(|native| refuse(format!("header name `{name}` is refused")).with_source(native))
}

/// Sets a header of ours on a copy.
pub(crate) fn set(headers: &mut HeaderMap, header: &str, text: &str) -> Result<()> {
    headers.insert(name(header)?, value(header, text)?);
    Ok(())
}

/// The headers of a message of our own publisher, with `id` for the broker's window too.
///
/// # Errors
/// `InvalidMessage` for what NATS cannot carry.
pub(crate) fn outgoing(message: &Message, id: &MessageId) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let text = id.with_str(|id| value("the message id", id))?;
    headers.insert(NATS_MESSAGE_ID, text.clone());
    headers.insert(NativeName::from_static(ID), text);
    if let Some(key) = &message.key {
        let plain = std::str::from_utf8(key).ok();
        let plain =
            plain.filter(|key| survives(key) && !key.is_empty() && !key.starts_with(ENCODED));
        let text = match plain {
            Some(plain) => value("the key", plain)?,
            None => value("the key", &format!("{ENCODED}{}", STANDARD.encode(key)))?,
        };
        headers.insert(NativeName::from_static(KEY), text);
    }
    if let Some(kind) = &message.message_type {
        headers.insert(NativeName::from_static(TYPE), value("the message type", kind)?);
    }
    if let Some(kind) = &message.content_type {
        headers.insert(NativeName::from_static(CONTENT_TYPE), value("the content type", kind)?);
    }
    let mut order = String::new();
    let mut first: Option<&HeaderName> = None;
    let mut mixed = false;
    for (header, bytes) in message.headers.iter().filter(|(name, _)| !name.is_reserved()) {
        let header_name = header.as_str();
        if belongs_to_server(header_name) || header_name == CONTENT_TYPE {
            return Err(refuse(format!("header `{header_name}` has a meaning of its own on NATS")));
        }
        mixed |= first.is_some_and(|first| first != header);
        first.get_or_insert(header);
        if !order.is_empty() {
            order.push(' ');
        }
        order.push_str(header_name);
        if let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| survives(text)) {
            headers.append(name(header_name)?, value(header_name, text)?);
        } else {
            headers.append(name(header_name)?, value(header_name, &STANDARD.encode(bytes))?);
            order.push(ENCODED_MARK);
            mixed = true;
        }
    }
    if mixed {
        headers.insert(NativeName::from_static(ORDER), value("the order of headers", &order)?);
    }
    Ok(headers)
}

/// The headers of a foreign message of which some are no text: these become base64, marked in the
/// order header as our own publisher marks them. A control header that is no text is left out, as
/// it would be dropped later.
pub(crate) fn encoded(found: Vec<(NativeName, Result<String, Vec<u8>>)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut order: Vec<String> = Vec::new();
    for (name, text) in found {
        let plain: &str = name.as_ref();
        let control = belongs_to_server(plain) || plain == CONTENT_TYPE || is_ours(plain);
        let (text, mark) = match text {
            Ok(_) if plain == ORDER => continue,
            Ok(text) => (text, ""),
            Err(_) if control => continue,
            Err(bytes) => (STANDARD.encode(bytes), ":"),
        };
        if !control {
            order.push(format!("{plain}{mark}"));
        }
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(name, value);
        }
    }
    if let Ok(order) = HeaderValue::from_str(&order.join(" ")) {
        headers.insert(NativeName::from_static(ORDER), order);
    }
    headers
}

fn is_ours(name: &str) -> bool {
    HeaderName::new(name).is_ok_and(|name| name.is_reserved())
}

pub(crate) fn belongs_to_server(name: &str) -> bool {
    let prefix = SERVER_PREFIX.len();
    name.get(..prefix).is_some_and(|start| start.eq_ignore_ascii_case(SERVER_PREFIX))
}

/// A received message, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) id: Option<MessageId>,
    pub(crate) key: Option<Bytes>,
    pub(crate) message_type: Option<SmolStr>,
    pub(crate) content_type: Option<SmolStr>,
    pub(crate) headers: Headers,
    pub(crate) record: Option<Record>,
    pub(crate) letter: Option<Letter>,
}

/// Takes the headers of any message apart: nothing in them is fatal.
pub(crate) fn incoming(headers: Option<&HeaderMap>) -> Parts {
    let mut parts = Parts::default();
    let Some(headers) = headers else { return parts };
    let mut order = None;
    let mut rest: Vec<(&str, Bytes)> = Vec::new();
    for (header, values) in headers.iter() {
        let header: &str = header.as_ref();
        // Of two nobody can say which is the real one.
        let single = match &values[..] {
            [one] => Some(one.as_str()),
            _ => None,
        };
        match header {
            ID => parts.id = single.and_then(|text| MessageId::new(text).ok()),
            KEY => parts.key = single.map(decode_key),
            TYPE => parts.message_type = single.and_then(printable),
            CONTENT_TYPE => parts.content_type = values.first().and_then(|v| printable(v.as_str())),
            ORDER => order = single,
            "Nats-Msg-Id" => {}
            _ if belongs_to_server(header) => {}
            _ => rest.extend(
                values
                    .iter()
                    .map(|value| (header, Bytes::copy_from_slice(value.as_str().as_bytes()))),
            ),
        }
    }
    if rest.is_empty() {
        return parts;
    }
    arrange(&mut rest, order);
    let split = hygiene::split(rest);
    parts.headers = split.headers;
    parts.record = split.record;
    parts.letter = split.letter;
    parts
}

/// The order in which a user set the headers; by name where nobody says. Stable, so that repeats of
/// one name keep theirs.
fn arrange(headers: &mut Vec<(&str, Bytes)>, order: Option<&str>) {
    headers.sort_by_key(|(name, _)| *name);
    let Some(order) = order else { return };
    let mut left: Vec<_> = std::mem::take(headers).into_iter().map(Some).collect();
    for wanted in order.split(' ').take(MAX_ORDER) {
        let bare = wanted.trim_end_matches(ENCODED_MARK);
        let found = left.iter_mut().find(|slot| slot.as_ref().is_some_and(|(n, _)| *n == bare));
        headers.extend(found.and_then(Option::take).map(|(name, value)| {
            let decoded = (bare.len() < wanted.len()).then(|| STANDARD.decode(&value).ok());
            (name, decoded.flatten().map_or(value, Bytes::from))
        }));
    }
    headers.extend(left.into_iter().flatten());
}

fn decode_key(text: &str) -> Bytes {
    let decoded = text.strip_prefix(ENCODED).and_then(|encoded| STANDARD.decode(encoded).ok());
    decoded.map_or_else(|| Bytes::copy_from_slice(text.as_bytes()), Bytes::from)
}

fn printable(text: &str) -> Option<SmolStr> {
    text.bytes().all(|b| (b' '..=b'~').contains(&b)).then(|| SmolStr::new(text))
}

/// Where a message stands, and how often the server handed it over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) delivered: u32,
    pub(crate) published: SystemTime,
}

/// The message's id. A foreign message without one is known by its position; digits are always a
/// valid id.
pub(crate) fn identity(parts: &Parts, place: Place) -> Option<MessageId> {
    parts.id.clone().or_else(|| MessageId::new(place.sequence.to_string()).ok())
}

/// Puts a delivery together; `record` is the one that counts.
pub(crate) fn received(
    topic: &TopicName,
    body: Bytes,
    parts: Parts,
    place: Place,
    id: Option<MessageId>,
    record: Option<Record>,
    lease: Option<Duration>,
) -> Received {
    let before = record.as_ref().map_or(0, |record| record.deliveries);
    Received {
        token: INERT,
        topic: topic.clone(),
        body,
        key: parts.key,
        id,
        message_type: parts.message_type,
        content_type: parts.content_type,
        headers: parts.headers,
        published_at: Some(place.published),
        position: Position::Sequence(place.sequence),
        deliveries: before.saturating_add(place.delivered),
        lease,
        record: record.map(Arc::new),
        letter: parts.letter.map(Arc::new),
    }
}

/// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.…`, with or without domain and account
/// before, and with whatever later servers put behind.
pub(crate) fn place(reply: &str) -> Option<Place> {
    let tokens = reply.strip_prefix("$JS.ACK.")?.as_bytes().split(|byte| *byte == b'.');
    let skip = if reply.bytes().filter(|b| *b == b'.').count() >= 10 { 4 } else { 2 };
    let mut number = tokens.skip(skip).map(|token| std::str::from_utf8(token).ok()?.parse().ok());
    let delivered = number.next()??;
    let sequence = number.next()??;
    let _of_consumer = number.next()??;
    let nanos = number.next()??;
    Some(Place {
        sequence,
        delivered: u32::try_from(delivered).unwrap_or(u32::MAX),
        published: time(nanos.into()),
    })
}

/// A server's time, in nanoseconds since 1970.
pub(crate) fn time(nanos: i128) -> SystemTime {
    let nanos = u64::try_from(nanos).unwrap_or_default();
    let since = Duration::from_nanos(nanos);
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> MessageId {
        MessageId::new("id-1").unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut message = Message::new("x").key("k").message_type("t").content_type("c");
        for (name, value) in
            [("b", "1"), ("a", "2"), ("b", ""), ("ü".len().to_string().as_str(), "ü")]
        {
            message = message.header(HeaderName::new(name).unwrap(), value.to_owned());
        }
        let parts = incoming(Some(&outgoing(&message, &id()).unwrap()));
        assert_eq!(parts.headers, message.headers);
        assert_eq!(parts.id, Some(id()));
        assert_eq!(parts.key, message.key);
        assert_eq!(
            (parts.message_type, parts.content_type),
            (message.message_type, message.content_type)
        );
    }

    #[test]
    fn what_nats_cannot_carry_is_a_typed_refusal() {
        let refused = |message: Message| {
            let error = outgoing(&message, &id()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidMessage);
            assert_eq!(error.outcome(), Some(Outcome::NotSent));
        };
        refused(Message::new("x").header(HeaderName::from_static("Nats-Rollup"), "all"));
        refused(Message::new("x").message_type(" a"));
    }

    #[test]
    fn places_are_read_in_every_length() {
        let short = place("$JS.ACK.orders.billing.2.7.9.1700000000000000000.0").unwrap();
        let long = place("$JS.ACK._.hash.orders.billing.2.7.9.1700000000000000000.0.x").unwrap();
        let eleven = place("$JS.ACK._.hash.orders.billing.2.7.9.1700000000000000000.0").unwrap();
        for place in [short, long, eleven] {
            assert_eq!((place.delivered, place.sequence), (2, 7));
        }
        for bad in ["", "$JS.ACK.", "$JS.ACK.a.b.c.d.e.f.g", "_INBOX.x"] {
            assert!(place(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_key_survives(key: Vec<u8>, prefixed: bool) {
            let key = if prefixed { [ENCODED.as_bytes(), &key].concat() } else { key };
            let message = Message::new("x").key(key.clone());
            let parts = incoming(Some(&outgoing(&message, &id()).unwrap()));
            prop_assert_eq!(parts.key, Some(Bytes::from(key)));
        }

        #[test]
        fn any_headers_survive(
            list in proptest::collection::vec(("[a-c]{1,2}", proptest::collection::vec(0u8.., 0..6)), 0..8)
        ) {
            let mut message = Message::new("x");
            for (name, value) in list {
                message = message.header(HeaderName::new(name).unwrap(), value);
            }
            let headers = outgoing(&message, &id()).unwrap();
            prop_assert_eq!(incoming(Some(&headers)).headers, message.headers);
        }

        #[test]
        fn no_header_of_a_foreign_program_panics(
            list in proptest::collection::vec(("(longshore-|Nats-)?(id|key|order|retry|dl-id|x)", "[^\r\n]{0,20}"), 0..8)
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &list {
                headers.append(NativeName::from_str(name).unwrap(), HeaderValue::from_str(value).unwrap());
            }
            let _ = incoming(Some(&headers));
        }

        #[test]
        fn no_reply_panics(reply in "\\$JS.ACK.[a-z0-9._]{0,60}") {
            let _ = place(&reply);
        }
    }
}
