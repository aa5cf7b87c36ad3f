//! The model broker's durable state: copies of messages, where they are, and beside each what the
//! reference model says must be true of it.

use std::sync::Arc;

use longshore_core::{Record, Settlement};

use crate::oracle::Facts;
use crate::scenario::{Counts, Kind, Time, Way};
use crate::seen::Sight;
use crate::world::{Event, MAIN, SUSPECTS, World};

/// One copy of a message, in one group.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) message: usize,
    pub(crate) place: Place,
    /// As the engine wrote it.
    pub(crate) record: Option<Arc<Record>>,
    /// The broker's own count of hand-overs of this copy.
    pub(crate) count: u32,
    /// As the reference model has it.
    pub(crate) facts: Facts,
    /// A retry whose record is written and whose settlement is not: its return is no mystery.
    pub(crate) noted: Option<Time>,
    /// Whether a release was written beside it: the broker's count of its return is explained.
    pub(crate) release_noted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Ready {
        lane: usize,
    },
    Waiting {
        due: Time,
    },
    InFlight {
        delivery: usize,
        lane: usize,
        expires: Option<Time>,
    },
    Acked,
    Dead,
    /// Settled after a copy of it was written.
    Moved,
}

impl Copy {
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.place, Place::Ready { .. } | Place::Waiting { .. } | Place::InFlight { .. })
    }

    pub(crate) fn is_held_by(&self, delivery: usize) -> bool {
        matches!(self.place, Place::InFlight { delivery: holder, .. } if holder == delivery)
    }

    /// What the broker says of hand-overs of this copy alone.
    pub(crate) fn own_count(&self, kind: &Kind) -> u32 {
        match kind.counts {
            Counts::Exact => self.count,
            Counts::Flag => self.count.min(2),
            Counts::None => 1,
        }
    }
}

/// Why a delivery came back to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// A crash, a lost connection, a lost lease, a revocation.
    Unexplained,
    /// Given back in order.
    Released,
}

/// One durable step of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Copy,
    Record,
    Settle,
}

/// How this kind of broker executes a settlement.
pub(crate) fn steps(kind: &Kind, settlement: &Settlement) -> &'static [Step] {
    let way = match settlement {
        Settlement::Retry { .. } | Settlement::Release { record: Some(_), .. } => kind.retry,
        Settlement::Suspect { .. } | Settlement::DeadLetter { .. } => kind.moves,
        _ => Way::Atomic,
    };
    match way {
        Way::Atomic => &[Step::Settle],
        Way::Ledger => &[Step::Record, Step::Settle],
        Way::Copy => &[Step::Copy, Step::Settle],
    }
}

impl World {
    /// Executes one step; false where the delivery is not its holder's any more.
    pub(crate) fn execute(&mut self, delivery: usize, settlement: &Settlement, step: Step) -> bool {
        let kind = self.scenario.kind;
        let copy = self.deliveries[delivery].copy;
        let held = self.copies[copy].is_held_by(delivery);
        match step {
            // Writing a copy asks nobody whose the original is.
            Step::Copy => {
                let fresh = self.successor(delivery, settlement, true);
                self.place(fresh);
                self.deliveries[delivery].copied = true;
                return true;
            }
            Step::Settle if !held && self.acks_anothers(delivery, settlement) => {
                self.seen.see(Sight::SettleLateUnfenced);
                self.copies[copy].place = Place::Acked;
                self.acked(delivery);
            }
            _ if !held => return false,
            Step::Record => {
                let fresh = self.successor(delivery, settlement, false);
                let copy = &mut self.copies[copy];
                copy.record = fresh.record;
                match fresh.place {
                    Place::Waiting { due } => {
                        copy.facts = fresh.facts;
                        copy.noted = Some(due);
                    }
                    // Only the settlement gives it back: until then it is held, and counted.
                    _ => {
                        copy.facts.failures = fresh.facts.failures;
                        copy.facts.first_failed = fresh.facts.first_failed;
                        copy.release_noted = self.scenario.kind.release_counted;
                    }
                }
                self.deliveries[delivery].recorded = true;
            }
            // A broken order: the original is gone before its copy is there.
            Step::Settle
                if self.settles_first() && steps(&kind, settlement).contains(&Step::Copy) =>
            {
                self.copies[copy].place = Place::Moved;
            }
            Step::Settle => self.settle(delivery, settlement),
        }
        true
    }

    /// Where a broker does not ask whose a delivery is, a late ack ends it for whoever has it now.
    fn acks_anothers(&self, delivery: usize, settlement: &Settlement) -> bool {
        let kind = &self.scenario.kind;
        let place = self.copies[self.deliveries[delivery].copy].place;
        let here = matches!(place, Place::Ready { .. } | Place::InFlight { .. });
        let ack = matches!(settlement, Settlement::Ack(_));
        ack && here && !kind.fenced && kind.lease.is_some()
    }

