//! Answers of the server, taken apart.

use std::collections::HashMap;

use bytes::Bytes;
use longshore_core::Result;
use redis::Value;

use crate::error::unreadable;
use crate::names::Place;

/// The fields of an entry, in order; a name may repeat.
pub(crate) type Fields = Vec<(Bytes, Bytes)>;

pub(crate) fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unreadable()),
    }
}

pub(crate) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(crate) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        _ => None,
    }
}

/// `None` where the entry's body is gone.
pub(crate) fn fields(value: Value) -> Result<Option<Fields>> {
    let flat = match value {
        Value::Nil => return Ok(None),
        other => list(other)?,
    };
    let mut out = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        let pair = bytes(name).zip(bytes(value)).ok_or_else(unreadable)?;
        out.push(pair);
    }
    Ok(Some(out))
}

/// What a script or a read handed over.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    /// `None`: somebody removed the entry while it was pending.
    pub(crate) fields: Option<Fields>,
    pub(crate) count: u32,
    /// The record that stands beside it.
    pub(crate) record: Option<Bytes>,
}

/// `{ member, fields, count, record }`.
pub(crate) fn entry(value: Value) -> Result<Entry> {
    let mut parts = list(value)?.into_iter();
    let place = parts.next().as_ref().and_then(text).and_then(|text| text.parse().ok());
    let fields = fields(parts.next().unwrap_or_default())?;
    let count = parts.next().as_ref().and_then(number);
    Ok(Entry {
        place: place.ok_or_else(unreadable)?,
        fields,
        count: count.and_then(|count| u32::try_from(count).ok()).unwrap_or(u32::MAX),
        record: parts.next().and_then(bytes),
    })
}

pub(crate) fn entries(value: Value) -> Result<Vec<Entry>> {
    list(value)?.into_iter().map(entry).collect()
}

/// `{ id, fields }` of XRANGE and XREADGROUP.
pub(crate) fn ranged(value: Value) -> Result<(String, Option<Fields>)> {
    let mut parts = list(value)?.into_iter();
    let id = parts.next().as_ref().and_then(text).map(str::to_owned);
    Ok((id.ok_or_else(unreadable)?, fields(parts.next().unwrap_or_default())?))
}

/// The lines of INFO.
pub(crate) fn info(value: &Value) -> HashMap<&str, &str> {
    let text = match value {
        Value::VerbatimString { text, .. } => text,
        other => text(other).unwrap_or_default(),
    };
    text.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}
