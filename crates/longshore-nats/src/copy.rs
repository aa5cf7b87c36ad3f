//! Copies: into the suspect lane, out of it, into the dead-letter queue and back. Each is made from
//! the native message, and has an id of its own for the server's window: under the message's own it
//! would be answered as a duplicate, stored nowhere, and the original then settled.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use longshore_core::{
    Letter, MessageId, Position, RETRY_HEADER, Record, Result, SmolStr, dead_letter_id,
};

use crate::codec::{self, ID, Place, belongs_to_server};
use crate::error::{self, unsupported};
use crate::flight::Held;
use crate::names::GroupNames;
use crate::raw::Stored;
use crate::shared::{Shared, is_missing};

const LETTER_PREFIX: &str = "longshore-dl-";
const MSG_ID: &str = "Nats-Msg-Id";
/// Of a header block: its first line and its end.
const BLOCK: usize = 16;
/// Of one header: colon, space and line end.
const LINE: usize = 4;
/// A letter has fewer headers than this.
const LETTER_LINES: usize = 48;
/// The server's limit of a message's headers, less what the block costs.
const MAX_NATIVE_HEADERS: usize = 65_535 - 512;

/// The headers that a copy starts from: all but the ones that the server acts on (an expectation
/// of the first publisher's would refuse the copy) and what we write anew.
fn base(headers: Option<&HeaderMap>, id: Option<&MessageId>) -> Result<HeaderMap> {
    let mut out = HeaderMap::new();
    for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
        let text: &str = name.as_ref();
        if belongs_to_server(text) || text == RETRY_HEADER || text.starts_with(LETTER_PREFIX) {
            continue;
        }
        for value in values {
            out.append(name.clone(), value.clone());
        }
    }
    // A message known by its position has another one after this.
    if let Some(id) = id {
        id.with_str(|id| codec::set(&mut out, ID, id))?;
    }
    Ok(out)
}

fn size(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &[u8] = name.as_ref();
        values.iter().map(move |value| name.len() + value.as_str().len() + LINE)
    });
    BLOCK + lines.sum::<usize>()
}

/// What a letter of this message would be called: the stem of all its copies' ids.
fn stem(names: &GroupNames, record: &Record, id: Option<&MessageId>, place: Place) -> SmolStr {
    let own = Position::Sequence(place.sequence).to_text();
    let origin = record.origin.as_deref().unwrap_or(&own);
    dead_letter_id(&names.of.topic, &names.group, origin, id, record.redrives)
}

async fn with_record(
    shared: &Shared,
    subject: &str,
    held: &Held,
    mut record: Record,
    msg_id: String,
) -> Result<()> {
    record.origin.get_or_insert_with(|| Position::Sequence(held.place.sequence).to_text());
    record.published_at.get_or_insert(held.place.published);
    let mut headers = base(held.headers.as_ref(), held.id.as_ref())?;
    codec::set(&mut headers, MSG_ID, &msg_id)?;
    codec::set(&mut headers, RETRY_HEADER, &record.encode())?;
    shared.store(subject, headers, held.body.clone()).await?;
    Ok(())
}

/// Into the suspect lane.
pub(crate) async fn suspect(
    shared: &Shared,
    names: &GroupNames,
    held: &Held,
    record: &Record,
) -> Result<()> {
    let stem = stem(names, record, held.id.as_ref(), held.place);
    let msg_id = format!("{stem}:s{}", record.deliveries);
    with_record(shared, &names.suspect, held, record.clone(), msg_id).await?;
    shared.hit("suspect.copied");
    Ok(())
}

/// Out of the suspect lane, to wait where the group's retries wait.
pub(crate) async fn retry(
    shared: &Shared,
    names: &GroupNames,
    held: &Held,
    record: Record,
) -> Result<()> {
    let stem = stem(names, &record, held.id.as_ref(), held.place);
    let msg_id = format!("{stem}:t{}", record.failures);
    with_record(shared, &names.redrive, held, record, msg_id).await?;
    shared.hit("retry.copied");
    Ok(())
}

