//! The table of deliveries that a lane holds.

use std::time::Duration;

use longshore_core::{Received, Record, Settlement};

use super::breaker::Pass;
use super::types::Key;

/// One delivery in our hands.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) received: Received,
    /// The record as the next settlement will carry it: made at the first failure here.
    pub(super) record: Option<Box<Record>>,
    pub(super) state: State,
    /// When the lease began or was last extended.
    pub(super) leased_at: Duration,
    /// Its ack is a discard.
    pub(super) discarding: bool,
    /// The breaker's, while it runs.
    pub(super) pass: Option<Pass>,
}

impl Held {
    /// The number of the run that is on or next.
    pub(super) fn attempt(&self) -> u32 {
        let record = self.record.as_deref().or(self.received.record.as_deref());
        record.map_or(1, |record| record.failures.saturating_add(1))
    }
}

/// Where it is on its way.
#[derive(Debug)]
pub(super) enum State {
    /// Waits for a free slot.
    Buffered,
    /// Its handler runs.
    Running {
        /// Absent while no shard has taken it: waiting for a shard is not the handler's time.
        since: Option<Duration>,
        cancelled: Option<Why>,
    },
    /// Waits in process for a fast retry, and then for the rate; keeps its slot.
    Pausing { until: Duration },
    /// Its settlement is under way. Where its lease was lost meanwhile, it is the last try.
    Settling { tries: u32, lost: bool },
    /// Its settlement failed and waits to be tried again.
    Stalled { until: Duration, settlement: Box<Settlement>, tries: u32 },
}

/// Why a run was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    TimedOut,
    LeaseLost,
    Drain,
}

/// A slab whose places are used again, with a turn that tells an old key from a new one.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    turn: u32,
    held: Option<Held>,
}

impl Table {
    pub(super) fn insert(&mut self, held: Held) -> Key {
        if let Some(place) = self.free.pop() {
            let entry = &mut self.places[place as usize];
            entry.turn = entry.turn.wrapping_add(1);
            entry.held = Some(held);
            return Key { place, turn: entry.turn };
        }
        let place = u32::try_from(self.places.len()).expect("a prefetch is 16 bits wide");
        self.places.push(Place { turn: 0, held: Some(held) });
        Key { place, turn: 0 }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Held> {
        let place = self.places.get(key.place as usize)?;
        if place.turn == key.turn { place.held.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Held> {
        let place = self.places.get_mut(key.place as usize)?;
        if place.turn == key.turn { place.held.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Held> {
        let place = self.places.get_mut(key.place as usize)?;
        if place.turn != key.turn {
            return None;
        }
        let held = place.held.take()?;
        self.free.push(key.place);
        Some(held)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Held)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            #[expect(clippy::cast_possible_truncation, reason = "checked at insertion")]
            let key = Key { place: index as u32, turn: place.turn };
            place.held.as_ref().map(|held| (key, held))
        })
    }
}
