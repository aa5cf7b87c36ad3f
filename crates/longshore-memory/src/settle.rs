//! Settlements. Each is one step under the lock, so a move has no window to crash in.

use std::sync::Arc;

use longshore_core::{AckToken, Record, Result, Settlement};
use tokio::time::Instant;

use crate::error::{lease_lost, unsupported};
use crate::group::{Group, Lane};
use crate::store::{Home, Item};
use crate::world::State;

/// Executes one settlement of a consumer of `lane`.
pub(crate) fn settle(
    state: &mut State,
    group: usize,
    lane: Lane,
    epoch: u32,
    settlement: &Settlement,
    now: Instant,
) -> Result<()> {
    let token = settlement.token();
    if token.epoch != epoch {
        return Err(lease_lost());
    }
    match lane {
        Lane::Letters => settle_letter(state, group, token, settlement),
        Lane::Main | Lane::Suspects => settle_message(state, group, lane, token, settlement, now),
    }
}

fn settle_message(
    state: &mut State,
    place: usize,
    lane: Lane,
    token: AckToken,
    settlement: &Settlement,
    now: Instant,
) -> Result<()> {
    let group = &mut state.groups[place];
    match settlement {
        Settlement::Ack(_) => {
            let item = take(group, lane, token)?;
            forget(state, place, &item);
        }
        Settlement::Release { record, .. } => {
            let mut item = take(group, lane, token)?;
            if let Some(record) = record {
                item.record = Some(in_place(record, item.count));
            }
            // What was given back was no hand-over.
            item.count = item.count.saturating_sub(1);
            group.put_back(lane, item);
            group.wake.notify_waiters();
        }
        Settlement::Retry { after, record, .. } => {
            let mut item = take(group, lane, token)?;
            item.record = Some(in_place(record, item.count));
            group.push_waiting(item, now, *after);
            group.wake.notify_waiters();
        }
        Settlement::Suspect { record, .. } => {
            let item = take(group, lane, token)?;
            group.push_suspect(copy(item.entry, record, item.home));
            group.wake.notify_waiters();
        }
        Settlement::DeadLetter { letter, .. } => {
            if group.retention.is_none() {
                flight(group, lane).check(token)?;
                return Err(unsupported("a dead letter of a group without a dead-letter queue"));
            }
            let item = take(group, lane, token)?;
            // No frame bounds the metadata here; without a bound it always fits.
            let headers = letter.encode(usize::MAX).unwrap_or_default();
            group.letters.add(item.entry.clone(), headers, now);
            group.wake.notify_waiters();
            // It never fails for want of room: it may exceed the capacity where other groups still
            // have the message.
            state.stored += 1;
            forget(state, place, &item);
        }
        Settlement::Redrive { .. } => {
            flight(group, lane).check(token)?;
            return Err(unsupported("a redrive of what is no dead letter"));
        }
    }
    Ok(())
}

fn settle_letter(
    state: &mut State,
    place: usize,
    token: AckToken,
    settlement: &Settlement,
) -> Result<()> {
    let group = &mut state.groups[place];
    let was_full = match settlement {
        Settlement::Ack(_) => {
            let (_, was_full) = group.letters.flight.take(token)?;
            state.stored -= 1;
            was_full
        }
        Settlement::Release { .. } => {
            group.letters.release(token)?;
            true
        }
        Settlement::Redrive { record, .. } => {
            let (dead, _) = group.letters.flight.take(token)?;
            group.push_returned(copy(dead.entry, record, Home::Group));
            true
        }
        Settlement::Retry { .. } | Settlement::Suspect { .. } | Settlement::DeadLetter { .. } => {
            group.letters.flight.check(token)?;
            return Err(unsupported("this settlement of a dead letter"));
        }
    };
    if was_full {
        group.wake.notify_waiters();
    }
    Ok(())
}

/// Takes a delivery out of flight. A consumer that waited for prefetch, or for its turn in the
/// suspect lane, can go on.
fn take(group: &mut Group, lane: Lane, token: AckToken) -> Result<Item> {
    let (item, was_full) = flight(group, lane).take(token)?;
    if was_full || lane == Lane::Suspects {
        group.wake.notify_waiters();
    }
    Ok(item)
}

fn flight(group: &mut Group, lane: Lane) -> &mut crate::flight::Flight<Item> {
    match lane {
        Lane::Suspects => &mut group.suspect,
        Lane::Main | Lane::Letters => &mut group.main,
    }
}

/// The group is done with a message.
fn forget(state: &mut State, place: usize, item: &Item) {
    let topic = state.groups[place].topic;
    if item.home == Home::Group || state.topics[topic].settled(item.seq()) {
        state.stored -= 1;
    }
}

/// The record of a message that stays where it is: less its own count, which goes on.
fn in_place(record: &Record, count: u32) -> Arc<str> {
    let deliveries = record.deliveries.saturating_sub(count);
    if deliveries == record.deliveries {
        return record.encode().into();
    }
    Record { deliveries, ..record.clone() }.encode().into()
}

/// A copy in another lane: the record as it is, and an own count that starts anew.
fn copy(entry: Arc<crate::store::Entry>, record: &Record, home: Home) -> Item {
    Item { entry, record: Some(record.encode().into()), count: 0, home }
}
