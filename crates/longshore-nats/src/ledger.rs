//! The ledger: the retry records of messages that wait where they stand, since a stream's message
//! cannot be changed.
//!
//! An entry is believed only where it is of this very message: a stream that was made anew starts
//! its sequences at 1 again.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use bytes::Bytes;
use longshore_core::{ErrorKind, MessageId, Record, Result};
use serde::{Deserialize, Serialize};

use crate::codec::Place;
use crate::error;
use crate::names::GroupNames;
use crate::raw;
use crate::shared::Shared;

/// What stands in the ledger for a message.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its place in the ledger: the next write expects it.
    pub(crate) sequence: u64,
    /// Absent where it is another message's, or unreadable.
    pub(crate) record: Option<Record>,
}

/// The entry for the message at `place`.
///
/// # Errors
/// As [`Shared::api`]. `Ok(None)` where there is none.
pub(crate) async fn read(
    shared: &Shared,
    names: &GroupNames,
    place: Place,
    id: Option<&MessageId>,
) -> Result<Option<Entry>> {
    let subject = names.ledger_subject(place.sequence);
    let ask = raw::Ask::Last { last_by_subj: &subject };
    let found = raw::get(shared, &names.of.ledger, &ask).await?;
    Ok(found.map(|message| {
        let record = Record::decode(&message.payload);
        // What was written before the message was published is of a message before it; and one
        // with another id is of another message.
        let record = record.filter(|record| {
            message.time >= place.published && (id.is_none() || record.id.as_ref() == id)
        });
        Entry { sequence: message.sequence, record }
    }))
}

/// Whether the group has no entry at all. Asked of the same leader by the same question as
/// [`read`], so it says what a read of each message at this moment would.
///
/// # Errors
/// As [`Shared::api`].
pub(crate) async fn is_blank(shared: &Shared, names: &GroupNames) -> Result<bool> {
    let subject = names.ledger_subjects();
    let ask = raw::Ask::Next { seq: 1, next_by_subj: &subject };
    Ok(raw::get(shared, &names.of.ledger, &ask).await?.is_none())
}

/// Writes the record of the message at `place`, where the entry is still `expected`; gives the new
/// entry's place.
///
/// # Errors
/// `LeaseLost` where another member wrote in between.
pub(crate) async fn write(
    shared: &Shared,
    names: &GroupNames,
    place: Place,
    expected: Option<u64>,
    record: &Record,
) -> Result<u64> {
    match put(shared, names, place, expected, record).await {
        Err(error) if error.kind() == ErrorKind::LeaseLost => {}
        result => return result,
    }
    // Either someone else has the message, or our own try before was stored and its answer lost, or
    // the entry is of a message that had this place before.
    let Some(found) = read(shared, names, place, record.id.as_ref()).await? else {
        return put(shared, names, place, None, record).await;
    };
    match found.record {
        Some(known) if known == *record => Ok(found.sequence),
        // The times differ between two tries of one settlement; everything that counts is equal.
        Some(known) if counts(&known) == counts(record) => {
            put(shared, names, place, Some(found.sequence), record).await
        }
        Some(_) => Err(error::lease_lost()),
        None => put(shared, names, place, Some(found.sequence), record).await,
    }
}

fn counts(record: &Record) -> (u32, u32, u32, u32, u32) {
    (record.failures, record.deliveries, record.explained, record.delayed, record.redrives)
}

async fn put(
    shared: &Shared,
    names: &GroupNames,
    place: Place,
    expected: Option<u64>,
    record: &Record,
) -> Result<u64> {
    let mut headers = HeaderMap::new();
    let name: HeaderName = NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
    headers.insert(name, HeaderValue::from(expected.unwrap_or(0)));
    let subject = names.ledger_subject(place.sequence);
    let stored = shared.store(&subject, headers, Bytes::from(record.encode())).await?;
    Ok(stored.sequence)
}

/// Takes an entry out of the ledger. It is of no further use, so a failure costs its bytes only.
pub(crate) async fn purge(shared: &Shared, names: &GroupNames, entry: u64) {
    #[derive(Serialize)]
    struct Delete {
        seq: u64,
        /// Overwriting its bytes on disk would cost more than the rest together.
        no_erase: bool,
    }
    #[derive(Deserialize)]
    struct Deleted {}
    let stream = &names.of.ledger;
    let operation = format!("STREAM.MSG.DELETE.{stream}");
    let deleted: Result<Deleted> =
        shared.api(&operation, stream, &Delete { seq: entry, no_erase: true }).await;
    if let Err(error) = deleted {
        tracing::debug!(entry, %error, "an entry stays in the ledger");
    }
}
