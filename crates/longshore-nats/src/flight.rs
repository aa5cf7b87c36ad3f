//! Deliveries in flight: the native message of each, and until when it is ours.

use std::time::Duration;

use async_nats::{Message, Subject};
use longshore_core::{AckToken, Error, MessageId, Record, Result};
use longshore_driver::Slab;
use tokio::time::Instant;

use crate::codec::Place;
use crate::error::lease_lost;

/// One delivery.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) message: Message,
    pub(crate) reply: Subject,
    pub(crate) place: Place,
    pub(crate) id: Option<MessageId>,
    /// The record's entry in the ledger, where there is one.
    pub(crate) entry: Option<u64>,
    /// The end of the lease by our clock: the server itself takes settlements that come too late.
    pub(crate) expires: Instant,
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
        self.slab.get_mut(token).map_err(|_| lease_lost())
    }

    pub(crate) fn remove(&mut self, token: AckToken) {
        // Gone already where the group's consumer was lost meanwhile.
        let _ = self.slab.remove(token);
    }

    /// Gives up the places of those whose lease is over, so that prefetch is not lost with them.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        self.slab.extract(|_, held| held.expires <= now).len()
    }

    /// Something that is held came again, since the server was killed or is early: the run that has
    /// it goes on, under the new delivery.
    pub(crate) fn renew(
        &mut self,
        place: Place,
        reply: &Subject,
        now: Instant,
        lease: Duration,
    ) -> bool {
        let same = |held: &Held| held.place.sequence == place.sequence && held.expires > now;
        let Some(token) = self.slab.iter().find(|(_, held)| same(held)).map(|(token, _)| token)
        else {
            return false;
        };
        if let Ok(held) = self.slab.get_mut(token) {
            held.place = place;
            held.reply = reply.clone();
            held.expires = now + lease;
        }
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
