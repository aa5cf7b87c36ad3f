//! From a message that came in to a delivery: its record, and whether its time has come.

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use longshore_core::{Event, MessageId, Record};
use tokio::time::Instant;

use crate::codec::{self, Parts, Place};
use crate::consumer::Inner;
use crate::flight::{Back, Held};
use crate::ledger::Entry;
use crate::settle;

/// A message that the runtime has not seen.
#[derive(Debug)]
pub(crate) struct Unseen {
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) body: Bytes,
    pub(crate) reply: Subject,
    pub(crate) place: Place,
    /// When it was here at the latest bound of the past: its lease runs since then at most.
    pub(crate) arrived: Instant,
}

/// Whether the ledger need not be asked.
pub(crate) fn is_fresh(inner: &Inner, unseen: &Unseen) -> bool {
    unseen.place.delivered <= 1 && !inner.predates(unseen.place.published) && !inner.suspects
}

/// Hands one over, or puts it back where its time has not come.
pub(crate) fn deliver(
    inner: &Inner,
    unseen: Unseen,
    mut parts: Parts,
    entry: Option<Entry>,
    out: &mut Vec<Event>,
) {
    let id = codec::identity(&parts, unseen.place);
    let sequence = entry.as_ref().map(|entry| entry.sequence);
    let of_header = parts.record.take();
    // The header of a message on the topic itself can be anyone's; a lane's subject is ours.
    let ledger = entry.and_then(|entry| entry.record);
    let mut record: Option<Record> = ledger.or(of_header);
    if let Some(due) = record.as_ref().and_then(|record| record.not_before) {
        // Neither a forged time nor a clock that went astray parks a message for ever.
        let most = inner.longest_delay().saturating_add(inner.longest_delay() / 2);
        let now = inner.shared.setup.clock.now();
        let rest = due.duration_since(now).unwrap_or_default().min(most);
        if !rest.is_zero() {
            let held = held(inner, unseen, id, sequence);
            // What is kept is the bounded time: it would be bounded anew at each return else.
            let mut record = record.unwrap_or_default();
            record.not_before = now.checked_add(rest);
            settle::put_back(inner, held, record, rest);
            return;
        }
    }
    if let Some(record) = &mut record {
        record.not_before = None;
    }
    let topic = &inner.names.of.topic;
    let body = unseen.body.clone();
    let mut received = codec::received(
        topic,
        body,
        parts,
        unseen.place,
        id.clone(),
        record,
        Some(inner.held_for()),
    );
    let held = held(inner, unseen, id, sequence);
    if let Some(token) = inner.flight().insert(held) {
        received.token = token;
        out.push(Event::Message(received));
    }
}

fn held(inner: &Inner, unseen: Unseen, id: Option<MessageId>, entry: Option<u64>) -> Held {
    let Unseen { headers, body, reply, place, arrived } = unseen;
    let expires = arrived + inner.held_for();
    Held { headers, body, reply, place, id, entry, expires, back: Back::No }
}
