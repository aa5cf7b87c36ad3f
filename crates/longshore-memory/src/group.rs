//! One group: what is ready, what waits, what is in flight, and its lanes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use longshore_core::{AckToken, Group as Declared, GroupName, InstanceId, Result, Source};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flight::{Flight, Member, after};
use crate::letters::{Dead, Letters};
use crate::store::Item;

/// Which of a group's lanes a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Main,
    Suspects,
    Letters,
}

impl From<&Source> for Lane {
    fn from(source: &Source) -> Self {
        match source {
            Source::Group { .. } => Self::Main,
            Source::Suspects { .. } => Self::Suspects,
            Source::DeadLetters { .. } => Self::Letters,
        }
    }
}

pub(crate) struct Group {
    /// The place of its topic in the world's list.
    pub(crate) topic: usize,
    pub(crate) name: GroupName,
    pub(crate) lease: Duration,
    pub(crate) retention: Option<Duration>,
    /// Whoever waits for something of this group waits here.
    pub(crate) wake: Arc<Notify>,
    /// What came back (released, lost, due, redriven), by its place in the topic: handed over
    /// before anything fresh.
    returned: BTreeMap<u64, Item>,
    /// What was never handed over, in the topic's order.
    fresh: VecDeque<Item>,
    /// The retry lane, by due time; the topic's order tells equal times apart.
    waiting: BTreeMap<(Instant, u64), Item>,
    suspects: BTreeMap<u64, Item>,
    /// The one member that reads the suspect lane.
    holder: Option<u32>,
    pub(crate) main: Flight<Item>,
    pub(crate) suspect: Flight<Item>,
    pub(crate) letters: Letters,
}

