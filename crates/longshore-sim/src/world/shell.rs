//! What the worker does around an engine: steps it, executes what it orders, keeps its time.

use std::time::{Duration, UNIX_EPOCH};

use longshore_core::Failure;

use super::member::EPOCH;
use super::{Event, World};
use crate::broker::nanos;
use crate::dice::For;
use crate::engine::{Action, Ended, Input, Key, Now};
use crate::oracle::{Phase, Why};
use crate::scenario::{MS, Time};
use crate::seen::Sight;

/// Seconds of an hour, of which a skewed clock is off one.
const HOUR: Duration = Duration::from_secs(3600);

impl World {
    /// Gives an engine one input, and judges and executes what comes out.
    pub(super) fn step(&mut self, member: usize, lane: usize, input: Input) {
        let mut unstarted = self.feed(member, lane, input);
        // A run that was cancelled before a shard took it ends in the same step.
        while let Some(key) = unstarted.pop() {
            if let Some(id) = self.by_key(member, lane, key) {
                self.seen.see(Sight::CancelledUnstarted);
                self.expect_ended(id, None, false);
            }
            unstarted.extend(self.feed(
                member,
                lane,
                Input::Ended { key, ended: Ended::Cancelled },
            ));
        }
        self.schedule(member, lane);
    }

    fn feed(&mut self, member: usize, lane: usize, mut input: Input) -> Vec<Key> {
        self.steps += 1;
        let now = self.clock(member);
        let mut actions = Vec::new();
        let swallowed = self.mutant.is_some_and(|mutant| !mutant.input(&mut input));
        if !swallowed {
            self.members[member].lanes[lane].engine.step(now, input, &mut actions);
        }
        if let Some(mutant) = self.mutant {
            mutant.actions(&mut actions);
        }
        let mut unstarted = Vec::new();
        for action in actions {
            self.act(member, lane, action, &mut unstarted);
        }
        if unstarted.is_empty() {
            self.judge_step(member, lane);
        }
        unstarted
    }

    fn clock(&self, member: usize) -> Now {
        let mono = Duration::from_nanos(self.now);
        let middle = UNIX_EPOCH + EPOCH + mono;
        let wall = match self.members[member].skew {
            0 => middle,
            1 => middle + HOUR,
            _ => middle - HOUR,
        };
        Now { mono, wall }
    }

    /// Executes one action. What an operator hears of changes nothing here.
    fn act(&mut self, member: usize, lane: usize, action: Action, unstarted: &mut Vec<Key>) {
        match action {
            Action::Start(start) => {
                let Some(id) = self.judge_start(member, lane, &start) else { return };
                let run = self.deliveries[id].run;
                self.note(id, "start", || format!(", attempt {}", start.attempt));
                let wait = self.dice.within(For::Shard, id as u64, run.into(), 0..=3) * MS;
                self.push(self.now + wait, Event::Begin { delivery: id, run });
            }
            Action::Cancel { key } => {
                let Some(id) = self.judge_cancel(member, lane, key) else { return };
                self.note(id, "cancel", String::new);
                match self.deliveries[id].phase {
                    Phase::Running { begun: None, .. } => unstarted.push(key),
                    _ => {
                        let run = self.deliveries[id].run;
                        let wait = self.dice.within(For::Shard, id as u64, 99, 0..=2) * MS;
                        let end = Event::End { delivery: id, run, cancelled: true };
                        self.push(self.now + wait, end);
                    }
                }
            }
            Action::Settle { key, settlement } => {
                if let Some(id) = self.judge_settle(member, lane, key, &settlement) {
                    self.note(id, "settle", || format!(": {}", super::text_of(&settlement)));
                    self.call(id, settlement);
                }
            }
            Action::Extend { key, token, by } => {
                let by = nanos(by);
                if let Some(id) = self.judge_extend(member, lane, key, token, by) {
                    self.call_extend(id);
                }
            }
            Action::Alarm(_) => {}
        }
    }

    /// Sets the lane's timer by the engine's wish. Timers are late by up to a millisecond.
    fn schedule(&mut self, member: usize, lane: usize) {
        let Some(wake) = self.members[member].lanes[lane].engine.next_wake() else { return };
        let wake = nanos(wake).max(self.now);
        let late = self.dice.within(For::Timer, wake, member as u64, 0..=MS);
        let place = &mut self.members[member].lanes[lane];
        let at = wake + late;
        if place.wake.is_some_and(|set| set <= at) {
            return;
        }
        place.wake = Some(at);
        let inc = self.members[member].inc;
        self.push(at, Event::Tick { member, inc, lane });
    }

    pub(super) fn tick(&mut self, member: usize, inc: u32, lane: usize) {
        if !self.is_on(member, inc) {
            return;
        }
        // An earlier one was set since; this one is spare.
        if self.members[member].lanes[lane].wake.is_none_or(|set| set > self.now) {
            return;
        }
        self.members[member].lanes[lane].wake = None;
        self.tick_lane(member, lane);
    }

    pub(super) fn tick_lane(&mut self, member: usize, lane: usize) {
        for id in self.members[member].lanes[lane].live.clone() {
            self.expect_ticked(id);
        }
        self.step(member, lane, Input::Tick);
        let wake = self.members[member].lanes[lane].engine.next_wake();
        if wake.is_some_and(|wake| nanos(wake) <= self.now) {
            self.fail("hot-loop", None, || "a tick asks for another at once".to_owned());
        }
    }

    /// Ends a run for the engine.
    pub(super) fn ended(&mut self, id: usize, ended: Ended) {
        let delivery = &self.deliveries[id];
        let (member, lane, key) = (delivery.member, delivery.lane, delivery.key);
        if let Some(key) = key {
            self.step(member, lane, Input::Ended { key, ended });
        }
    }

    /// Why a run was cancelled, where it was.
    pub(super) fn cancelled_why(&self, id: usize) -> Option<Why> {
        match self.deliveries[id].phase {
            Phase::Running { why, .. } => why,
            _ => None,
        }
    }

    pub(super) fn failed(&mut self, id: usize, failure: Failure) {
        self.ended(id, Ended::Failed(failure));
    }

    pub(crate) fn settles_first(&self) -> bool {
        self.mutant.is_some_and(|mutant| mutant.settles_first())
    }

    pub(super) fn after(&mut self, time: Time, event: Event) {
        self.push(self.now + time, event);
    }
}
