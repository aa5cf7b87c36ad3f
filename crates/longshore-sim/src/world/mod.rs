//! The world of one seed: virtual time, members, calls in transit, and the model broker.

mod calls;
mod event;
mod faults;
mod hand_over;
mod member;
mod runs;
mod shell;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use longshore_core::Settlement;

use crate::broker::{Copy, Place, Return};
use crate::dice::Dice;
use crate::keep::Keep;
use crate::mutants::Mutant;
use crate::oracle::{Anomaly, Delivery, Facts};
use crate::scenario::{FAULTS_END_MS, MS, Scenario, Time};
use crate::seen::{Seen, Sight};
use crate::trace::Trace;
use crate::{Options, Outcome, shrink};

pub(crate) use calls::Call;
pub(crate) use event::{Answer, Event};
pub(crate) use member::Member;

use event::Timed;

pub(crate) const MAIN: usize = 0;
pub(crate) const SUSPECTS: usize = 1;
/// Virtual time by which every message must have ended. Two hundred of the longest leases fit in, one
/// after another; no history of this size has so many.
const END: Time = 900_000 * MS;
/// More events than any history of this size has: beyond it, something spins.
const MOST_EVENTS: u64 = 60_000;

/// What became of one message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Message {
    pub(crate) published: bool,
    pub(crate) copies: u32,
    pub(crate) acked: u32,
    pub(crate) dead: u32,
    pub(crate) failed: u32,
    /// Hand-overs that came to nothing: crashes, lost leases and connections.
    pub(crate) returns: u32,
    /// Handler runs that began.
    pub(crate) runs: u32,
    /// How many of them killed their process.
    pub(crate) kills: u32,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) dice: Dice,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) ends_only: bool,
    pub(crate) now: Time,
    queue: BinaryHeap<Reverse<Timed>>,
    seq: u64,
    steps: u64,
    pub(crate) messages: Vec<Message>,
    pub(crate) copies: Vec<Copy>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) members: Vec<Member>,
    calls: Vec<Call>,
    extensions: u64,
    epochs: u32,
    refusing_until: Time,
    /// Whose run ended in this step.
    pub(crate) just_ended: Option<usize>,
    /// All messages have ended, and the members are told to stop.
    closing: bool,
    pub(crate) seen: Seen,
    pub(crate) trace: Trace,
    pub(crate) anomaly: Option<Anomaly>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, options: &Options) -> Self {
        let seed = scenario.seed;
        let mut world = Self {
            dice: Dice { seed, calm: scenario.calm },
            mutant: options.mutant,
            ends_only: options.ends_only,
            now: 0,
            queue: BinaryHeap::new(),
            seq: 0,
            steps: 0,
            messages: Vec::new(),
            copies: Vec::new(),
            deliveries: Vec::new(),
            members: Vec::new(),
            calls: Vec::new(),
            extensions: 0,
            epochs: 0,
            refusing_until: 0,
            just_ended: None,
            closing: false,
            seen: Seen::default(),
            trace: Trace::new(seed, options.timeline),
            anomaly: None,
            scenario,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        let most = self.scenario.messages.iter().map(|plan| plan.index + 1).max().unwrap_or(0);
        self.messages = vec![Message::default(); most];
        for position in 0..self.scenario.messages.len() {
            let plan = &self.scenario.messages[position];
            let (at, message) = (plan.at, plan.index);
            self.push(at, Event::Publish { message });
        }
        for position in 0..self.scenario.faults.len() {
            if let Some(at) = faults::begins(&self.scenario.faults[position].1) {
                self.push(at * MS, Event::Fault { index: position });
            }
        }
        for member in 0..self.scenario.members {
            let fresh = self.member(member, 0);
            self.members.push(fresh);
        }
        if self.scenario.members > 1 {
            self.seen.see(Sight::SeveralMembers);
        }
        let kind = &self.scenario.kind;
        match kind.counts {
            crate::scenario::Counts::Exact => {}
            crate::scenario::Counts::Flag => self.seen.see(Sight::FlagOnly),
            crate::scenario::Counts::None => self.seen.see(Sight::NoCounts),
        }
        let scenario = &self.scenario;
        self.trace.note(0, None, "world", 0, || {
            format!(
                ": {kind:?}, {}, {} members, prefetch {}, concurrency {}, faults {:?}",
                scenario.policy.summary(),
                scenario.members,
                scenario.prefetch,
                scenario.concurrency,
                scenario.faults
            )
        });
    }

    /// To the end, or to the first anomaly.
    pub(crate) fn run(&mut self) {
        let mut events = 0;
        while let Some(Reverse(Timed { at, event, .. })) = self.queue.pop() {
            self.now = at;
            events += 1;
            if events > MOST_EVENTS {
                self.fail("endless", None, || format!("{MOST_EVENTS} events"));
            }
            if self.now > END {
                break;
            }
            if let Some(until) = self.paused(&event) {
                self.push(until, event);
                continue;
            }
            self.play(event);
            self.hand_over_all();
            self.close_drained();
            if self.anomaly.is_some() {
                return;
            }
            if !self.closing && self.all_ended() {
                self.closing = true;
                (0..self.members.len()).for_each(|member| self.drain(member));
                self.close_drained();
            }
        }
        self.judge_end();
    }

    fn all_ended(&self) -> bool {
        self.now > FAULTS_END_MS * MS / 2
            && self.scenario.messages.iter().all(|plan| self.messages[plan.index].published)
            && !self.copies.iter().any(Copy::is_live)
            && self.members.iter().all(|member| member.is_calm(self.now) && member.is_idle())
    }

    pub(crate) fn push(&mut self, at: Time, event: Event) {
        self.seq += 1;
        // What was due already happens now: time does not go back.
        let at = at.max(self.now);
        self.queue.push(Reverse(Timed { at, seq: self.seq, event }));
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Publish { message } => self.publish(message),
            Event::Arrive { delivery } => self.arrive(delivery),
            Event::Expire { delivery } => self.expire(delivery),
            Event::Due { copy } => self.due(copy),
            Event::Begin { delivery, run } => self.begin(delivery, run),
            Event::End { delivery, run, cancelled } => self.end(delivery, run, cancelled),
            Event::Step { call } => self.step_call(call),
            Event::Answer { call, answer } => self.answer(call, answer),
            Event::Extend { delivery } => self.extend(delivery),
            Event::ExtendAnswer { delivery, answer } => self.extend_answer(delivery, answer),
            Event::Tick { member, inc, lane } => self.tick(member, inc, lane),
            Event::Fault { index } => self.strike(index),
            Event::Up { member, inc } => self.start_member(member, inc),
            Event::Revoking { member, inc, epoch } => self.revoking(member, inc, epoch),
            Event::Revoked { member, inc, epoch } => self.revoked(member, inc, epoch),
            Event::Lost { member, inc, lane, epoch } => self.lost(member, inc, lane, epoch),
            Event::Abort { member, inc } => self.abort(member, inc),
            Event::Close { member, inc } => self.close_at_last(member, inc),
            Event::Die { member, inc } => {
                if self.is_on(member, inc) {
                    self.crash(member, None);
                }
            }
        }
    }

    fn publish(&mut self, message: usize) {
        let Some(plan) = self.scenario.messages.iter().find(|plan| plan.index == message) else {
            return;
        };
        let record = plan.record();
        let facts = Facts {
            failures: if plan.forged { self.scenario.policy.max_attempts() } else { 0 },
            redrives: plan.redrives,
            ..Facts::default()
        };
        self.trace.note(self.now, Some(message), "published", 0, || format!(" {plan:?}"));
        self.messages[message].published = true;
        self.messages[message].copies = 1;
        self.copies.push(Copy {
            message,
            place: Place::Ready { lane: MAIN },
            record,
            count: 0,
            facts,
            noted: None,
            release_noted: false,
        });
    }

    fn expire(&mut self, delivery: usize) {
        let copy = self.deliveries[delivery].copy;
        let Place::InFlight { delivery: holder, expires: Some(at), .. } = self.copies[copy].place
        else {
            return;
        };
        if holder != delivery {
            return;
        }
        if at > self.now {
            return self.push(at, Event::Expire { delivery });
        }
        self.note(delivery, "lease ran out", String::new);
        self.seen.see(Sight::LeaseExpired);
        self.judge_expired(delivery);
        self.give_back(copy, Return::Unexplained);
    }

    pub(crate) fn note(
        &mut self,
        delivery: usize,
        what: &'static str,
        text: impl FnOnce() -> String,
    ) {
        let held = &self.deliveries[delivery];
        let (message, member, lane) = (held.message, held.member, held.lane);
        self.trace.note(self.now, Some(message), what, delivery as u64, || {
            let lane = if lane == MAIN { "" } else { " suspects" };
            format!("{} (d{delivery}, member {member}{lane})", text())
        });
    }

    pub(crate) fn id_of(message: usize) -> String {
        format!("message-{message}")
    }

    pub(crate) fn outcome(mut self) -> Outcome {
        let about = self.anomaly.as_ref().and_then(|anomaly| anomaly.message);
        Outcome {
            hash: self.trace.hash,
            steps: self.steps,
            seen: self.seen,
            timeline: self.trace.by_message(about),
            anomaly: self.anomaly,
        }
    }
}

/// How large a scenario is: what a smaller one is measured by.
pub(crate) fn sizes(seed: u64, keep: &Keep) -> shrink::Sizes {
    let scenario = Scenario::of(seed, keep);
    shrink::Sizes {
        faults: scenario.faults.iter().map(|(index, _)| *index).collect(),
        messages: scenario.messages.iter().map(|plan| plan.index).collect(),
        members: scenario.members,
    }
}

/// What a settlement is, in a timeline.
pub(crate) fn text_of(settlement: &Settlement) -> String {
    match settlement {
        Settlement::Ack(_) => "ack".to_owned(),
        Settlement::Release { record, .. } => format!("release, record: {}", record.is_some()),
        Settlement::Retry { after, record, .. } => {
            format!("retry after {after:?}, {} failures", record.failures)
        }
        Settlement::Suspect { .. } => "suspect".to_owned(),
        Settlement::DeadLetter { letter, .. } => format!("dead letter: {}", letter.reason),
        Settlement::Redrive { .. } => "redrive".to_owned(),
    }
}
