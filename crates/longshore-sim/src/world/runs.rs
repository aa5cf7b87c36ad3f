//! Handlers: pure functions of the seed, the message and the attempt.

use super::{Event, World};
use crate::dice::For;
use crate::engine::{Ended, Input};
use crate::oracle::{Failed, Phase, failure};
use crate::scenario::{End, MS};

impl World {
    /// A shard takes a run.
    pub(super) fn begin(&mut self, id: usize, run: u32) {
        let delivery = &self.deliveries[id];
        let (member, inc, lane) = (delivery.member, delivery.inc, delivery.lane);
        let waits = matches!(delivery.phase, Phase::Running { begun: None, why: None });
        let (Some(key), true) = (delivery.key, waits && delivery.run == run) else { return };
        if !self.is_on(member, inc) {
            return;
        }
        let message = delivery.message;
        self.messages[message].runs += 1;
        self.deliveries[id].phase = Phase::Running { begun: Some(self.now), why: None };
        self.step(member, lane, Input::Begun { key });
        let time = self.dice.within(For::Run, id as u64, run.into(), 1..=120) * MS;
        if self.end_of(id) != End::Hang {
            self.after(time, Event::End { delivery: id, run, cancelled: false });
        }
    }

    /// How the run that is on ends by itself.
    fn end_of(&self, id: usize) -> End {
        let delivery = &self.deliveries[id];
        let plan = self.scenario.messages.iter().find(|plan| plan.index == delivery.message);
        let index = (delivery.attempt() as usize).saturating_sub(1);
        plan.and_then(|plan| plan.ends.get(index)).copied().unwrap_or(End::Ok)
    }

    fn kills(&self, id: usize) -> bool {
        let message = self.deliveries[id].message;
        let plan = self.scenario.messages.iter().find(|plan| plan.index == message);
        plan.is_some_and(|plan| self.messages[message].runs <= plan.aborts)
    }

    pub(super) fn end(&mut self, id: usize, run: u32, cancelled: bool) {
        let delivery = &self.deliveries[id];
        let (member, inc) = (delivery.member, delivery.inc);
        let on = matches!(delivery.phase, Phase::Running { begun: Some(_), .. });
        if !on || delivery.run != run || !self.is_on(member, inc) {
            return;
        }
        if self.kills(id) && !cancelled {
            self.note(id, "the handler kills its process", String::new);
            let message = self.deliveries[id].message;
            self.messages[message].kills += 1;
            return self.crash(member, None);
        }
        let end = if cancelled { self.cancelled_end(id) } else { Some(self.end_of(id)) };
        self.note(id, "ended", || format!(": {end:?}"));
        match end {
            None => {
                self.expect_ended(id, None, false);
                self.ended(id, Ended::Cancelled);
            }
            Some(end) => match failure(end) {
                None => {
                    self.expect_ended(id, None, true);
                    self.ended(id, Ended::Ok);
                }
                Some(failure) => {
                    self.expect_ended(id, Some(Failed::End(end)), false);
                    self.failed(id, failure);
                }
            },
        }
    }

    /// A handler that watches its context may end in its own way.
    fn cancelled_end(&self, id: usize) -> Option<End> {
        let why = self.cancelled_why(id).map_or(0, |why| why as u64);
        match self.dice.roll(For::CancelledEnd, id as u64, why) % 10 {
            0 | 1 => Some(End::Ok),
            2 => Some(End::Fail),
            _ => None,
        }
    }
}
