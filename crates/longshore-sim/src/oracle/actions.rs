//! Whether an action is what the contract asks for, and whether all that it asks for came.

use longshore_core::{AckToken, Settlement};

use super::{Expect, Phase, Why};
use crate::broker::nanos;
use crate::engine::{Key, Start};
use crate::scenario::Time;
use crate::seen::Sight;
use crate::world::World;

impl World {
    /// The delivery of a token, where it is one of this lane's that the engine still has.
    fn known(&mut self, member: usize, lane: usize, token: AckToken) -> Option<usize> {
        let live = &self.members[member].lanes[lane].live;
        let id = usize::try_from(token.seq).ok().filter(|id| live.contains(id));
        let id = id.filter(|id| self.deliveries[*id].is_live());
        if id.is_none() {
            let text = || format!("an action names delivery {}, which is over", token.seq);
            self.fail("foreign-token", None, text);
        }
        id
    }

    /// Names the delivery by its key from now on.
    fn name(&mut self, member: usize, lane: usize, key: Key, id: usize) {
        let other = self.by_key(member, lane, key).filter(|other| *other != id);
        let old = self.deliveries[id].key.replace(key);
        if other.is_some() || old.is_some_and(|old| old != key) {
            self.fail("foreign-token", Some(id), || format!("{key:?} is not its key"));
        }
    }

    pub(crate) fn by_key(&self, member: usize, lane: usize, key: Key) -> Option<usize> {
        let live = self.members[member].lanes[lane].live.iter().copied();
        live.into_iter().find(|id| {
            let delivery = &self.deliveries[*id];
            delivery.key == Some(key) && delivery.is_live()
        })
    }

    /// A start; says which run it is.
    pub(crate) fn judge_start(
        &mut self,
        member: usize,
        lane: usize,
        start: &Start,
    ) -> Option<usize> {
        let id = self.known(member, lane, start.received.token)?;
        self.name(member, lane, start.key, id);
        let now = self.now;
        let draining = self.members[member].draining();
        // Those whose lease is over by its own clock, the engine may have dropped in this step.
        let waits = |id: usize| {
            let delivery = &self.deliveries[id];
            let buffered = delivery.phase == Phase::Buffered && delivery.expect.is_none();
            buffered && !self.lease_over(id)
        };
        let live = self.members[member].lanes[lane].live.iter().copied();
        let overtakes = live.take_while(|other| *other != id).any(waits);
        let delivery = &self.deliveries[id];
        let wrong = match &delivery.phase {
            _ if delivery.expect.is_some() => Some("started-not-settled"),
            Phase::Buffered if draining => Some("started-draining"),
            Phase::Buffered if overtakes => Some("out-of-order"),
            Phase::Pausing { from, .. } if now < *from => Some("early-retry"),
            Phase::Buffered | Phase::Pausing { .. } if now < delivery.facts.not_before => {
                Some("early-retry")
            }
            Phase::Buffered | Phase::Pausing { .. } => None,
            _ => Some("started-twice"),
        };
        let (attempt, wanted) = (start.attempt, delivery.attempt());
        if let Some(name) = wrong {
            self.fail(name, Some(id), || format!("attempt {attempt} was started"));
        }
        if attempt != wanted {
            self.fail("count-drift", Some(id), || format!("attempt {attempt}, should be {wanted}"));
        }
        let delivery = &mut self.deliveries[id];
        delivery.phase = Phase::Running { begun: None, why: None };
        delivery.run += 1;
        Some(id)
    }

    pub(crate) fn judge_settle(
        &mut self,
        member: usize,
        lane: usize,
        key: Key,
        settlement: &Settlement,
    ) -> Option<usize> {
        let id = self.known(member, lane, settlement.token())?;
        self.name(member, lane, key, id);
        let now = self.now;
        let delivery = &self.deliveries[id];
        let tries = match &delivery.phase {
            Phase::Stalled { order, until, tries } => {
                let tries = *tries;
                if **order != *settlement {
                    let text = || "another order than the one that failed".to_owned();
                    self.fail("wrong-settlement", Some(id), text);
                } else if now < *until {
                    self.fail("hot-loop", Some(id), || "a settlement without its back-off".into());
                }
                tries
            }
            Phase::Settling { .. } => {
                self.fail("settled-twice", Some(id), || format!("{settlement:?}"));
                0
            }
            _ => {
                match delivery.expect {
                    Some(expect) => self.judge_order(id, expect, settlement),
                    None => self.fail("settled-unasked", Some(id), || format!("{settlement:?}")),
                }
                0
            }
        };
        let delivery = &mut self.deliveries[id];
        delivery.expect = None;
        delivery.phase = Phase::Settling { order: Box::new(settlement.clone()), tries };
        Some(id)
    }

