//! What becomes of a delivery by each settlement, and the copies that moves are made of.
//!
//! Each copy is made from the native message and goes through an exchange without an alternate, so
//! that a queue that is gone is told and not confirmed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use longshore_core::{Headers, Letter, RETRY_HEADER, Record, Result, Settlement};

use crate::codec;
use crate::copies::Copy;
use crate::delay;
use crate::error::unsupported;
use crate::flight::Held;
use crate::headers;
use crate::names::DIRECT;
use crate::reading::{Kind, Reading};

/// Letters that one reader passes over and keeps; beyond them, each goes to the queue's end.
pub(crate) const PASSED_OVER: usize = 1024;
const LETTER_PREFIX: &str = "longshore-dl-";
const LETTER_ID: &str = "longshore-dl-id";
/// The largest frame where the server says nothing, or there is none to ask.
const FRAME: usize = 131_072;
const FRAME_OVERHEAD: usize = 8;
/// Of one header beside name and value: two lengths and a type.
const HEADER: usize = 6;
/// A letter has fewer headers than this.
const LETTER_HEADERS: usize = 48;

/// How a delivery is settled.
pub(crate) enum Plan {
    Ack,
    /// Back to its queue, by the broker itself.
    GiveBack,
    /// A letter that stays, by what it is.
    PassOver(u64),
    /// As copies, and then the ack.
    Move {
        copies: Vec<Copy>,
        step: &'static str,
        letter: bool,
    },
}

/// `full`: no more letters are kept.
pub(crate) fn plan(
    reading: &Reading,
    held: &Held,
    settlement: &Settlement,
    full: bool,
) -> Result<Plan> {
    let names = &reading.names;
    let one = |copy, step| Ok(Plan::Move { copies: vec![copy], step, letter: false });
    match (settlement, reading.kind) {
        (Settlement::Ack(_), _) => Ok(Plan::Ack),
        (Settlement::Release { .. }, Kind::Letters) if !full => {
            Ok(Plan::PassOver(fingerprint(&held.properties, &held.body)))
        }
        (Settlement::Release { .. }, Kind::Letters) => {
            one(unchanged(reading, held), "release.copied")
        }
        (Settlement::Redrive { record, .. }, Kind::Letters) => {
            one(with_record(held, DIRECT, &names.queue, record), "redrive.copied")
        }
        (_, Kind::Letters) => Err(unsupported("this settlement of a dead letter")),
        (Settlement::Redrive { .. }, _) => Err(unsupported("a redrive of what is no dead letter")),
        (Settlement::Release { record: None, .. }, _) => Ok(Plan::GiveBack),
        (Settlement::Release { record: Some(record), .. }, _) => {
            one(with_record(held, DIRECT, reading.queue(), record), "release.copied")
        }
        (Settlement::Retry { after, record, .. }, _) if after.is_zero() => {
            one(with_record(held, DIRECT, &names.queue, record), "retry.copied")
        }
        (Settlement::Retry { after, .. }, _) if *after > delay::LONGEST => {
            Err(unsupported("a delay beyond the longest one"))
        }
        (Settlement::Retry { after, record, .. }, _) => {
            let route = delay::route(*after, &names.queue);
            one(with_record(held, &route.exchange, &route.key, record), "retry.copied")
        }
        (Settlement::Suspect { record, .. }, _) => {
            one(with_record(held, DIRECT, &names.suspect, record), "suspect.copied")
        }
        (Settlement::DeadLetter { letter, .. }, _) => Ok(Plan::Move {
            copies: dead_letter(reading, held, letter),
            step: "dead_letter.copied",
            letter: true,
        }),
    }
}

/// The message as it is, at the end of its own queue.
fn unchanged(reading: &Reading, held: &Held) -> Copy {
    copy(DIRECT, reading.queue(), codec::copied(&held.properties, []), held)
}

