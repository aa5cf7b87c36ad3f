//! Deliveries in flight: the native message of each, and until when it is ours.

use std::time::Duration;

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use longshore_core::{AckToken, Error, MessageId, Record, Result};
use longshore_driver::Slab;
use tokio::time::Instant;

use crate::codec::Place;
use crate::error::lease_lost;

/// One delivery.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) body: Bytes,
    pub(crate) reply: Subject,
    pub(crate) place: Place,
    pub(crate) id: Option<MessageId>,
    /// The record's entry in the ledger, where there is one.
    pub(crate) entry: Option<u64>,
    /// The end of the lease by our clock: the server itself takes settlements that come too late.
    pub(crate) expires: Instant,
    pub(crate) back: Back,
}

/// Whether the server was told to deliver it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    No,
    /// It is settled so, and the order leaves with the next burst: nobody can settle it again.
    Waits,
    /// The order is on its way, and its answer is not here.
    Ordered,
    /// And it came again before the answer: it is the next delivery's now.
    Came,
}

#[derive(Debug)]
pub(crate) struct Flight {
    slab: Slab<Held>,
    prefetch: usize,
    epoch: u32,
    /// Epochs that were lost and of which the runtime has not heard.
    lost: Vec<(u32, Error)>,
}

impl Flight {
    pub(crate) fn new(prefetch: usize) -> Self {
        Self { slab: Slab::new(prefetch), prefetch, epoch: 1, lost: Vec::new() }
    }

    pub(crate) fn room(&self) -> usize {
        self.prefetch.saturating_sub(self.slab.len())
    }

    pub(crate) fn prefetch(&self) -> usize {
        self.prefetch
    }

    /// At most what it was made with: the table grows no further.
    pub(crate) fn set_prefetch(&mut self, prefetch: usize) {
        self.prefetch = prefetch;
    }

    pub(crate) fn insert(&mut self, held: Held) -> Option<AckToken> {
        self.slab.insert(self.epoch, held).ok()
    }

    /// A delivery whose lease is not over; one whose lease is gives its place up.
    pub(crate) fn get(&mut self, token: AckToken, now: Instant) -> Result<&mut Held> {
        if self.slab.get(token).is_ok_and(|held| held.expires <= now) {
            let _ = self.slab.remove(token);
        }
        let held = self.slab.get_mut(token).map_err(|_| lease_lost())?;
        if held.back == Back::Waits { Err(lease_lost()) } else { Ok(held) }
    }

    /// It is to be given back by a later order.
    pub(crate) fn wait(&mut self, token: AckToken) {
        if let Ok(held) = self.slab.get_mut(token) {
            held.back = Back::Waits;
        }
    }

    /// One that waits for its order to leave; the order is on its way from now on.
    pub(crate) fn leave(&mut self, token: AckToken, now: Instant) -> Option<Subject> {
        let held = self.slab.get_mut(token).ok().filter(|held| held.expires > now)?;
        held.back = Back::Ordered;
        Some(held.reply.clone())
    }

    pub(crate) fn remove(&mut self, token: AckToken) {
        // Gone already where the group's consumer was lost meanwhile.
        self.slab.discard(token);
    }

