//! Members: processes that start, drain, die and come back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longshore_core::{GroupName, InstanceId, SmolStr, TopicName};

use super::{Event, MAIN, SUSPECTS, World};
use crate::broker::{Return, nanos};
use crate::dice::For;
use crate::engine::{Book, Config, Engine, Facts, Input};
use crate::oracle::Phase;
use crate::scenario::{MS, Time};
use crate::seen::Sight;

/// How long the worker gives the last settlements of a drain.
const LAST_SETTLEMENTS: Time = 5_000 * MS;
/// The largest body that a handler is given here.
pub(super) const MAX_BODY: usize = 100;

/// One start of one process after another, on one place of the group.
#[derive(Debug)]
pub(crate) struct Member {
    /// Which start it is: events for an earlier one mean nothing.
    pub(crate) inc: u32,
    pub(crate) up: bool,
    pub(super) paused_until: Time,
    pub(super) link_down_until: Time,
    pub(super) drain: Drain,
    /// How long it stays down after a drain.
    pub(super) down: Option<Time>,
    /// How far its clock is ahead or behind, in hours.
    pub(super) skew: i64,
    pub(crate) lanes: Vec<Lane>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    Draining,
    Aborted,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) engine: Engine,
    pub(super) epoch: u32,
    /// A revocation was announced: nothing more is handed over.
    pub(super) revoking: bool,
    /// Hand-overs on their way.
    pub(super) transit: usize,
    /// Deliveries that the engine has, in the order in which they came.
    pub(crate) live: Vec<usize>,
    /// When the next tick is due.
    pub(super) wake: Option<Time>,
}

impl Member {
    pub(crate) fn draining(&self) -> bool {
        self.drain != Drain::No
    }

    /// Neither stands still nor is cut off.
    pub(super) fn is_calm(&self, now: Time) -> bool {
        now >= self.paused_until && now >= self.link_down_until
    }

    /// Holds nothing, and nothing is on its way to it.
    pub(super) fn is_idle(&self) -> bool {
        !self.up || self.lanes.iter().all(|lane| lane.live.is_empty() && lane.transit == 0)
    }

    pub(super) fn reads(&self, now: Time) -> bool {
        self.up && !self.draining() && now >= self.link_down_until
    }
}

/// What every worker of a simulation is called: random names would cost more than all else.
fn facts() -> Arc<Facts> {
    static FACTS: OnceLock<Arc<Facts>> = OnceLock::new();
    let make = || {
        Arc::new(Facts {
            topic: TopicName::new("orders").expect("a valid name"),
            group: GroupName::new("billing").expect("a valid name"),
            backend: "model",
            handler: SmolStr::new_static("bill"),
            instance: InstanceId::generate(),
            policy: SmolStr::new_static("sim"),
        })
    };
    FACTS.get_or_init(make).clone()
}

pub(super) fn topic() -> TopicName {
    facts().topic.clone()
}

impl World {
    pub(super) fn member(&mut self, member: usize, inc: u32) -> Member {
        let lanes = if self.scenario.kind.isolates() { 2 } else { 1 };
        let lanes = (0..lanes).map(|lane| self.lane(member, inc, lane)).collect();
        let skew = if self.scenario.skew { [0, 1, -1][member % 3] } else { 0 };
        Member {
            inc,
            up: true,
            paused_until: 0,
            link_down_until: 0,
            drain: Drain::No,
            down: None,
            skew,
            lanes,
        }
    }

    fn lane(&mut self, member: usize, inc: u32, lane: usize) -> Lane {
        let mut config = Config {
            policy: Arc::new(self.scenario.policy.clone()),
            book: Book(facts()),
            concurrency: self.concurrency(lane),
            max_body: MAX_BODY,
            suspects: lane == SUSPECTS,
            isolation: self.scenario.kind.isolates(),
            release_counted: self.scenario.kind.release_counted,
        };
        if let Some(mutant) = self.mutant {
            mutant.config(&mut config);
        }
        let which = (member * 2 + lane) as u64;
        let seed = self.dice.roll(For::Engine, which, inc.into());
        Lane {
            engine: Engine::new(config, seed),
            epoch: self.next_epoch(),
            revoking: false,
            transit: 0,
            live: Vec::new(),
            wake: None,
        }
    }

    pub(super) fn next_epoch(&mut self) -> u32 {
        self.epochs += 1;
        self.epochs
    }

    pub(crate) fn concurrency(&self, lane: usize) -> usize {
        if lane == MAIN { self.scenario.concurrency } else { 1 }
    }

    pub(super) fn is_on(&self, member: usize, inc: u32) -> bool {
        self.members[member].up && self.members[member].inc == inc
    }

    /// When an event of a member that stands still is to come instead.
    pub(super) fn paused(&self, event: &Event) -> Option<Time> {
        let member = match event {
            Event::Arrive { delivery }
            | Event::Begin { delivery, .. }
            | Event::End { delivery, .. }
            | Event::ExtendAnswer { delivery, .. } => self.deliveries[*delivery].member,
            Event::Answer { call, .. } => self.deliveries[self.calls[*call].delivery].member,
            Event::Tick { member, .. }
            | Event::Abort { member, .. }
            | Event::Close { member, .. }
            | Event::Revoking { member, .. }
            | Event::Lost { member, .. } => *member,
            _ => return None,
        };
        let until = self.members[member].paused_until;
        (until > self.now).then_some(until)
    }

