//! A group's dead-letter queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use longshore_core::{AckToken, Headers, Result};
use tokio::time::Instant;

use crate::flight::{Flight, Member, after};
use crate::store::Entry;

/// The untouched message, and beside it the letter as a real broker would keep it: encoded.
pub(crate) struct Dead {
    /// Its place in this queue.
    pub(crate) number: u64,
    pub(crate) entry: Arc<Entry>,
    pub(crate) letter: Headers,
    pub(crate) since: Instant,
    pub(crate) count: u32,
}

pub(crate) struct Letters {
    available: BTreeMap<u64, Dead>,
    pub(crate) flight: Flight<Dead>,
    readers: Vec<Reader>,
    next_number: u64,
}

/// How far a consumer has read: it sees no letter twice that it released.
struct Reader {
    epoch: u32,
    next: u64,
    released: BTreeSet<u64>,
}

impl Letters {
    pub(crate) fn new() -> Self {
        Self {
            available: BTreeMap::new(),
            flight: Flight::new(),
            readers: Vec::new(),
            next_number: 1,
        }
    }

    pub(crate) fn join(&mut self, member: Member) {
        let epoch = member.epoch;
        self.readers.push(Reader { epoch, next: 0, released: BTreeSet::new() });
        self.flight.join(member);
    }

    pub(crate) fn add(&mut self, entry: Arc<Entry>, letter: Headers, now: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        self.available.insert(number, Dead { number, entry, letter, since: now, count: 0 });
    }

    /// The oldest letter that this consumer has not seen.
    pub(crate) fn pop_for(&mut self, epoch: u32) -> Option<Dead> {
        let reader = self.readers.iter_mut().find(|reader| reader.epoch == epoch)?;
        let mut unseen = self.available.range(reader.next..).map(|(number, _)| *number);
        let number = unseen.find(|number| !reader.released.contains(number))?;
        reader.next = number + 1;
        self.available.remove(&number)
    }

    pub(crate) fn release(&mut self, token: AckToken) -> Result<()> {
        let (mut dead, _) = self.flight.take(token)?;
        dead.count = dead.count.saturating_sub(1);
        let reader = self.readers.iter_mut().find(|reader| reader.epoch == token.epoch);
        if let Some(reader) = reader {
            reader.released.insert(dead.number);
        }
        self.put_back([dead]);
        Ok(())
    }

    pub(crate) fn leave(&mut self, epoch: u32, counted: bool) {
        let mut back = self.flight.leave(epoch);
        if !counted {
            back.iter_mut().for_each(|dead| dead.count = dead.count.saturating_sub(1));
        }
        self.put_back(back);
        self.readers.retain(|reader| reader.epoch != epoch);
    }

    /// Brings back what leases lost, drops what is older than `retention`, and says whether any
    /// came back and how many were dropped.
    pub(crate) fn tick(&mut self, retention: Option<Duration>, now: Instant) -> (bool, usize) {
        let back = self.flight.expire(now);
        let returned = !back.is_empty();
        self.put_back(back);
        let mut dropped = 0;
        while let Some(oldest) = self.available.first_entry()
            && retention.is_some_and(|kept| after(oldest.get().since, kept) <= now)
        {
            oldest.remove();
            dropped += 1;
        }
        (returned, dropped)
    }

    pub(crate) fn available(&self) -> impl Iterator<Item = &Dead> {
        self.available.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.available.len()
    }

    fn put_back(&mut self, letters: impl IntoIterator<Item = Dead>) {
        for dead in letters {
            // Other consumers may have read past it while it was held.
            for reader in &mut self.readers {
                reader.next = reader.next.min(dead.number);
            }
            self.available.insert(dead.number, dead);
        }
    }
}
