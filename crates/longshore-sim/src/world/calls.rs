//! Settlements and extensions on their way: each durable step at a time of its own, and a fault
//! between any two.

use longshore_core::{Error, ErrorKind, Result, Settlement};

use super::{Answer, Event, World};
use crate::broker::{Place, Step, steps};
use crate::dice::For;
use crate::engine::Input;
use crate::scenario::{Bad, Fault, MS, Time, Way};
use crate::seen::Sight;

/// How long a backend waits for an answer that does not come.
const PATIENCE: Time = 200 * MS;

/// One settlement on its way.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(super) delivery: usize,
    settlement: Settlement,
    steps: Vec<Step>,
    /// How many steps are done.
    done: u8,
    bad: Option<Bad>,
    /// It was answered before the broker had it.
    quiet: bool,
    over: bool,
}

impl World {
    pub(super) fn call(&mut self, id: usize, settlement: Settlement) {
        let nth = self.calls.len() as u64;
        let bad = self.bad(|fault| match fault {
            Fault::Settle { nth: which, what } if *which == nth => Some(*what),
            _ => None,
        });
        let kind = &self.scenario.kind;
        let delivery = &self.deliveries[id];
        let mut steps = steps(kind, &settlement).to_vec();
        // What an earlier try wrote, the backend remembers.
        steps.retain(|step| match step {
            Step::Copy => !delivery.copied,
            Step::Record => !delivery.recorded,
            Step::Settle => true,
        });
        if self.settles_first() && steps.contains(&Step::Copy) {
            steps.reverse();
        }
        let call = self.calls.len();
        let mut time = self.dice.within(For::Request, nth, 0, 2..=15) * MS;
        if let Some(Bad::Slow(ms)) = bad {
            time += ms * MS;
        }
        let (done, quiet, over) = (0, false, false);
        self.calls.push(Call { delivery: id, settlement, steps, done, bad, quiet, over });
        self.confirm_early(call);
        self.after(time, Event::Step { call });
    }

    /// Where settlements are not confirmed, the last step is answered when it is sent.
    fn confirm_early(&mut self, call: usize) {
        let order = &mut self.calls[call];
        let last = usize::from(order.done) + 1 == order.steps.len();
        let delivery = &self.deliveries[order.delivery];
        let simple = matches!(
            order.settlement,
            Settlement::Ack(_) | Settlement::Release { record: None, .. }
        );
        // What is written of a message is always confirmed, whatever settles the original.
        let written = simple || delivery.copied || delivery.recorded;
        if written && last && !self.scenario.kind.settle_confirmed && !order.quiet {
            order.quiet = true;
            self.after(0, Event::Answer { call, answer: Answer::Ok });
        }
    }

    pub(super) fn step_call(&mut self, call: usize) {
        let order = &self.calls[call];
        let (id, done, bad, quiet) = (order.delivery, order.done, order.bad, order.quiet);
        let delivery = &self.deliveries[id];
        let (member, inc, lane) = (delivery.member, delivery.inc, delivery.lane);
        if order.over || !self.is_on(member, inc) {
            return;
        }
        let connection = self.scenario.kind.lease.is_none();
        if let Some(Bad::Crash(after)) = bad
            && (after == done || usize::from(done) == order.steps.len())
        {
            self.crashed_in(call);
            return self.crash(member, None);
        }
        if let Some(Bad::Disconnect(after)) = bad
            && after == done
        {
            if done > 0 {
                self.seen.see(Sight::DisconnectedInMove);
            }
            self.calls[call].bad = None;
            self.disconnect(member, 50 * MS);
        }
        if usize::from(done) == self.calls[call].steps.len() {
            return self.after(0, Event::Answer { call, answer: Answer::Ok });
        }
        let dead = self.deliveries[id].epoch != self.members[member].lanes[lane].epoch;
        if dead || self.now < self.members[member].link_down_until {
            if quiet {
                self.seen.see(Sight::SettleUnconfirmedLost);
            }
            let gone = dead && (connection || self.deliveries[id].lost);
            return self.give_up(call, if gone { Answer::LeaseLost } else { Answer::Unavailable });
        }
        match bad {
            Some(Bad::Lost) if done == 0 && !quiet => {
                self.seen.see(Sight::SettleLost);
                return self.give_up(call, Answer::Unavailable);
            }
            Some(Bad::Refused) if done == 0 && !quiet => {
                self.seen.see(Sight::SettleRefused);
                return self.give_up(call, Answer::Unavailable);
            }
            _ => {}
        }
        let step = self.calls[call].steps[usize::from(done)];
        if self.refuses(call, step) {
            self.seen.see(Sight::CopyRefused);
            return self.give_up(call, Answer::Unavailable);
        }
        let settlement = self.calls[call].settlement.clone();
        if !self.execute(id, &settlement, step) {
            self.note(id, "fenced", String::new);
            return self.give_up(call, Answer::LeaseLost);
        }
        self.note(id, "done", || format!(": {step:?}"));
        if step == Step::Settle && self.members[member].lanes[lane].revoking {
            self.seen.see(Sight::SettledInGrace);
        }
        self.calls[call].done += 1;
        self.go_on(call, bad);
    }

    fn go_on(&mut self, call: usize, bad: Option<Bad>) {
        let order = &self.calls[call];
        let time = self.dice.within(For::Answer, call as u64, order.done.into(), 1..=10) * MS;
        if usize::from(order.done) < order.steps.len() {
            self.after(time, Event::Step { call });
            self.confirm_early(call);
        } else if order.quiet {
            self.calls[call].over = true;
        } else if bad == Some(Bad::ReplyLost) {
            self.seen.see(Sight::SettleReplyLost);
            self.give_up(call, Answer::Unavailable);
        } else {
            if self.calls.iter().take(call).any(|other| !other.over) {
                self.seen.see(Sight::AnswersReordered);
            }
            // One more step: the way back, on which a process can die too.
            self.after(time, Event::Step { call });
        }
    }

