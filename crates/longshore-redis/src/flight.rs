//! Deliveries of one consumer: those that are handed over, and those that came and were not.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use longshore_core::{AckToken, Error, Event, MessageId, Record, Result};
use longshore_driver::Slab;
use tokio::time::Instant;

use crate::error::lease_lost;
use crate::names::Place;
use crate::reply::{Entry, Fields};

/// A delivery that was handed over.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) place: Place,
    pub(crate) fields: std::sync::Arc<Fields>,
    pub(crate) id: Option<MessageId>,
    /// The server's own count for this copy.
    pub(crate) count: u32,
    /// Whether a record may stand beside it on the server.
    pub(crate) recorded: bool,
    /// The end of the lease by our clock, which is earlier than the server's.
    pub(crate) expires: Instant,
}

/// One that came and was not handed over yet.
#[derive(Clone, Debug)]
pub(crate) struct Unseen {
    pub(crate) entry: Entry,
    /// Not after the server began to count.
    pub(crate) since: Instant,
}

#[derive(Debug)]
pub(crate) struct Flight {
    slab: Slab<Held>,
    by_place: HashMap<Place, AckToken>,
    pub(crate) unseen: VecDeque<Unseen>,
    pub(crate) events: Vec<Event>,
    prefetch: usize,
    epoch: u32,
}

impl Flight {
    pub(crate) fn new(prefetch: usize) -> Self {
        Self {
            slab: Slab::new(prefetch),
            by_place: HashMap::new(),
            unseen: VecDeque::new(),
            events: Vec::new(),
            prefetch,
            epoch: 1,
        }
    }

    /// How many more may be handed over.
    pub(crate) fn room(&self) -> usize {
        self.prefetch.saturating_sub(self.slab.len())
    }

    /// How many more may come.
    pub(crate) fn credit(&self) -> usize {
        self.room().saturating_sub(self.unseen.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty() && self.unseen.is_empty()
    }

    /// Of the suspect lane: one at a time, whatever the prefetch.
    pub(crate) fn set_prefetch(&mut self, prefetch: usize) {
        self.prefetch = prefetch;
    }

    pub(crate) fn prefetch(&self) -> usize {
        self.prefetch
    }

    /// Takes over what came; gives back what is beyond the credit.
    pub(crate) fn arrived(&mut self, entries: Vec<Entry>, since: Instant) -> Vec<Unseen> {
        for entry in entries {
            // The same one, handed over again: whoever had it here has lost it.
            self.drop_place(entry.place);
            self.unseen.push_back(Unseen { entry, since });
        }
        let room = self.room().min(self.unseen.len());
        self.unseen.split_off(room).into()
    }

    pub(crate) fn drop_place(&mut self, place: Place) {
        if let Some(token) = self.by_place.remove(&place) {
            let _ = self.slab.remove(token);
        }
        self.unseen.retain(|unseen| unseen.entry.place != place);
    }

    pub(crate) fn knows(&self, place: Place) -> bool {
        self.by_place.contains_key(&place)
            || self.unseen.iter().any(|unseen| unseen.entry.place == place)
    }

    pub(crate) fn insert(&mut self, held: Held) -> Option<AckToken> {
        let place = held.place;
        let token = self.slab.insert(self.epoch, held).ok()?;
        self.by_place.insert(place, token);
        Some(token)
    }

    /// A delivery whose lease is not over; one whose lease is gives its place up.
    pub(crate) fn get(&mut self, token: AckToken, now: Instant) -> Result<&mut Held> {
        if self.slab.get(token).is_ok_and(|held| held.expires <= now) {
            self.remove(token);
        }
        self.slab.get_mut(token).map_err(|_| lease_lost())
    }

    pub(crate) fn remove(&mut self, token: AckToken) {
        if let Ok(held) = self.slab.remove(token)
            && self.by_place.get(&held.place) == Some(&token)
        {
            self.by_place.remove(&held.place);
        }
    }

    /// Gives up the places of those whose lease is over, so that prefetch is not lost with them.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        let gone = self.slab.extract(|_, held| held.expires <= now);
        for (token, held) in &gone {
            if self.by_place.get(&held.place) == Some(token) {
                self.by_place.remove(&held.place);
            }
        }
        gone.len()
    }