    /// Gives up the places of those whose lease is over, so that prefetch is not lost with them.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        self.slab.extract(|_, held| held.expires <= now).len()
    }

    /// The server is about to be told to deliver it again.
    pub(crate) fn give_back(&mut self, token: AckToken) {
        if let Ok(held) = self.slab.get_mut(token) {
            held.back = Back::Ordered;
        }
    }

    /// Nobody knows whether the order arrived, unless the message came again meanwhile: says so, and
    /// lets go of it then.
    pub(crate) fn came_back(&mut self, token: AckToken) -> bool {
        let Ok(held) = self.slab.get_mut(token) else { return false };
        let came = held.back == Back::Came;
        held.back = Back::No;
        if came {
            self.remove(token);
        }
        came
    }

    /// Something that is held came again, since the server was killed or is early: the run that has
    /// it goes on, under the new delivery. What is being given back comes again because of that: it
    /// is nobody's run, and the next delivery.
    pub(crate) fn renew(
        &mut self,
        place: Place,
        reply: &Subject,
        now: Instant,
        lease: Duration,
    ) -> bool {
        let same = |held: &Held| {
            held.place.sequence == place.sequence && held.expires > now && held.back != Back::Came
        };
        let Some(token) = self.slab.iter().find(|(_, held)| same(held)).map(|(token, _)| token)
        else {
            return false;
        };
        let Ok(held) = self.slab.get_mut(token) else { return false };
        if held.back == Back::Ordered {
            held.back = Back::Came;
            return false;
        }
        held.place = place;
        held.reply = reply.clone();
        held.expires = now + lease;
        true
    }

    /// The server's consumer is another now: what is held belongs to nobody.
    pub(crate) fn lose(&mut self, why: &Error) {
        let epoch = self.epoch;
        if !self.slab.drop_epoch(epoch).is_empty() {
            self.lost.push((epoch, why.clone()));
        }
        self.epoch = epoch.checked_add(1).unwrap_or(1);
    }

    pub(crate) fn take_lost(&mut self) -> Vec<(u32, Error)> {
        std::mem::take(&mut self.lost)
    }

    pub(crate) fn drain(&mut self) -> Vec<Held> {
        self.slab.extract(|_, _| true).into_iter().map(|(_, held)| held).collect()
    }
}

/// The record as it is kept beside a message that stays where it is: less its own count, which
/// goes on.
pub(crate) fn in_place(record: &Record, held: &Held) -> Record {
    let mut kept = record.clone();
    kept.deliveries = kept.deliveries.saturating_sub(held.place.delivered);
    kept.id = held.id.clone();
    kept.not_before = None;
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn place(delivered: u32) -> Place {
        let reply = format!("$JS.ACK.S.C.{delivered}.7.{delivered}.1700000000000000000.0");
        crate::codec::place(&reply).expect("a reply subject of a delivery")
    }

    fn held(now: Instant) -> Held {
        let expires = now + LEASE;
        let (reply, place) = ("first".into(), place(1));
        Held {
            headers: None,
            body: Bytes::new(),
            reply,
            place,
            id: None,
            entry: None,
            expires,
            back: Back::No,
        }
    }

    fn renewed(flight: &mut Flight, now: Instant) -> bool {
        flight.renew(place(2), &"second".into(), now, LEASE)
    }

    #[tokio::test]
    async fn what_comes_again_goes_on_under_the_new_delivery() {
        let (mut flight, now) = (Flight::new(4), Instant::now());
        let token = flight.insert(held(now)).unwrap();
        assert!(renewed(&mut flight, now));
        assert_eq!(flight.get(token, now).unwrap().reply.as_str(), "second");
    }

    #[tokio::test]
    async fn what_is_given_back_and_comes_before_the_answer_is_the_next_delivery() {
        let (mut flight, now) = (Flight::new(4), Instant::now());
        let first = flight.insert(held(now)).unwrap();
        flight.give_back(first);
        assert!(!renewed(&mut flight, now), "nobody would hold it once the answer is here");
        let second = flight.insert(held(now)).unwrap();
        // The order's answer is lost: it was carried out all the same.
        assert!(flight.came_back(first));
        assert!(flight.get(first, now).is_err());
        // The server is killed: the second run goes on.
        assert!(renewed(&mut flight, now));
        assert_eq!(flight.get(second, now).unwrap().reply.as_str(), "second");
    }

    #[tokio::test]
    async fn an_order_that_is_unknown_leaves_the_token_valid() {
        let (mut flight, now) = (Flight::new(4), Instant::now());
        let token = flight.insert(held(now)).unwrap();
        flight.give_back(token);
        assert!(!flight.came_back(token));
        assert!(flight.get(token, now).is_ok());
        assert!(renewed(&mut flight, now));
    }
}
