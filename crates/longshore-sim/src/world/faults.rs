//! What goes wrong, and what the broker and the backend make of it.

use super::{Event, MAIN, World};
use crate::broker::Return;
use crate::dice::For;
use crate::engine::Input;
use crate::scenario::{Bad, Fault, MS, Time};
use crate::seen::Sight;

/// When a fault begins that has a time of its own, in milliseconds.
pub(super) fn begins(fault: &Fault) -> Option<u64> {
    match fault {
        Fault::Crash { at, .. }
        | Fault::Restart { at, .. }
        | Fault::Disconnect { at, .. }
        | Fault::Pause { at, .. }
        | Fault::Revoke { at, .. }
        | Fault::LoseLease { at, .. }
        | Fault::Refuse { at, .. } => Some(*at),
        Fault::Settle { .. } | Fault::Extend { .. } | Fault::HandOver { .. } => None,
    }
}

impl World {
    /// The first fault that `which` knows.
    pub(super) fn bad(&self, which: impl Fn(&Fault) -> Option<Bad>) -> Option<Bad> {
        self.scenario.faults.iter().find_map(|(_, fault)| which(fault))
    }

    pub(super) fn strike(&mut self, index: usize) {
        let fault = self.scenario.faults[index].1;
        self.trace.note(self.now, None, "fault", index as u64, || format!(": {fault:?}"));
        let here = |member: usize| member < self.scenario.members;
        match fault {
            Fault::Crash { member, down, .. } if here(member) => {
                self.crash(member, Some(down * MS));
            }
            Fault::Restart { member, down, .. } if here(member) => {
                self.members[member].down = Some(down * MS);
                self.drain(member);
            }
            Fault::Disconnect { member, down, .. } if here(member) => {
                self.disconnect(member, down * MS);
            }
            Fault::Pause { member, time, .. } if here(member) => {
                self.seen.see(Sight::Paused);
                let place = &mut self.members[member];
                place.paused_until = place.paused_until.max(self.now + time * MS);
                self.disturb(member);
            }
            Fault::Revoke { member, grace, .. } if here(member) => self.revoke(member, grace * MS),
            Fault::LoseLease { member, .. } if here(member) => {
                let of = |id: usize| self.deliveries[id].member == member;
                if let Some((copy, id)) = self.in_flight(of).first().copied() {
                    self.seen.see(Sight::LeaseTaken);
                    self.note(id, "lease taken", String::new);
                    self.give_back(copy, Return::Unexplained);
                }
            }
            Fault::Refuse { time, .. } => self.refusing_until = self.now + time * MS,
            _ => {}
        }
    }

    /// From here on, a lease of this member may run out without its fault.
    fn disturb(&mut self, member: usize) {
        for delivery in self.deliveries.iter_mut().filter(|held| held.member == member) {
            delivery.disturbed = true;
        }
    }

    /// A connection is lost, and made anew after `down`. Where it is the lease, all goes back.
    pub(super) fn disconnect(&mut self, member: usize, down: Time) {
        if !self.members[member].up {
            return;
        }
        self.seen.see(Sight::Disconnected);
        let text = || format!(": member {member}");
        self.trace.note(self.now, None, "disconnected", member as u64, text);
        self.members[member].link_down_until = self.now + down;
        self.disturb(member);
        if self.scenario.kind.lease.is_none() {
            for lane in 0..self.members[member].lanes.len() {
                self.lose_epoch(member, lane);
            }
        }
        // Nothing else may happen then, and what is ready must be handed over.
        let inc = self.members[member].inc;
        self.after(down, Event::Up { member, inc });
    }

    /// The deliveries of a lane's epoch go back, and the member hears of it.
    fn lose_epoch(&mut self, member: usize, lane: usize) {
        let place = &mut self.members[member];
        let inc = place.inc;
        let epoch = place.lanes[lane].epoch;
        for (copy, _) in self.in_flight(|id| self.deliveries[id].epoch == epoch) {
            self.give_back(copy, Return::Unexplained);
        }
        let fresh = self.next_epoch();
        let place = &mut self.members[member].lanes[lane];
        place.epoch = fresh;
        place.transit = 0;
        place.revoking = false;
        let wait = self.dice.within(For::Answer, epoch.into(), 1, 1..=20) * MS;
        self.after(wait, Event::Lost { member, inc, lane, epoch });
    }

    fn revoke(&mut self, member: usize, grace: Time) {
        if !self.members[member].up || self.members[member].lanes[MAIN].revoking {
            return;
        }
        self.seen.see(Sight::Revoked);
        let inc = self.members[member].inc;
        let place = &mut self.members[member].lanes[MAIN];
        place.revoking = true;
        let epoch = place.epoch;
        self.after(MS, Event::Revoking { member, inc, epoch });
        self.after(grace, Event::Revoked { member, inc, epoch });
    }

    pub(super) fn revoking(&mut self, member: usize, inc: u32, epoch: u32) {
        if !self.is_on(member, inc) {
            return;
        }
        for id in self.members[member].lanes[MAIN].live.clone() {
            if self.deliveries[id].epoch == epoch {
                self.expect_given_back(id, false);
            }
        }
        self.heard("revoking", member, epoch);
        self.step(member, MAIN, Input::Revoking { epoch });
    }

    pub(super) fn revoked(&mut self, member: usize, inc: u32, epoch: u32) {
        let place = &self.members[member];
        if self.is_on(member, inc) && place.lanes[MAIN].epoch == epoch {
            self.lose_epoch(member, MAIN);
        }
    }

    pub(super) fn lost(&mut self, member: usize, inc: u32, lane: usize, epoch: u32) {
        if !self.is_on(member, inc) {
            return;
        }
        for id in self.members[member].lanes[lane].live.clone() {
            if self.deliveries[id].epoch == epoch {
                self.expect_lost(id);
            }
        }
        self.heard("lost", member, epoch);
        self.step(member, lane, Input::Lost { epoch });
    }

    fn heard(&mut self, what: &'static str, member: usize, epoch: u32) {
        let text = || format!(": epoch {epoch} of member {member}");
        self.trace.note(self.now, None, what, epoch.into(), text);
    }
}
