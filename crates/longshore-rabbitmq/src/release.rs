//! What goes back to its queue without a run: what was read and not handed over, and what came
//! before its time.
//!
//! The broker counts a return, and the engine allows for one that nobody explained. So a message
//! that was never handed over before goes back as it is; any other goes as a copy whose record
//! explains this return, confirmed before the original is acked.

use std::sync::Arc;
use std::time::Duration;

use lapin::message::Delivery;
use longshore_core::{Received, Record, Result};
use tokio::time::timeout;

use crate::copies;
use crate::deliver;
use crate::flight::Held;
use crate::moves;
use crate::reading::Reading;
use crate::settle::arrive;

/// Copies are not waited for longer than this at the end of a consumer: a return more, unexplained,
/// is the lesser evil.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives back what the runtime has not seen.
pub(crate) async fn give_back(reading: Arc<Reading>, unseen: Vec<Delivery>) {
    let uncounted = reading.shared.info.capabilities.release_uncounted;
    let epoch = reading.flight().epoch();
    let (mut plain, mut tags, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for delivery in unseen {
        let (received, held) = deliver::read(&reading, delivery);
        if uncounted || received.deliveries <= 1 {
            plain.push(held.tag);
            continue;
        }
        tags.push(held.tag);
        copies.push(moves::back(&reading, &held, &explained(&received)));
    }
    let stored = if copies.is_empty() {
        Vec::new()
    } else {
        timeout(PATIENCE, copies::store(&reading.shared, copies)).await.unwrap_or_default()
    };
    let copied = |index: usize| stored.get(index).is_some_and(Result::is_ok);
    let written = {
        let mut flight = reading.flight();
        if flight.epoch() != epoch {
            return;
        }
        for (index, tag) in tags.into_iter().enumerate() {
            if copied(index) { flight.ack_unseen(tag) } else { flight.give_back_unseen(tag) }
        }
        plain.into_iter().for_each(|tag| flight.give_back_unseen(tag));
        flight.write()
    };
    if let Err(error) = arrive(&reading, written).await {
        tracing::debug!(%error, "what was underway comes back with the end of its channel");
    }
}

/// One more return that was no crash.
fn explained(received: &Received) -> Record {
    let mut record = received.record.as_deref().cloned().unwrap_or_default();
    record.deliveries = received.deliveries;
    record.explained = record.explained.saturating_add(1);
    record
}

/// Lets messages wait for the rest of their time.
pub(crate) async fn put_back(reading: Arc<Reading>, early: Vec<(Received, Held, Duration)>) {
    let epoch = reading.flight().epoch();
    let (mut tags, mut copies) = (Vec::new(), Vec::new());
    for (received, held, rest) in early {
        tags.push(held.tag);
        copies.push(moves::later(&reading, &held, rest, &explained(&received)));
    }
    let stored = copies::store(&reading.shared, copies).await;
    let written = {
        let mut flight = reading.flight();
        if flight.epoch() != epoch {
            return;
        }
        for (tag, result) in tags.into_iter().zip(stored) {
            match result {
                Ok(()) => flight.ack_unseen(tag),
                Err(error) => {
                    tracing::warn!(%error, "a message before its time could not be put back");
                    flight.give_back_unseen(tag);
                }
            }
        }
        flight.write()
    };
    if let Err(error) = arrive(&reading, written).await {
        tracing::debug!(%error, "a message before its time comes back with the end of its channel");
    }
}
