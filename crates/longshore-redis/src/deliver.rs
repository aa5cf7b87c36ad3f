//! From what came to the runtime.

use std::sync::Arc;

use longshore_core::{Event, Record};
use tokio::time::Instant;

use crate::codec::{self, TRIMMED};
use crate::consumer::Inner;
use crate::flight::{Held, Unseen};
use crate::names::Lane;
use crate::release;

/// Hands over what is there and allowed; says whether anything was.
pub(crate) fn hand_over(inner: &Arc<Inner>, out: &mut Vec<Event>, limit: usize) -> bool {
    let before = out.len();
    let mut early = Vec::new();
    {
        let mut flight = inner.flight();
        let news = flight.events.len().min(limit);
        out.extend(flight.events.drain(..news));
        let mut room = flight.room().min(limit - news);
        let (now, lease) = (Instant::now(), inner.held_for());
        while room > 0 {
            let Some(unseen) = flight.unseen.pop_front() else { break };
            // It is another's by now, or will be before its handler runs.
            if unseen.since + lease <= now {
                continue;
            }
            match deliver(inner, unseen) {
                Ready::Message(received, held) => {
                    let Some(token) = flight.insert(*held) else { break };
                    let mut received = *received;
                    received.token = token;
                    out.push(Event::Message(received));
                    room -= 1;
                }
                Ready::Early(unseen, rest) => early.push((*unseen, rest)),
                Ready::Gone => {}
            }
        }
    }
    if !early.is_empty() {
        let inner = inner.clone();
        tokio::spawn(async move {
            for (unseen, rest) in early {
                release::for_the_rest(&inner, unseen, rest).await;
            }
        });
    }
    out.len() > before
}

enum Ready {
    Message(Box<longshore_core::Received>, Box<Held>),
    /// It came before its time: put back for the rest.
    Early(Box<Unseen>, std::time::Duration),
    /// Its body is not there any more.
    Gone,
}

fn deliver(inner: &Inner, unseen: Unseen) -> Ready {
    let Unseen { entry, since } = unseen;
    let place = entry.place;
    let Some(fields) = entry.fields else {
        tracing::warn!(topic = %inner.names.topic, entry = %place, reason = TRIMMED, "an entry was removed by another program while it was pending");
        return Ready::Gone;
    };
    let mut parts = codec::incoming(&fields);
    // What stands beside it is later than what it came with.
    let beside = entry.record.as_deref().and_then(Record::decode);
    let recorded = entry.record.is_some();
    // A field of that name in a message as published is anybody's; on a copy it is ours.
    let travelled = parts.record.take();
    let record = beside.or(travelled);
    if place.lane == Lane::Redrive
        && !recorded
        && let Some(due) = record.as_ref().and_then(|record| record.not_before)
        && let Ok(rest) = due.duration_since(inner.shared.setup.clock.now())
        && !rest.is_zero()
    {
        let rest = rest.min(inner.longest_delay());
        let entry = crate::reply::Entry { fields: Some(fields), ..entry };
        return Ready::Early(Box::new(Unseen { entry, since }), rest);
    }
    let id = codec::identity(&parts, place);
    let topic = &inner.names.topic;
    let lease = Some(inner.lease());
    let received = codec::received(topic, parts, place, entry.count, record, lease);
    let held = Held {
        place,
        fields: Arc::new(fields),
        id: received.id.clone().or(id),
        count: entry.count,
        recorded,
        expires: since + inner.held_for(),
    };
    Ready::Message(Box::new(received), Box::new(held))
}
