//! Giving back: what came and was not handed over, and what a consumer that closes still holds.
//! None of it is counted as a hand-over.

use std::time::Duration;

use longshore_core::Result;
use redis::Value;

use crate::consumer::Inner;
use crate::flight::{Held, Unseen};
use crate::names::{Lane, PARKED, Place};
use crate::script::{self, Call};
use crate::settings::ms_up;

/// Parks a delivery.
pub(crate) fn park(
    inner: &Inner,
    place: Place,
    delay: Duration,
    count: Option<u32>,
    record: Option<&str>,
) -> Call {
    let names = &inner.names;
    // What is parked in the suspect lane is its next.
    let keys = [names.stream(place.lane), &*names.due, &*names.record];
    Call::new(&script::PARK, &keys)
        .arg(inner.group())
        .arg(&inner.me)
        .arg(PARKED)
        .arg(place.id.to_string())
        .arg(place.to_string())
        .arg(if waits(place.lane) { ms_up(delay).to_string() } else { String::new() })
        .arg(count.map(|count| count.to_string()).unwrap_or_default())
        .arg(record.unwrap_or_default())
}

/// What nobody saw goes back at once.
pub(crate) async fn unseen(inner: &Inner, unseen: Vec<Unseen>) {
    if let Err(error) = all(inner, unseen, Vec::new()).await {
        tracing::debug!(%error, "what was not handed over comes back with the end of its lease");
    }
}

/// What came before its time waits for the rest. It may wait in the record's own words no longer:
/// from here on its due time counts.
pub(crate) async fn for_the_rest(inner: &Inner, unseen: Unseen, rest: Duration) {
    let entry = &unseen.entry;
    let mut record = entry
        .fields
        .as_deref()
        .map(crate::codec::incoming)
        .and_then(|parts| parts.record)
        .unwrap_or_default();
    record.not_before = None;
    let record = record.encode();
    let call = park(inner, entry.place, rest, Some(entry.count.saturating_sub(1)), Some(&record));
    match inner.line.run(call).await {
        Ok(_) => inner.due_in(rest),
        Err(error) => {
            tracing::warn!(%error, "a message before its time waits for the end of its lease");
        }
    }
}

/// All of it, back to the group at once.
pub(crate) async fn all(inner: &Inner, unseen: Vec<Unseen>, held: Vec<Held>) -> Result<()> {
    let unseen = unseen.iter().map(|unseen| (unseen.entry.place, unseen.entry.count));
    let held = held.iter().map(|held| (held.place, held.count));
    let calls: Vec<_> = unseen
        .chain(held)
        .map(|(place, count)| {
            park(inner, place, Duration::ZERO, Some(count.saturating_sub(1)), None)
        })
        .collect();
    if calls.is_empty() {
        return Ok(());
    }
    let mut first = Ok(());
    for answer in inner.line.run_all(calls).await {
        match answer {
            // Done, or another's already.
            Ok(Value::Int(_)) => {}
            // The group is gone with all it had.
            Err(error) if crate::line::is_missing(&error) => {}
            Ok(_) => first = first.and(Err(crate::error::unreadable())),
            Err(error) => first = first.and(Err(error)),
        }
    }
    first
}

/// Whether a lane keeps due times.
pub(crate) fn waits(lane: Lane) -> bool {
    lane != Lane::Suspect
}
