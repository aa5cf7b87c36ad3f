//! Between the contract's messages and what is stored.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use longshore_core::{
    AckToken, Letter, Message, MessageId, Position, RETRY_HEADER, Received, Record, TopicName,
};
use longshore_driver::hygiene;
use tokio::time::Instant;

use crate::letters::Dead;
use crate::store::{Entry, Item};

/// The token of what is only looked at: no consumer has epoch 0, so it settles nothing.
pub(crate) const INERT: AckToken = AckToken { epoch: 0, slot: 0, seq: 0 };

/// A message of a longshore publisher.
pub(crate) fn entry(
    mut message: Message,
    id: MessageId,
    seq: u64,
    published: Instant,
    published_at: SystemTime,
) -> Entry {
    hygiene::strip_reserved(&mut message.headers);
    Entry {
        seq,
        published,
        published_at,
        body: message.body,
        key: message.key,
        id: Some(id),
        message_type: message.message_type,
        content_type: message.content_type,
        headers: message.headers,
        record: None,
    }
}

/// A foreign program's message. Its control headers count as they would on a broker where records
/// travel in headers: a readable record is believed (and clamped by the runtime), all else is
/// dropped.
pub(crate) fn foreign(
    body: Bytes,
    headers: Vec<(String, Bytes)>,
    seq: u64,
    published: Instant,
    published_at: SystemTime,
) -> Entry {
    let raw = headers.iter().find(|(name, _)| name == RETRY_HEADER).map(|(_, value)| value.clone());
    let split = hygiene::split(headers);
    // Kept as it came, and decoded at each delivery as on any broker.
    let record =
        split.record.and(raw).and_then(|raw| std::str::from_utf8(&raw).ok().map(Arc::from));
    Entry {
        seq,
        published,
        published_at,
        body,
        key: None,
        id: None,
        message_type: None,
        content_type: None,
        headers: split.headers,
        record,
    }
}

/// A delivery of a message, or a look at one.
pub(crate) fn message(topic: &TopicName, item: &Item, token: AckToken) -> Received {
    let record = item.record.as_ref().and_then(|text| Record::decode(text.as_bytes()));
    let before = record.as_ref().map_or(0, |record| record.deliveries);
    let mut received = bare(topic, &item.entry, token);
    received.position = Position::Sequence(item.seq());
    received.deliveries = before.saturating_add(item.count);
    received.record = record.map(Arc::new);
    received
}

/// A delivery of a dead letter, or a look at one.
pub(crate) fn letter(topic: &TopicName, dead: &Dead, token: AckToken) -> Received {
    let headers = dead.letter.iter().map(|(name, value)| (name.as_str(), &value[..]));
    let mut received = bare(topic, &dead.entry, token);
    received.position = Position::Sequence(dead.number);
    received.deliveries = dead.count;
    received.letter = Letter::decode(headers).map(Arc::new);
    received
}

fn bare(topic: &TopicName, entry: &Entry, token: AckToken) -> Received {
    Received {
        token,
        topic: topic.clone(),
        body: entry.body.clone(),
        key: entry.key.clone(),
        // A foreign message without an id is known by its position; digits are always a valid id.
        id: entry.id.clone().or_else(|| MessageId::new(entry.seq.to_string()).ok()),
        message_type: entry.message_type.clone(),
        content_type: entry.content_type.clone(),
        headers: entry.headers.clone(),
        published_at: Some(entry.published_at),
        position: Position::None,
        deliveries: 0,
        lease: None,
        record: None,
        letter: None,
    }
}