/// What a consumer is handed.
pub(crate) enum Handed<'a> {
    Message(AckToken, &'a Item),
    Letter(AckToken, &'a Dead),
}

impl Group {
    pub(crate) fn new(topic: usize, declared: &Declared, fresh: VecDeque<Item>) -> Self {
        Self {
            topic,
            name: declared.name.clone(),
            lease: declared.lease,
            retention: declared.dead_letters,
            wake: Arc::new(Notify::new()),
            returned: BTreeMap::new(),
            fresh,
            waiting: BTreeMap::new(),
            suspects: BTreeMap::new(),
            holder: None,
            main: Flight::new(),
            suspect: Flight::new(),
            letters: Letters::new(),
        }
    }

    pub(crate) fn push_fresh(&mut self, item: Item) {
        self.fresh.push_back(item);
    }

    pub(crate) fn push_returned(&mut self, item: Item) {
        self.returned.insert(item.seq(), item);
    }

    pub(crate) fn push_waiting(&mut self, item: Item, now: Instant, delay: Duration) {
        if delay.is_zero() {
            self.push_returned(item);
        } else {
            self.waiting.insert((after(now, delay), item.seq()), item);
        }
    }

    pub(crate) fn push_suspect(&mut self, item: Item) {
        self.suspects.insert(item.seq(), item);
    }

    /// Puts an item back into the lane that it was handed over from.
    pub(crate) fn put_back(&mut self, lane: Lane, item: Item) {
        match lane {
            Lane::Suspects => self.push_suspect(item),
            _ => self.push_returned(item),
        }
    }

    /// Does what is due: retries, lost leases, old letters. Everyone who works on the group calls
    /// it first, so no task of its own is needed. Returns how many letters were dropped.
    pub(crate) fn tick(&mut self, now: Instant) -> usize {
        let mut changed = false;
        while let Some(first) = self.waiting.first_entry()
            && first.key().0 <= now
        {
            let item = first.remove();
            self.push_returned(item);
            changed = true;
        }
        for item in self.main.expire(now) {
            self.push_returned(item);
            changed = true;
        }
        for item in self.suspect.expire(now) {
            self.push_suspect(item);
            changed = true;
        }
        let (returned, dropped) = self.letters.tick(self.retention, now);
        if changed || returned {
            self.wake.notify_waiters();
        }
        dropped
    }

    /// When there will be something to do on `lane` that nobody announces.
    pub(crate) fn next_due(&self, lane: Lane) -> Option<Instant> {
        match lane {
            Lane::Main => {
                let due = self.waiting.first_key_value().map(|((due, _), _)| *due);
                [due, self.main.next_expiry()].into_iter().flatten().min()
            }
            Lane::Suspects => self.suspect.next_expiry(),
            Lane::Letters => self.letters.flight.next_expiry(),
        }
    }

    /// Hands over at most `limit`, and says how many.
    pub(crate) fn hand_over(
        &mut self,
        lane: Lane,
        epoch: u32,
        limit: usize,
        now: Instant,
        mut receive: impl FnMut(Handed<'_>),
    ) -> Result<usize> {
        let expires = after(now, self.lease);
        let room = self.room(lane, epoch)?.min(limit);
        let mut handed = 0;
        while handed < room {
            let token = match lane {
                Lane::Letters => {
                    let Some(mut dead) = self.letters.pop_for(epoch) else { break };
                    dead.count = dead.count.saturating_add(1);
                    let token = self.letters.flight.hand_over(epoch, dead, expires);
                    token.filter(|token| {
                        let held = self.letters.flight.get(*token);
                        held.map(|dead| receive(Handed::Letter(*token, dead))).is_ok()
                    })
                }
                Lane::Main | Lane::Suspects => {
                    let (next, flight) = if lane == Lane::Main {
                        let returned = self.returned.pop_first().map(|(_, item)| item);
                        (returned.or_else(|| self.fresh.pop_front()), &mut self.main)
                    } else {
                        (self.suspects.pop_first().map(|(_, item)| item), &mut self.suspect)
                    };
                    let Some(mut item) = next else { break };
                    item.count = item.count.saturating_add(1);
                    let token = flight.hand_over(epoch, item, expires);
                    token.filter(|token| {
                        let held = flight.get(*token);
                        held.map(|item| receive(Handed::Message(*token, item))).is_ok()
                    })
                }
            };
            if token.is_some() {
                handed += 1;
            }
        }
        Ok(handed)
    }

    /// A consumer that may have nothing now leaves the suspect lane to the others.
    pub(crate) fn set_prefetch(&mut self, lane: Lane, epoch: u32, prefetch: usize) {
        match lane {
            Lane::Main => self.main.set_prefetch(epoch, prefetch),
            Lane::Letters => self.letters.flight.set_prefetch(epoch, prefetch),
            Lane::Suspects => {
                self.suspect.set_prefetch(epoch, prefetch);
                if prefetch == 0 && self.holder == Some(epoch) {
                    self.holder = None;
                }
            }
        }
        self.wake.notify_waiters();
    }

    /// How many more deliveries a consumer may have. Of the suspect lane, one member may have one.
    fn room(&mut self, lane: Lane, epoch: u32) -> Result<usize> {
        match lane {
            Lane::Main => self.main.room(epoch),
            Lane::Letters => self.letters.flight.room(epoch),
            Lane::Suspects => {
                let room = self.suspect.room(epoch)?;
                if room == 0 {
                    return Ok(0);
                }
                if self.holder.is_none_or(|holder| !self.suspect.is_member(holder)) {
                    self.holder = Some(epoch);
                }
                let free = self.holder == Some(epoch) && self.suspect.len() == 0;
                Ok(if free { room.min(1) } else { 0 })
            }
        }
    }

    pub(crate) fn join(&mut self, lane: Lane, member: Member) {
        match lane {
            Lane::Main => self.main.join(member),
            Lane::Suspects => self.suspect.join(member),
            Lane::Letters => self.letters.join(member),
        }
    }

    /// A consumer goes, and what it held is ready again.
    pub(crate) fn leave(&mut self, lane: Lane, epoch: u32, counted: bool) {
        let back = match lane {
            Lane::Main => self.main.leave(epoch),
            Lane::Suspects => self.suspect.leave(epoch),
            Lane::Letters => {
                self.letters.leave(epoch, counted);
                Vec::new()
            }
        };
        for mut item in back {
            if !counted {
                item.count = item.count.saturating_sub(1);
            }
            self.put_back(lane, item);
        }
        self.wake.notify_waiters();
    }

    pub(crate) fn leave_all(&mut self, client: u64) {
        for (lane, epochs) in [
            (Lane::Main, self.main.epochs_of(client)),
            (Lane::Suspects, self.suspect.epochs_of(client)),
            (Lane::Letters, self.letters.flight.epochs_of(client)),
        ] {
            epochs.into_iter().for_each(|epoch| self.leave(lane, epoch, false));
        }
    }

    pub(crate) fn crash(&mut self, instance: &InstanceId) {
        let dead = |member: &Member| [&member.instance, &member.connection].contains(&instance);
        self.main.crash(dead);
        self.suspect.crash(dead);
        self.letters.flight.crash(dead);
        self.wake.notify_waiters();
    }

    /// What is ready in the main lane, in no order.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &Item> {
        self.returned.values().chain(&self.fresh)
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    /// The oldest that is ready: both parts stand in the topic's order.
    pub(crate) fn oldest_ready(&self) -> Option<Instant> {
        let firsts = [self.returned.values().next(), self.fresh.front()];
        firsts.into_iter().flatten().map(|item| item.entry.published).min()
    }

    pub(crate) fn waiting(&self) -> impl ExactSizeIterator<Item = &Item> {
        self.waiting.values()
    }

    pub(crate) fn suspects(&self) -> impl ExactSizeIterator<Item = &Item> {
        self.suspects.values()
    }
}