    /// Ends a call that did not get through.
    fn give_up(&mut self, call: usize, answer: Answer) {
        let order = &mut self.calls[call];
        if order.quiet {
            order.over = true;
            return;
        }
        let wait = if answer == Answer::LeaseLost { MS } else { PATIENCE };
        self.after(wait, Event::Answer { call, answer });
    }

    /// Whether a step is one that a broker out of room refuses.
    fn refuses(&self, call: usize, step: Step) -> bool {
        let order = &self.calls[call];
        let grows = match &order.settlement {
            Settlement::Retry { .. } => self.scenario.kind.retry != Way::Ledger,
            Settlement::Suspect { .. } | Settlement::DeadLetter { .. } => true,
            _ => false,
        };
        let writes = step != Step::Settle || order.steps.len() == 1 && !self.was_copied(order);
        self.now < self.refusing_until && grows && writes
    }

    fn was_copied(&self, order: &Call) -> bool {
        self.deliveries[order.delivery].copied
    }

    fn crashed_in(&mut self, call: usize) {
        let order = &self.calls[call];
        let last = order.done.checked_sub(1).map(|at| order.steps[usize::from(at)]);
        let sight = match last {
            None => Sight::CrashBeforeSettle,
            Some(Step::Copy) => Sight::CrashAfterCopy,
            Some(Step::Record) => Sight::CrashAfterRecord,
            Some(Step::Settle) => Sight::CrashBeforeAnswer,
        };
        if last == Some(Step::Copy) {
            self.seen.see(Sight::ExtraCopy);
        }
        self.seen.see(sight);
    }

    pub(super) fn answer(&mut self, call: usize, answer: Answer) {
        let order = &self.calls[call];
        let (id, quiet) = (order.delivery, order.quiet);
        let settlement = order.settlement.clone();
        let delivery = &self.deliveries[id];
        let (member, inc, lane) = (delivery.member, delivery.inc, delivery.lane);
        let Some(key) = delivery.key.filter(|_| self.is_on(member, inc)) else { return };
        if !quiet && std::mem::replace(&mut self.calls[call].over, true) {
            return;
        }
        self.note(id, "answered", || format!(": {answer:?}"));
        let result = result(answer);
        self.expect_settled(id, &result);
        self.step(member, lane, Input::Settled { key, settlement, result });
    }

    /// A consumer that closes writes what it was asked to.
    pub(super) fn flush(&mut self, member: usize, inc: u32) {
        for call in 0..self.calls.len() {
            let order = &self.calls[call];
            let delivery = &self.deliveries[order.delivery];
            let mine = delivery.member == member && delivery.inc == inc;
            if mine
                && order.quiet
                && !order.over
                && self.now >= self.members[member].link_down_until
            {
                let (id, settlement) = (order.delivery, order.settlement.clone());
                self.calls[call].over = true;
                self.execute(id, &settlement, Step::Settle);
            }
        }
    }

    pub(super) fn call_extend(&mut self, id: usize) {
        let nth = self.extensions;
        self.extensions += 1;
        let bad = self.bad(|fault| match fault {
            Fault::Extend { nth: which, what } if *which == nth => Some(*what),
            _ => None,
        });
        if bad.is_some() {
            self.seen.see(Sight::ExtendLost);
            self.deliveries[id].disturbed = true;
            let answer = Answer::Unavailable;
            return self.after(PATIENCE, Event::ExtendAnswer { delivery: id, answer });
        }
        let time = self.dice.within(For::Request, nth, 1, 2..=15) * MS;
        self.after(time, Event::Extend { delivery: id });
    }

    pub(super) fn extend(&mut self, id: usize) {
        let delivery = &self.deliveries[id];
        let (member, inc) = (delivery.member, delivery.inc);
        if !self.is_on(member, inc) {
            return;
        }
        let now = self.now;
        let copy = &mut self.copies[delivery.copy];
        let answer = if now < self.members[member].link_down_until {
            Answer::Unavailable
        } else if copy.is_held_by(id) {
            if let (Place::InFlight { expires, .. }, Some(lease)) =
                (&mut copy.place, self.scenario.kind.lease)
            {
                *expires = Some(now + lease);
            }
            Answer::Ok
        } else {
            self.seen.see(Sight::ExtendFenced);
            Answer::LeaseLost
        };
        let time = self.dice.within(For::Answer, id as u64, now, 1..=10) * MS;
        self.after(time, Event::ExtendAnswer { delivery: id, answer });
    }

    pub(super) fn extend_answer(&mut self, id: usize, answer: Answer) {
        let delivery = &self.deliveries[id];
        let (member, inc, lane) = (delivery.member, delivery.inc, delivery.lane);
        let Some(key) = delivery.key.filter(|_| self.is_on(member, inc)) else { return };
        self.note(id, "extended", || format!(": {answer:?}"));
        if delivery_live(self, id) {
            match answer {
                Answer::Ok => self.deliveries[id].leased_at = self.now,
                Answer::LeaseLost => self.expect_lost(id),
                Answer::Unavailable => {}
            }
        }
        self.step(member, lane, Input::Extended { key, result: result(answer) });
    }
}

fn delivery_live(world: &World, id: usize) -> bool {
    world.deliveries[id].is_live()
}

fn result(answer: Answer) -> Result<()> {
    match answer {
        Answer::Ok => Ok(()),
        Answer::LeaseLost => Err(Error::lease_lost()),
        Answer::Unavailable => Err(Error::new(ErrorKind::Unavailable, "no answer")),
    }
}
