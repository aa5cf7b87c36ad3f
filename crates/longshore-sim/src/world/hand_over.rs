//! From the broker to the engine.

use std::sync::Arc;

use bytes::Bytes;
use longshore_core::{AckToken, Headers, MessageId, Position, Received, Record};

use super::member::{EPOCH, MAX_BODY, topic};
use super::{Event, MAIN, SUSPECTS, World};
use crate::broker::{Place, Return};
use crate::dice::For;
use crate::engine::Input;
use crate::oracle::{Delivery, Phase};
use crate::scenario::{Bad, Fault, MS, Plan};
use crate::seen::Sight;

/// More failures than any policy here allows.
const FORGED: u32 = 9_999;

impl Plan {
    /// The record that it is published with.
    pub(super) fn record(&self) -> Option<Arc<Record>> {
        let failures = if self.forged { FORGED } else { 0 };
        let record = Record { failures, redrives: self.redrives, ..Record::default() };
        (self.forged || self.redrives > 0).then(|| Arc::new(record))
    }
}

impl World {
    /// Hands over whatever can be.
    pub(super) fn hand_over_all(&mut self) {
        for lane in [MAIN, SUSPECTS] {
            loop {
                let ready = self.ready(lane);
                if ready.is_empty() {
                    break;
                }
                let turn = self.deliveries.len() as u64;
                let Some(member) = self.reader(lane, turn) else { break };
                // Most come in order; some broker's partitions do not.
                let overtakes = ready.len() > 1 && self.dice.chance(For::Pick, 1, turn, 10);
                if overtakes {
                    self.seen.see(Sight::Reordered);
                }
                self.hand_over(ready[usize::from(overtakes)], member, lane);
            }
        }
    }

    /// A member with room. Of the suspect lane, the first that is up, one message at a time.
    fn reader(&self, lane: usize, turn: u64) -> Option<usize> {
        let count = self.members.len();
        if lane == SUSPECTS {
            let in_lane = |id: usize| self.deliveries[id].lane == SUSPECTS;
            if !self.in_flight(in_lane).is_empty() {
                return None;
            }
            let first = (0..count).find(|m| self.members[*m].reads(self.now))?;
            return self.has_room(first, lane).then_some(first);
        }
        let first = self.dice.roll(For::Pick, 0, turn) as usize % count;
        (0..count).map(|offset| (first + offset) % count).find(|m| self.has_room(*m, lane))
    }

    fn has_room(&self, member: usize, lane: usize) -> bool {
        let place = &self.members[member];
        let limit = if lane == MAIN { self.scenario.prefetch } else { 1 };
        place.reads(self.now)
            && place
                .lanes
                .get(lane)
                .is_some_and(|lane| !lane.revoking && lane.live.len() + lane.transit < limit)
    }

    fn hand_over(&mut self, id: usize, member: usize, lane: usize) {
        let kind = self.scenario.kind;
        let nth = self.deliveries.len() as u64;
        let copy = &mut self.copies[id];
        copy.count += 1;
        copy.facts.handovers += 1;
        let own = copy.own_count(&kind);
        let record = copy.record.clone();
        let deliveries = record.as_ref().map_or(0, |record| record.deliveries) + own;
        let expires = kind.lease.map(|lease| self.now + lease);
        copy.place = Place::InFlight { delivery: self.deliveries.len(), lane, expires };
        let place = &mut self.members[member];
        place.lanes[lane].transit += 1;
        let (message, facts) = (copy.message, copy.facts);
        let delivery = self.deliveries.len();
        let disturbed = !place.is_calm(self.now);
        self.deliveries.push(Delivery {
            copy: id,
            message,
            member,
            inc: place.inc,
            lane,
            epoch: place.lanes[lane].epoch,
            deliveries,
            record,
            facts,
            key: None,
            leased_at: self.now,
            volatile: 0,
            first_failed: facts.first_failed,
            phase: Phase::Coming,
            expect: None,
            must_cancel: false,
            lost: false,
            run: 0,
            may_ack: false,
            next: None,
            copied: false,
            recorded: false,
            clock_over: false,
            disturbed,
        });
        self.note(delivery, "handed over", || format!(", delivery {deliveries}"));
        if let Some(at) = expires {
            self.push(at, Event::Expire { delivery });
        }
        let latency = self.dice.within(For::HandOver, nth, 0, 1..=8) * MS;
        let bad = self.bad(|fault| match fault {
            Fault::HandOver { nth: which, what } if *which == nth => Some(*what),
            _ => None,
        });
        let (member, inc) = (self.deliveries[delivery].member, self.deliveries[delivery].inc);
        let mut arrives = self.now + latency;
        match bad {
            Some(Bad::Lost) => {
                self.seen.see(Sight::HandOverLost);
                self.members[member].lanes[lane].transit -= 1;
                return;
            }
            Some(Bad::Slow(ms)) => {
                self.seen.see(Sight::HandOverSlow);
                self.deliveries[delivery].disturbed = true;
                arrives += ms * MS;
            }
            Some(Bad::Twice) => {
                self.seen.see(Sight::HandOverTwice);
                self.give_back(id, Return::Unexplained);
            }
            Some(Bad::Crash(_)) => self.push(arrives + 1, Event::Die { member, inc }),
            Some(Bad::Disconnect(_)) => self.disconnect(member, latency),
            Some(Bad::ReplyLost | Bad::Refused) | None => {}
        }
        self.push(arrives, Event::Arrive { delivery });
    }

    pub(super) fn arrive(&mut self, id: usize) {
        let delivery = &self.deliveries[id];
        let (member, inc, lane) = (delivery.member, delivery.inc, delivery.lane);
        if !self.is_on(member, inc) {
            return;
        }
        let place = &mut self.members[member];
        // A new connection knows nothing of it.
        if delivery.epoch != place.lanes[lane].epoch {
            return;
        }
        place.lanes[lane].transit -= 1;
        // A worker that drains reads no more; what it had read already, it is given.
        if place.draining() && self.dice.chance(For::HandOver, id as u64, 1, 50) {
            self.note(id, "kept back", String::new);
            return;
        }
        let Some(plan) = self.scenario.messages.iter().find(|p| p.index == delivery.message) else {
            return;
        };
        let body = if plan.oversize { MAX_BODY + 1 } else { 1 };
        let received = Received {
            token: AckToken { epoch: delivery.epoch, slot: 0, seq: id as u64 },
            topic: topic(),
            body: Bytes::from_static(&[b'1'; MAX_BODY + 1]).slice(..body),
            key: plan.keyed.then(|| Bytes::from_static(b"key")),
            id: MessageId::new(Self::id_of(plan.index)).ok(),
            message_type: None,
            content_type: None,
            headers: Headers::new(),
            published_at: Some(std::time::UNIX_EPOCH + EPOCH),
            position: Position::Sequence(plan.index as u64 + 1),
            deliveries: delivery.deliveries,
            lease: self.scenario.kind.lease.map(std::time::Duration::from_nanos),
            record: delivery.record.clone(),
            letter: None,
        };
        let unexplained = received.unexplained();
        self.note(id, "received", String::new);
        self.expect_received(id, unexplained);
        self.step(member, lane, Input::Received(received));
    }
}
