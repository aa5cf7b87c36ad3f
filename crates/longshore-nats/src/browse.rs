//! Reading without settling.

use async_nats::{HeaderMap, Message};
use longshore_core::{Cursor, Error, Page, Position, Received, Result, Source};

use crate::codec::{self, Parts, Place};
use crate::declare::consumer_info;
use crate::error::{BACKEND, no_group};
use crate::ledger;
use crate::names::GroupNames;
use crate::raw;
use crate::shared::{Shared, is_missing};

/// A message read by its place.
pub(crate) struct Found {
    pub(crate) message: Message,
    pub(crate) place: Place,
    pub(crate) parts: Parts,
}

/// The first message on `subject` behind `after`.
pub(crate) async fn next(
    shared: &Shared,
    stream: &str,
    subject: &str,
    after: u64,
) -> Result<Option<Found>> {
    let ask = raw::Ask::Next { seq: after + 1, next_by_subj: subject };
    let found = raw::get(shared, stream, &ask).await?;
    Ok(found.map(|raw| {
        let place = Place { sequence: raw.sequence, delivered: 1, published: raw.time };
        let parts = codec::incoming(Some(&raw.headers));
        Found { message: message(subject, raw.headers, raw.payload), place, parts }
    }))
}

fn message(subject: &str, headers: HeaderMap, payload: bytes::Bytes) -> Message {
    let length = payload.len();
    Message {
        subject: async_nats::Subject::from(subject),
        reply: None,
        payload,
        headers: Some(headers),
        status: None,
        description: None,
        length,
    }
}

fn after(cursor: Option<&Cursor>) -> Result<u64> {
    match cursor {
        None | Some(Position::None) => Ok(0),
        Some(Position::Sequence(sequence)) => Ok(*sequence),
        Some(other) => {
            let text = format!("`{}` is no cursor of this broker", other.to_text());
            Err(Error::config(text).with_backend(BACKEND))
        }
    }
}

/// What stands behind the floor of everything that is settled. Of a group, single messages above it
/// may be settled too: the server does not say which.
pub(crate) async fn browse(shared: &Shared, source: &Source, page: &Page) -> Result<Vec<Received>> {
    let names = GroupNames::from_source(source);
    let mut cursor = after(page.after.as_ref())?;
    let letters = matches!(source, Source::DeadLetters { .. });
    let (stream, subjects, durable) = match source {
        Source::Group { .. } => (&names.of.stream, names.subjects(), Some(&names.durable)),
        Source::Suspects { .. } => {
            (&names.of.stream, vec![names.suspect.to_string()], Some(&names.suspect_durable))
        }
        Source::DeadLetters { .. } => (&names.dlq_stream, vec![names.dlq.to_string()], None),
    };
    let missing = |error: Error| match is_missing(&error) {
        true => no_group(&names.of.topic, &names.group).with_source(error),
        false => error,
    };
    if let Some(durable) = durable {
        let info = consumer_info(shared, stream, durable).await.map_err(missing)?;
        cursor = cursor.max(info.ack_floor.stream_sequence);
    }
    let mut out = Vec::new();
    while out.len() < page.limit {
        let mut first: Option<Found> = None;
        for subject in &subjects {
            let found = next(shared, stream, subject, cursor).await.map_err(missing)?;
            let earlier = |found: &Found, first: &Option<Found>| {
                first.as_ref().is_none_or(|first| found.place.sequence < first.place.sequence)
            };
            if let Some(found) = found.filter(|found| earlier(found, &first)) {
                first = Some(found);
            }
        }
        let Some(mut found) = first else { break };
        cursor = found.place.sequence;
        let id = codec::identity(&found.parts, found.place);
        let record = if letters {
            None
        } else {
            let entry = ledger::read(shared, &names, found.place, id.as_ref()).await?;
            entry.and_then(|entry| entry.record).or(found.parts.record.take())
        };
        let topic = &names.of.topic;
        let body = found.message.payload;
        out.push(codec::received(topic, body, found.parts, found.place, id, record, None));
    }
    Ok(out)
}