    fn settle(&mut self, delivery: usize, settlement: &Settlement) {
        let id = self.deliveries[delivery].copy;
        if self.deliveries[delivery].copied {
            self.copies[id].place = Place::Moved;
            return;
        }
        match settlement {
            Settlement::Ack(_) => {
                self.copies[id].place = Place::Acked;
                self.acked(delivery);
            }
            Settlement::Release { record: None, .. } => self.give_back(id, Return::Released),
            Settlement::Redrive { .. } => {}
            _ if self.deliveries[delivery].recorded => match self.copies[id].noted.take() {
                Some(due) => self.wait(id, due),
                None => self.give_back(id, Return::Released),
            },
            _ => {
                let fresh = self.successor(delivery, settlement, false);
                self.copies[id] = fresh;
                self.wake(id);
            }
        }
    }

    /// The copy as it is after `settlement`: where it stands, or anew.
    fn successor(&self, delivery: usize, settlement: &Settlement, anew: bool) -> Copy {
        let kind = &self.scenario.kind;
        let held = &self.deliveries[delivery];
        let old = &self.copies[held.copy];
        let facts = held.next.unwrap_or(old.facts);
        let mut copy = Copy { noted: None, release_noted: false, facts, ..old.clone() };
        let anew = anew || matches!(settlement, Settlement::Suspect { .. });
        let mut write = |record: &Record, given_back: bool| {
            let mut record = record.clone();
            let uncounted = given_back && !kind.release_counted;
            if anew {
                copy.count = 0;
                record.deliveries = record.deliveries.saturating_sub(uncounted.into());
            } else {
                record.deliveries = record.deliveries.saturating_sub(old.own_count(kind));
                copy.count = old.count.saturating_sub(uncounted.into());
            }
            copy.record = Some(Arc::new(record));
        };
        let lane = held.lane;
        copy.place = match settlement {
            Settlement::Retry { after, record, .. } => {
                write(record, false);
                Place::Waiting { due: self.now + nanos(*after) }
            }
            Settlement::Release { record: Some(record), .. } => {
                // In two steps, the record alone gives nothing back.
                write(record, anew || kind.retry == Way::Atomic);
                if anew || kind.retry == Way::Atomic {
                    copy.facts.handovers -= u32::from(!kind.release_counted);
                }
                if kind.retry == Way::Ledger {
                    copy.count = old.count;
                }
                Place::Ready { lane }
            }
            Settlement::Suspect { record, .. } => {
                write(record, false);
                Place::Ready { lane: SUSPECTS }
            }
            Settlement::DeadLetter { .. } => Place::Dead,
            _ => Place::Ready { lane },
        };
        copy
    }

    fn place(&mut self, copy: Copy) {
        let message = copy.message;
        self.copies.push(copy);
        self.messages[message].copies += 1;
        self.wake(self.copies.len() - 1);
    }

    /// A copy came to where it is: what follows from it.
    fn wake(&mut self, id: usize) {
        match self.copies[id].place {
            Place::Waiting { due } => self.wait(id, due),
            Place::Dead => self.messages[self.copies[id].message].dead += 1,
            _ => {}
        }
    }

    fn wait(&mut self, id: usize, due: Time) {
        self.copies[id].place = Place::Waiting { due };
        self.push(due, Event::Due { copy: id });
    }

    /// A delivery that nobody settled is ready again.
    pub(crate) fn give_back(&mut self, id: usize, how: Return) {
        let counted = self.scenario.kind.release_counted;
        let copy = &mut self.copies[id];
        let Place::InFlight { lane, .. } = copy.place else { return };
        self.messages[copy.message].returns += u32::from(how == Return::Unexplained);
        if let Some(due) = copy.noted.take() {
            return self.wait(id, due);
        }
        copy.place = Place::Ready { lane };
        let noted = std::mem::take(&mut copy.release_noted);
        match how {
            Return::Released if !counted => {
                copy.count -= 1;
                copy.facts.handovers -= 1;
            }
            _ if noted => {}
            _ => copy.facts.unexplained += 1,
        }
        if how == Return::Released && counted {
            self.seen.see(Sight::ReleaseCounted);
        }
    }

    /// Everything that `which` picks among a member's deliveries in flight.
    pub(crate) fn in_flight(&self, which: impl Fn(usize) -> bool) -> Vec<(usize, usize)> {
        let held = self.copies.iter().enumerate().filter_map(|(id, copy)| match copy.place {
            Place::InFlight { delivery, .. } if which(delivery) => Some((id, delivery)),
            _ => None,
        });
        held.collect()
    }

    pub(crate) fn ready(&self, lane: usize) -> Vec<usize> {
        let ready =
            |(id, copy): (usize, &Copy)| (copy.place == Place::Ready { lane }).then_some(id);
        self.copies.iter().enumerate().filter_map(ready).collect()
    }

    pub(crate) fn due(&mut self, id: usize) {
        if matches!(self.copies[id].place, Place::Waiting { due } if due <= self.now) {
            self.copies[id].place = Place::Ready { lane: MAIN };
        }
    }
}

pub(crate) fn nanos(duration: std::time::Duration) -> Time {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