/// In place of a message that the client library cannot take from a connection: to the group's
/// redrive lane, with headers that it can.
pub(crate) async fn readable(shared: &Shared, names: &GroupNames, stored: Stored) -> Result<()> {
    let place = Place { sequence: stored.sequence, delivered: 0, published: stored.time };
    let id = codec::identity(&codec::incoming(Some(&stored.headers)), place);
    let record = Record {
        origin: Some(Position::Sequence(place.sequence).to_text()),
        published_at: Some(place.published),
        ..Record::default()
    };
    let mut headers = base(Some(&stored.headers), id.as_ref())?;
    let stem = stem(names, &record, id.as_ref(), place);
    codec::set(&mut headers, MSG_ID, &format!("{stem}:h"))?;
    codec::set(&mut headers, RETRY_HEADER, &record.encode())?;
    shared.store(&names.redrive, headers, stored.payload).await?;
    Ok(())
}

/// Into the dead-letter queue.
pub(crate) async fn dead_letter(
    shared: &Shared,
    names: &GroupNames,
    held: &Held,
    letter: &Letter,
) -> Result<()> {
    let limit = shared.client.max_payload();
    let body = held.body.clone();
    let mut headers = base(held.headers.as_ref(), held.id.as_ref())?;
    codec::set(&mut headers, MSG_ID, &letter.id)?;
    let bare = size(&headers);
    let room = limit
        .saturating_sub(body.len())
        .min(MAX_NATIVE_HEADERS)
        .saturating_sub(bare + LETTER_LINES * LINE);
    let beside = letter.encode(room);
    if let Some(beside) = &beside {
        add(&mut headers, beside);
    } else if bare + body.len() > limit {
        // A foreign message that fills the limit has room for nothing of ours.
        headers = base(held.headers.as_ref(), None)?;
    }
    put(shared, names, headers, body).await?;
    if beside.is_none() {
        let mut headers = HeaderMap::new();
        codec::set(&mut headers, MSG_ID, &format!("{}:m", letter.id))?;
        add(&mut headers, &letter.encode(usize::MAX).unwrap_or_default());
        put(shared, names, headers, Bytes::new()).await?;
    }
    shared.hit("dead_letter.copied");
    Ok(())
}

fn add(headers: &mut HeaderMap, letter: &longshore_core::Headers) {
    for (name, value) in letter {
        // A letter's texts are printable; a blank at an end is all that the client would lose.
        let text = std::str::from_utf8(value).unwrap_or_default().trim();
        if let Err(error) = codec::set(headers, name.as_str(), text) {
            tracing::warn!(%error, "a letter's header was left out");
        }
    }
}

async fn put(shared: &Shared, names: &GroupNames, headers: HeaderMap, body: Bytes) -> Result<()> {
    match shared.store(&names.dlq, headers, body).await {
        Err(error) if is_missing(&error) => {
            Err(unsupported("a dead letter of a group without a dead-letter queue")
                .with_source(error))
        }
        result => result.map(drop),
    }
}

/// Out of the dead-letter queue, back to its group.
pub(crate) async fn redrive(
    shared: &Shared,
    names: &GroupNames,
    letter: &Message,
    id: Option<&MessageId>,
    letter_id: Option<&str>,
    record: &Record,
    place: Place,
) -> Result<()> {
    let stem = match letter_id {
        Some(id) => SmolStr::new(id),
        None => stem(names, record, id, place),
    };
    let mut headers = base(letter.headers.as_ref(), id)?;
    codec::set(&mut headers, MSG_ID, &format!("{stem}:r{}", record.redrives))?;
    codec::set(&mut headers, RETRY_HEADER, &record.encode())?;
    let stored = shared.store(&names.redrive, headers, letter.payload.clone()).await;
    stored.map_err(|error| match is_missing(&error) {
        true => error::no_topic(&names.of.topic).with_source(error),
        false => error,
    })?;
    shared.hit("redrive.copied");
    Ok(())
}
