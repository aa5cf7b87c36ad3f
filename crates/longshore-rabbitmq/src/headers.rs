//! Between headers and the protocol's tables.
//!
//! A table of the client library has each name once and keeps no order. So a name that repeats has a
//! list of values, and the order of a user's headers, where the table's would differ, stands in a
//! header of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, LongString, ShortString};
use longshore_core::{ErrorKind, Headers, Outcome, Result};

use crate::error::error;

/// The names of a user's headers in their order.
pub(crate) const ORDER: &str = "longshore-order";
/// More names than this are beyond the limit of headers anyway.
const MAX_ORDER: usize = 4096;
/// What the server itself writes, counts on, or routes by.
const SERVERS: &[&str] = &["x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC"];
const SERVERS_PREFIXES: &[&str] = &["x-first-death-", "x-last-death-"];

/// Whether the server gives the header a meaning: none of these is the user's, and none goes into a
/// copy. With a copied `x-death` a server before 4.0.1 drops the message at its second delay.
pub(crate) fn is_servers(name: &str) -> bool {
    SERVERS.contains(&name) || SERVERS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Text where it is text: other programs' clients read bytes as such then.
pub(crate) fn value(bytes: &[u8]) -> AMQPValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => AMQPValue::LongString(LongString::from(text)),
        Err(_) => AMQPValue::ByteArray(ByteArray::from(bytes)),
    }
}

/// Adds a user's headers to the table of an outgoing message.
///
/// # Errors
/// `InvalidMessage` for a name that is too long, or that has a meaning to the server.
pub(crate) fn write(
    headers: &Headers,
    mut table: BTreeMap<ShortString, AMQPValue>,
) -> Result<BTreeMap<ShortString, AMQPValue>> {
    let refuse =
        |text: String| Err(error(ErrorKind::InvalidMessage, text).with_outcome(Outcome::NotSent));
    let mut last = "";
    let mut in_order = true;
    let users = || headers.iter().filter(|(name, _)| !name.is_reserved());
    for (name, bytes) in users() {
        let name = name.as_str();
        if is_servers(name) {
            return refuse(format!("header `{name}` has a meaning of its own on RabbitMQ"));
        }
        let Ok(key) = ShortString::try_new(name) else {
            return refuse(format!(
                "a header name of {} bytes exceeds the limit of 255",
                name.len()
            ));
        };
        in_order &= last <= name;
        last = name;
        match table.get_mut(&key) {
            None => {
                table.insert(key, value(bytes));
            }
            Some(AMQPValue::FieldArray(list)) => list.push(value(bytes)),
            Some(first) => {
                let first = std::mem::replace(first, AMQPValue::Void);
                table.insert(key, FieldArray::from(vec![first, value(bytes)]).into());
            }
        }
    }
    if !in_order {
        let mut order = String::new();
        for (name, _) in users() {
            order.push_str(if order.is_empty() { "" } else { " " });
            order.push_str(name.as_str());
        }
        table.insert(ORDER.into(), AMQPValue::LongString(order.into()));
    }
    Ok(table)
}

/// All headers of a message but the server's own, as names and bytes, in the order of the one who
/// published it. What is no text or bytes becomes text; nothing that a foreign program writes is
/// fatal.
pub(crate) fn read(table: &FieldTable) -> Vec<(&str, Bytes)> {
    let mut flat: Vec<(&str, Bytes)> = Vec::with_capacity(table.inner().len());
    let mut order = None;
    for (name, value) in table {
        match (name.as_str(), value) {
            (ORDER, AMQPValue::LongString(text)) => {
                order = std::str::from_utf8(text.as_bytes()).ok();
            }
            (ORDER, _) => {}
            (name, _) if is_servers(name) => {}
            (name, AMQPValue::FieldArray(list)) => {
                flat.extend(list.as_slice().iter().map(|value| (name, bytes(value))));
            }
            (name, value) => flat.push((name, bytes(value))),
        }
    }
    match order {
        Some(order) => reordered(flat, order),
        None => flat,
    }
}

/// What the order does not name comes last.
fn reordered<'a>(flat: Vec<(&'a str, Bytes)>, order: &str) -> Vec<(&'a str, Bytes)> {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, name) in order.split(' ').take(MAX_ORDER).enumerate() {
        places.entry(name).or_default().push(place);
    }
    places.values_mut().for_each(|places| places.reverse());
    let mut keyed: Vec<_> = flat
        .into_iter()
        .map(|(name, bytes)| {
            let place = places.get_mut(name).and_then(Vec::pop).unwrap_or(usize::MAX);
            (place, (name, bytes))
        })
        .collect();
    keyed.sort_by_key(|(place, _)| *place);
    keyed.into_iter().map(|(_, header)| header).collect()
}

/// The bytes of a text, or the text of any other value.
pub(crate) fn bytes(value: &AMQPValue) -> Bytes {
    match value {
        AMQPValue::LongString(text) => Bytes::copy_from_slice(text.as_bytes()),
        AMQPValue::ShortString(text) => Bytes::copy_from_slice(text.as_str().as_bytes()),
        AMQPValue::ByteArray(bytes) => Bytes::copy_from_slice(bytes.as_slice()),
        AMQPValue::Void => Bytes::new(),
        other => {
            let mut text = String::new();
            show(other, &mut text);
            text.into()
        }
    }
}

/// Numbers and flags as they are written, lists and tables in the manner of JSON.
fn show(value: &AMQPValue, out: &mut String) {
    // Writing to a String cannot fail. The client library has bounded the depth: it reads the same
    // way, and by the size of a frame.
    let _ = match value {
        AMQPValue::Boolean(it) => write!(out, "{it}"),
        AMQPValue::ShortShortInt(it) => write!(out, "{it}"),
        AMQPValue::ShortShortUInt(it) => write!(out, "{it}"),
        AMQPValue::ShortInt(it) => write!(out, "{it}"),
        AMQPValue::ShortUInt(it) => write!(out, "{it}"),
        AMQPValue::LongInt(it) => write!(out, "{it}"),
        AMQPValue::LongUInt(it) => write!(out, "{it}"),
        AMQPValue::LongLongInt(it) => write!(out, "{it}"),
        AMQPValue::Timestamp(it) => write!(out, "{it}"),
        AMQPValue::Float(it) => write!(out, "{it}"),
        AMQPValue::Double(it) => write!(out, "{it}"),
        AMQPValue::DecimalValue(it) => write!(out, "{}e-{}", it.value, it.scale),
        AMQPValue::Void => write!(out, "null"),
        AMQPValue::ShortString(it) => write!(out, "{:?}", it.as_str()),
        AMQPValue::LongString(it) => write!(out, "{:?}", String::from_utf8_lossy(it.as_bytes())),
        AMQPValue::ByteArray(it) => write!(out, "{:?}", String::from_utf8_lossy(it.as_slice())),
        AMQPValue::FieldArray(list) => {
            out.push('[');
            for (index, item) in list.as_slice().iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                show(item, out);
            }
            write!(out, "]")
        }
        AMQPValue::FieldTable(table) => {
            out.push('{');
            for (index, (name, item)) in table.into_iter().enumerate() {
                let _ = write!(out, "{}{:?}:", if index == 0 { "" } else { "," }, name.as_str());
                show(item, out);
            }
            write!(out, "}}")
        }
    };
}