    pub(super) fn start_member(&mut self, member: usize, inc: u32) {
        if self.members[member].inc != inc || self.members[member].up || self.closing {
            return;
        }
        self.trace.note(self.now, None, "up", member as u64, || format!(": member {member}"));
        self.members[member] = self.member(member, inc);
        self.seen.see(Sight::Restarted);
    }

    /// A process dies, and comes back after `down` or after a while.
    pub(super) fn crash(&mut self, member: usize, down: Option<Time>) {
        if !self.members[member].up {
            return;
        }
        self.trace.note(self.now, None, "crash", member as u64, || format!(": member {member}"));
        let inc = self.members[member].inc;
        let mut idle = true;
        for id in 0..self.deliveries.len() {
            let delivery = &self.deliveries[id];
            if delivery.member != member || delivery.inc != inc || !delivery.is_live() {
                continue;
            }
            idle = false;
            let seen = match &delivery.phase {
                Phase::Coming | Phase::Buffered => Some(Sight::CrashBuffered),
                Phase::Running { .. } => Some(Sight::CrashRunning),
                Phase::Pausing { .. } => Some(Sight::CrashPausing),
                Phase::Settling { .. } | Phase::Stalled { .. } => {
                    (!delivery.copied && !delivery.recorded).then_some(Sight::CrashBeforeSettle)
                }
                Phase::Over => None,
            };
            seen.into_iter().for_each(|sight| self.seen.see(sight));
            self.note(id, "died with its process", String::new);
            self.deliveries[id].phase = Phase::Over;
        }
        if idle {
            self.seen.see(Sight::CrashIdle);
        }
        // Where the connection is the lease, its end gives everything back.
        if self.scenario.kind.lease.is_none() {
            self.give_back_all(member, inc, Return::Unexplained);
        }
        let down = down.unwrap_or_else(|| {
            self.dice.within(For::Down, member as u64, inc.into(), 50..=500) * MS
        });
        self.take_down(member, down);
    }

    fn give_back_all(&mut self, member: usize, inc: u32, how: Return) {
        let of = |id: usize| self.deliveries[id].member == member && self.deliveries[id].inc == inc;
        for (copy, _) in self.in_flight(of) {
            let message = self.copies[copy].message;
            self.give_back(copy, how);
            // A consumer that closes gives back what was not settled: its failures are forgotten.
            self.messages[message].returns += u32::from(how == Return::Released);
        }
    }

    fn take_down(&mut self, member: usize, down: Time) {
        let place = &mut self.members[member];
        place.up = false;
        place.inc += 1;
        let inc = place.inc;
        self.push(self.now + down, Event::Up { member, inc });
    }

    /// Begins a graceful stop.
    pub(super) fn drain(&mut self, member: usize) {
        if !self.members[member].up || self.members[member].draining() {
            return;
        }
        self.trace.note(self.now, None, "drain", member as u64, || format!(": member {member}"));
        self.members[member].drain = Drain::Draining;
        let inc = self.members[member].inc;
        let budget = nanos(self.scenario.policy.drain());
        self.push(self.now + budget, Event::Abort { member, inc });
        for lane in 0..self.members[member].lanes.len() {
            for id in self.members[member].lanes[lane].live.clone() {
                self.expect_given_back(id, true);
            }
            self.step(member, lane, Input::Drain);
        }
    }

    pub(super) fn abort(&mut self, member: usize, inc: u32) {
        if !self.is_on(member, inc) {
            return;
        }
        self.trace.note(self.now, None, "abort", member as u64, || format!(": member {member}"));
        self.members[member].drain = Drain::Aborted;
        self.push(self.now + LAST_SETTLEMENTS, Event::Close { member, inc });
        for lane in 0..self.members[member].lanes.len() {
            // As the worker does: time first.
            self.tick_lane(member, lane);
            for id in self.members[member].lanes[lane].live.clone() {
                self.expect_aborted(id);
            }
            self.step(member, lane, Input::Abort);
        }
    }

    /// Closes whoever is drained and holds nothing.
    pub(super) fn close_drained(&mut self) {
        for member in 0..self.members.len() {
            let place = &self.members[member];
            if place.up
                && place.draining()
                && place.lanes.iter().all(|lane| lane.engine.held() == 0)
            {
                self.close(member);
            }
        }
    }

    pub(super) fn close_at_last(&mut self, member: usize, inc: u32) {
        if !self.is_on(member, inc) {
            return;
        }
        self.seen.see(Sight::DrainClosedHolding);
        let lanes = self.members[member].lanes.iter();
        let live: Vec<_> = lanes.flat_map(|lane| lane.live.clone()).collect();
        for id in live {
            let settling =
                matches!(self.deliveries[id].phase, Phase::Settling { .. } | Phase::Stalled { .. });
            if self.closing || !settling {
                self.fail("drain-stuck", Some(id), || "held when the drain was over".to_owned());
            }
        }
        self.close(member);
    }

    /// Ends a member in order: what is asked for is written, the rest goes back to the group.
    fn close(&mut self, member: usize) {
        self.trace.note(self.now, None, "close", member as u64, || format!(": member {member}"));
        let inc = self.members[member].inc;
        self.flush(member, inc);
        for id in 0..self.deliveries.len() {
            let delivery = &mut self.deliveries[id];
            if delivery.member == member && delivery.inc == inc {
                delivery.phase = Phase::Over;
            }
        }
        self.give_back_all(member, inc, Return::Released);
        let down = self.members[member].down.unwrap_or(100 * MS);
        self.take_down(member, down);
    }
}

/// The wall clock at the start of the world.
pub(super) const EPOCH: Duration = Duration::from_secs(1_700_000_000);