    pub(crate) fn judge_cancel(&mut self, member: usize, lane: usize, key: Key) -> Option<usize> {
        let Some(id) = self.by_key(member, lane, key) else {
            self.fail("foreign-token", None, || format!("a cancellation of {key:?}"));
            return None;
        };
        let limit = nanos(self.scenario.policy.handler_timeout());
        let now = self.now;
        let own_clock = self.own_clock_over(id);
        let delivery = &mut self.deliveries[id];
        let wrong = match &mut delivery.phase {
            Phase::Running { .. } if delivery.must_cancel => None,
            Phase::Running { begun: Some(begun), why }
                if why.is_none() && now >= *begun + limit =>
            {
                *why = Some(Why::TimedOut);
                None
            }
            Phase::Running { why, .. } if why.is_none() && own_clock => {
                *why = Some(Why::Lost);
                self.seen.see(Sight::OwnClockLost);
                None
            }
            Phase::Running { .. } => Some("no reason to cancel"),
            _ => Some("it does not run"),
        };
        self.deliveries[id].must_cancel = false;
        if let Some(text) = wrong {
            self.fail("cancelled-unasked", Some(id), || text.to_owned());
        }
        Some(id)
    }

    pub(crate) fn judge_extend(
        &mut self,
        member: usize,
        lane: usize,
        key: Key,
        token: AckToken,
        by: Time,
    ) -> Option<usize> {
        let id = self.known(member, lane, token)?;
        self.name(member, lane, key, id);
        if Some(by) != self.scenario.kind.lease {
            self.fail("lease-forgotten", Some(id), || format!("extended by {by} ns"));
        } else if self.deliveries[id].lost {
            self.fail("settled-lost", Some(id), || "a lost lease was extended".to_owned());
        }
        Some(id)
    }

    /// After a step: nothing is owed, and the engine holds what it must hold.
    pub(crate) fn judge_step(&mut self, member: usize, lane: usize) {
        let live = self.members[member].lanes[lane].live.clone();
        for &id in &live {
            let delivery = &self.deliveries[id];
            if let Some(expect) = delivery.expect {
                // What its own clock holds for lost, the engine must not settle.
                if self.own_clock_over(id) {
                    self.own_loss(id);
                } else {
                    self.fail("order-missing", Some(id), || format!("should be {expect:?}"));
                }
            } else if delivery.must_cancel {
                self.fail("not-cancelled", Some(id), || "its run goes on".to_owned());
            }
        }
        self.members[member].lanes[lane].live.retain(|id| self.deliveries[*id].is_live());
        let engine_holds = self.members[member].lanes[lane].engine.held();
        let live = self.members[member].lanes[lane].live.clone();
        let mut surplus = live.len().saturating_sub(engine_holds);
        // A run whose lease was over by its own clock may be forgotten at its end; others only all
        // at once, when the leases are looked at.
        let ended = self.just_ended.take();
        for id in ended.into_iter().chain(live) {
            let passive = matches!(
                self.deliveries[id].phase,
                Phase::Buffered | Phase::Pausing { .. } | Phase::Stalled { .. }
            );
            let over =
                if ended == Some(id) { self.own_clock_over(id) } else { self.lease_over(id) };
            if surplus > 0 && passive && over {
                self.own_loss(id);
                surplus -= 1;
            }
        }
        self.members[member].lanes[lane].live.retain(|id| self.deliveries[*id].is_live());
        let live = &self.members[member].lanes[lane].live;
        let holds = live.len();
        let busy = live.iter().filter(|id| self.deliveries[**id].is_busy()).count();
        let waiting = live.iter().any(|id| self.deliveries[*id].phase == Phase::Buffered);
        let slots = self.concurrency(lane);
        if holds != engine_holds {
            let name = if engine_holds > holds { "leaked" } else { "forgotten" };
            self.fail(name, live.first().copied(), || {
                format!("the engine holds {engine_holds}, it should be {holds}")
            });
        } else if busy > slots {
            self.fail("over-concurrency", None, || format!("{busy} runs in {slots} slots"));
        } else if waiting && busy < slots && !self.members[member].draining() {
            self.fail("idle-slot", None, || format!("{busy} runs in {slots} slots"));
        }
    }

    fn own_loss(&mut self, id: usize) {
        self.seen.see(Sight::OwnClockLost);
        let delivery = &mut self.deliveries[id];
        delivery.expect = None;
        delivery.phase = Phase::Over;
    }

    /// A lease ran out at the broker: somebody must have been disturbed.
    pub(crate) fn judge_expired(&mut self, id: usize) {
        let delivery = &self.deliveries[id];
        let member = &self.members[delivery.member];
        let here = member.up && member.inc == delivery.inc;
        if here && delivery.is_live() && !delivery.disturbed && !delivery.lost {
            self.fail("lease-forgotten", Some(id), || {
                "the lease of a held delivery ran out".into()
            });
        }
    }
}

impl Expect {
    /// As a settlement is called.
    pub(crate) fn fits(self, settlement: &Settlement) -> bool {
        matches!(
            (self, settlement),
            (Self::Ack, Settlement::Ack(_))
                | (Self::Release, Settlement::Release { .. })
                | (Self::Retry { .. }, Settlement::Retry { .. })
                | (Self::Suspect, Settlement::Suspect { .. })
                | (Self::Dead(_), Settlement::DeadLetter { .. })
        )
    }
}
