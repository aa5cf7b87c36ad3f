//! Between the contract's messages and the protocol's properties.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use longshore_core::{
    Error, ErrorKind, Headers, Letter, Message, MessageId, Outcome, Record, Result, SmolStr,
};
use longshore_driver::hygiene;

use crate::error::error;
use crate::headers::{self, value};

/// Written to disk, also where a queue could keep it in memory.
pub(crate) const PERSISTENT: u8 = 2;
const KEY: &str = "longshore-key";
/// Of an id of 256 bytes, the one length that the property cannot hold.
const ID: &str = "longshore-id";

fn refuse(text: String) -> Error {
    error(ErrorKind::InvalidMessage, text).with_outcome(Outcome::NotSent)
}

fn short(what: &str, text: &str) -> Result<ShortString> {
    ShortString::try_new(text)
        .map_err(|_| refuse(format!("a {what} of {} bytes exceeds the limit of 255", text.len())))
}

/// The properties and the body of a message of our own publisher, published `now`.
///
/// # Errors
/// `InvalidMessage` for what the protocol cannot carry.
pub(crate) fn outgoing(
    message: &Message,
    id: &MessageId,
    now: SystemTime,
) -> Result<(BasicProperties, Bytes)> {
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let mut table = BTreeMap::new();
    properties = match id.with_str(|id| ShortString::try_new(id)) {
        Ok(id) => properties.with_message_id(id),
        Err(_) => {
            table.insert(ID.into(), id.with_str(|id| value(id.as_bytes())));
            properties
        }
    };
    if let Ok(since) = now.duration_since(UNIX_EPOCH) {
        properties = properties.with_timestamp(since.as_secs());
    }
    if let Some(kind) = &message.message_type {
        properties = properties.with_type(short("message type", kind)?);
    }
    if let Some(kind) = &message.content_type {
        properties = properties.with_content_type(short("content type", kind)?);
    }
    if let Some(key) = &message.key {
        table.insert(KEY.into(), value(key));
    }
    let table = headers::write(&message.headers, table)?;
    if !table.is_empty() {
        properties = properties.with_headers(FieldTable::from(table));
    }
    Ok((properties, message.body.clone()))
}

/// A received message, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) id: Option<MessageId>,
    pub(crate) key: Option<Bytes>,
    pub(crate) message_type: Option<SmolStr>,
    pub(crate) content_type: Option<SmolStr>,
    pub(crate) headers: Headers,
    pub(crate) published_at: Option<SystemTime>,
    pub(crate) record: Option<Record>,
    pub(crate) letter: Option<Letter>,
}

/// Takes the properties of any message apart: nothing in them is fatal.
pub(crate) fn incoming(properties: &BasicProperties) -> Parts {
    let mut parts = Parts {
        id: properties.message_id().as_ref().and_then(|id| MessageId::new(id.as_str()).ok()),
        message_type: properties.kind().as_ref().and_then(|kind| printable(kind.as_str())),
        content_type: properties.content_type().as_ref().and_then(|kind| printable(kind.as_str())),
        published_at: properties
            .timestamp()
            .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))),
        ..Parts::default()
    };
    let Some(table) = properties.headers() else { return parts };
    let mut rest = headers::read(table);
    rest.retain(|(name, bytes)| match *name {
        KEY => {
            parts.key.get_or_insert_with(|| bytes.clone());
            false
        }
        ID => {
            let text = std::str::from_utf8(bytes).ok();
            parts.id = parts.id.take().or_else(|| text.and_then(|id| MessageId::new(id).ok()));
            false
        }
        _ => true,
    });
    let split = hygiene::split(rest);
    (parts.headers, parts.record, parts.letter) = (split.headers, split.record, split.letter);
    parts
}

fn printable(text: &str) -> Option<SmolStr> {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte)).then(|| SmolStr::new(text))
}

/// The properties of a copy: all of the original's, byte for byte, but for what the server would act
/// on again. `set` replaces control headers by name, or removes them; no others of ours are touched.
///
/// Left out are the server's own headers, the time to live, which was the original's, and the name
/// of the user, which the server compares with the login of whoever publishes.
pub(crate) fn copied(
    original: &BasicProperties,
    set: impl IntoIterator<Item = (&'static str, Option<AMQPValue>)>,
) -> BasicProperties {
    let table = original.headers().as_ref();
    let mut table: BTreeMap<ShortString, AMQPValue> = table
        .into_iter()
        .flatten()
        .filter(|(name, _)| !headers::is_servers(name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in set {
        match value {
            Some(value) => table.insert(name.into(), value),
            None => table.remove(name),
        };
    }
    let mut copy = BasicProperties::default().with_delivery_mode(PERSISTENT);
    macro_rules! keep {
        ($($get:ident $with:ident)*) => {
            $(if let Some(value) = original.$get() {
                copy = copy.$with(value.clone());
            })*
        };
    }
    keep! {
        content_type with_content_type
        content_encoding with_content_encoding
        priority with_priority
        correlation_id with_correlation_id
        reply_to with_reply_to
        message_id with_message_id
        timestamp with_timestamp
        kind with_type
        app_id with_app_id
        cluster_id with_cluster_id
    }
    if table.is_empty() { copy } else { copy.with_headers(FieldTable::from(table)) }
}

/// At least the bytes that these properties take on the wire: they must fit into one frame.
pub(crate) fn size(properties: &BasicProperties) -> usize {
    /// Class, weight, size of the body, flags.
    const FIXED: usize = 2 + 2 + 8 + 2;
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let texts = texts.into_iter().flatten().map(|text| 1 + text.as_str().len()).sum::<usize>();
    let numbers = 1 + 1 + 8;
    FIXED + texts + numbers + properties.headers().as_ref().map_or(0, table_size)
}

fn table_size(table: &FieldTable) -> usize {
    let entry =
        |(name, value): (&ShortString, &AMQPValue)| 1 + name.as_str().len() + value_size(value);
    4 + table.into_iter().map(entry).sum::<usize>()
}

fn value_size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(list) => 4 + list.as_slice().iter().map(value_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_size(table),
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