/// Back to its own queue, for a return that the record explains.
pub(crate) fn back(reading: &Reading, held: &Held, record: &Record) -> Copy {
    with_record(held, DIRECT, reading.queue(), record)
}

/// To the group's queue after `rest`.
pub(crate) fn later(reading: &Reading, held: &Held, rest: Duration, record: &Record) -> Copy {
    let route = delay::route(rest, &reading.names.queue);
    with_record(held, &route.exchange, &route.key, record)
}

fn with_record(held: &Held, exchange: &str, key: &str, record: &Record) -> Copy {
    let mut record = record.clone();
    // The delay levels keep the time, and by one clock.
    record.not_before = None;
    let (properties, mut table) = base(&held.properties);
    table.insert(RETRY_HEADER.into(), text(record.encode().as_bytes()));
    let properties = properties.with_headers(FieldTable::from(table));
    copy(exchange, key, properties, held)
}

fn copy(exchange: &str, key: &str, properties: BasicProperties, held: &Held) -> Copy {
    let (exchange, key, body) = (exchange.to_owned(), key.to_owned(), held.body.clone());
    Copy { exchange, key, properties, body }
}

type Table = BTreeMap<ShortString, AMQPValue>;

/// What a copy starts from: all but what the broker acts on, and what we write anew.
fn base(original: &BasicProperties) -> (BasicProperties, Table) {
    let properties = codec::copied(original, []);
    let table = properties.headers().as_ref().into_iter().flatten();
    let table = table
        .filter(|(name, _)| {
            name.as_str() != RETRY_HEADER && !name.as_str().starts_with(LETTER_PREFIX)
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (properties, table)
}

fn text(bytes: &[u8]) -> AMQPValue {
    AMQPValue::LongString(bytes.into())
}

/// The message with its letter; or, where a foreign message leaves no room in a frame, the message
/// alone and then its letter, with the same id.
fn dead_letter(reading: &Reading, held: &Held, letter: &Letter) -> Vec<Copy> {
    let dlq = &reading.names.dlq;
    let (properties, table) = base(&held.properties);
    let bare = properties.clone().with_headers(FieldTable::from(table.clone()));
    let room =
        frame(reading).saturating_sub(codec::size(&bare)).saturating_sub(LETTER_HEADERS * HEADER);
    if let Some(beside) = letter.encode(room) {
        let properties = properties.with_headers(add(table, &beside));
        return vec![copy(DIRECT, dlq, properties, held)];
    }
    let alone = add(Table::new(), &letter.encode(usize::MAX).unwrap_or_default());
    let properties =
        BasicProperties::default().with_delivery_mode(codec::PERSISTENT).with_headers(alone);
    let letter =
        Copy { exchange: DIRECT.to_owned(), key: dlq.to_string(), properties, body: Bytes::new() };
    vec![copy(DIRECT, dlq, bare, held), letter]
}

/// What one frame can take of properties and headers.
fn frame(reading: &Reading) -> usize {
    let session = reading.shared.outgoing.current();
    let most = session.map_or(0, |session| session.connection.configuration().frame_max());
    let most = if most == 0 { FRAME } else { most as usize };
    most.saturating_sub(FRAME_OVERHEAD)
}

fn add(mut table: Table, letter: &Headers) -> FieldTable {
    for (name, value) in letter {
        // Our own names are short.
        if let Ok(name) = ShortString::try_new(name.as_str()) {
            table.insert(name, text(value));
        }
    }
    FieldTable::from(table)
}

/// Tells one letter from another, so that one that was passed over is known again after its channel
/// was lost.
pub(crate) fn fingerprint(properties: &BasicProperties, body: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    let id = properties.headers().as_ref().and_then(|table| table.inner().get(LETTER_ID));
    id.map(headers::bytes).hash(&mut hash);
    properties.message_id().as_ref().map(ShortString::as_str).hash(&mut hash);
    body.hash(&mut hash);
    hash.finish()
}
