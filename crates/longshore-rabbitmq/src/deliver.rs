//! From a message that came in to a delivery: its record, its count, and whether its time has come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use longshore_core::{AckToken, Deliveries, Event, Position, Received, Record};

use crate::codec;
use crate::flight::Held;
use crate::reading::Reading;
use crate::release;

/// The token of what is only looked at: no consumer has epoch 0, so it settles nothing.
pub(crate) const INERT: AckToken = AckToken { epoch: 0, slot: 0, seq: 0 };
/// The broker's own count of the returns of a message.
const COUNT: &str = "x-delivery-count";

/// Hands over what may be: at most `limit`, and no more than there is room for.
pub(crate) fn hand_over(
    reading: &Arc<Reading>,
    unseen: &mut VecDeque<Delivery>,
    out: &mut Vec<Event>,
    limit: usize,
) {
    if unseen.is_empty() || limit == 0 {
        return;
    }
    // Only a hand-over takes room, and there is one at a time.
    let room = reading.flight().room().min(limit).min(unseen.len());
    let ready: Vec<_> = unseen.drain(..room).map(|delivery| read(reading, delivery)).collect();
    let mut early = Vec::new();
    let mut flight = reading.flight();
    for (mut received, held) in ready {
        if let Some(rest) = rest(reading, received.record.as_deref()) {
            early.push((received, held, rest));
            continue;
        }
        if let Some(record) = &mut received.record
            && record.not_before.is_some()
        {
            Arc::make_mut(record).not_before = None;
        }
        if let Some(token) = flight.insert(held) {
            received.token = token;
            out.push(Event::Message(received));
        }
    }
    drop(flight);
    if !early.is_empty() {
        tokio::spawn(release::put_back(reading.clone(), early));
    }
}

/// Takes a message of the broker's apart.
pub(crate) fn read(reading: &Reading, delivery: Delivery) -> (Received, Held) {
    let Delivery { delivery_tag: tag, redelivered, properties, data, .. } = delivery;
    let body = Bytes::from(data);
    let received = received(reading, &properties, body.clone(), redelivered);
    (received, Held { tag, properties, body, moving: false, stuck: None })
}

pub(crate) fn received(
    reading: &Reading,
    properties: &BasicProperties,
    body: Bytes,
    redelivered: bool,
) -> Received {
    let parts = codec::incoming(properties);
    let before = parts.record.as_ref().map_or(0, |record| record.deliveries);
    let own = returns(reading, properties, redelivered);
    Received {
        token: INERT,
        topic: reading.names.topic.clone(),
        body,
        key: parts.key,
        id: parts.id,
        message_type: parts.message_type,
        content_type: parts.content_type,
        headers: parts.headers,
        published_at: parts.published_at,
        position: Position::None,
        deliveries: before.saturating_add(own).saturating_add(1),
        lease: None,
        record: parts.record.map(Arc::new),
        letter: parts.letter.map(Arc::new),
    }
}

/// How often the broker took this copy back. A publisher can send the header himself: it counts
/// only where the broker says that it delivered before.
fn returns(reading: &Reading, properties: &BasicProperties, redelivered: bool) -> u32 {
    if !redelivered {
        return 0;
    }
    if reading.shared.info.capabilities.deliveries == Deliveries::Flag {
        return 1;
    }
    let count = properties.headers().as_ref().and_then(|table| table.inner().get(COUNT));
    let count = count.and_then(number).unwrap_or(1);
    u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

fn number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some((*n).into()),
        AMQPValue::ShortShortUInt(n) => Some((*n).into()),
        AMQPValue::ShortInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::LongInt(n) => Some((*n).into()),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

/// How long a message must still wait by its own record. The delay levels keep the time of our
/// retries, so only another program writes this: it is believed up to the group's longest delay,
/// and not at all where nobody here has declared the group.
fn rest(reading: &Reading, record: Option<&Record>) -> Option<Duration> {
    let due = record?.not_before?;
    let most = reading.shared.longest.of(&reading.names)?;
    let rest = due.duration_since(reading.shared.setup.clock.now()).ok()?.min(most);
    (!rest.is_zero()).then_some(rest)
}