    /// The group is another now: what is held belongs to nobody.
    pub(crate) fn lose(&mut self, why: &Error) {
        let epoch = self.epoch;
        self.by_place.clear();
        self.unseen.clear();
        if !self.slab.drop_epoch(epoch).is_empty() {
            self.events.push(Event::Lost { epoch, why: why.clone() });
        }
        self.epoch = epoch.checked_add(1).unwrap_or(1);
    }

    /// Takes what waits here for longer than `age`: whoever should handle it is busy, or gone.
    pub(crate) fn stale(&mut self, age: Duration) -> Vec<Unseen> {
        let (stale, fresh) = std::mem::take(&mut self.unseen)
            .into_iter()
            .partition(|unseen| unseen.since.elapsed() >= age);
        self.unseen = fresh;
        Vec::from(stale as VecDeque<Unseen>)
    }

    pub(crate) fn drain(&mut self) -> (Vec<Unseen>, Vec<Held>) {
        self.by_place.clear();
        let held = self.slab.extract(|_, _| true).into_iter().map(|(_, held)| held).collect();
        (self.unseen.drain(..).collect(), held)
    }
}

/// The record as it is kept beside a message that stays where it is: less its own count, which
/// goes on.
pub(crate) fn in_place(record: &Record, held: &Held) -> Record {
    let mut kept = record.clone();
    kept.deliveries = kept.deliveries.saturating_sub(held.count);
    kept.not_before = None;
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        let place = text.parse().unwrap();
        Entry { place, fields: Some(Vec::new()), count: 1, record: None }
    }

    fn hand_over(flight: &mut Flight, expires: Instant) -> AckToken {
        let unseen = flight.unseen.pop_front().unwrap();
        let place = unseen.entry.place;
        let fields = std::sync::Arc::default();
        let held = Held { place, fields, id: None, count: 1, recorded: false, expires };
        flight.insert(held).unwrap()
    }

    #[tokio::test]
    async fn what_comes_beyond_the_credit_is_given_back() {
        let (mut flight, now) = (Flight::new(2), Instant::now());
        assert!(flight.arrived(vec![entry("1-1")], now).is_empty());
        let surplus = flight.arrived(vec![entry("1-2"), entry("r1-1")], now);
        assert_eq!(surplus[0].entry.place, "r1-1".parse().unwrap());
        assert_eq!((flight.credit(), flight.room()), (0, 2));
    }

    #[tokio::test]
    async fn what_comes_again_is_lost_to_the_delivery_before() {
        let (mut flight, now) = (Flight::new(2), Instant::now());
        flight.arrived(vec![entry("1-1")], now);
        let first = hand_over(&mut flight, now + Duration::from_secs(9));
        flight.arrived(vec![entry("1-1")], now);
        assert!(flight.get(first, now).is_err());
        let second = hand_over(&mut flight, now + Duration::from_secs(9));
        assert!(flight.get(second, now).is_ok() && flight.knows("1-1".parse().unwrap()));
        flight.remove(second);
        assert!(flight.is_empty() && !flight.knows("1-1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_lease_that_is_over_gives_its_place_up() {
        let (mut flight, now) = (Flight::new(1), Instant::now());
        flight.arrived(vec![entry("1-1")], now);
        let token = hand_over(&mut flight, now);
        assert!(flight.get(token, now).is_err());
        assert_eq!(flight.credit(), 1);
        flight.arrived(vec![entry("1-2")], now);
        hand_over(&mut flight, now);
        assert_eq!((flight.sweep(now), flight.credit()), (1, 1));
    }
}
