//! The reference model: what must be true of each message, copy and delivery, by the contract. It
//! sees every input that the engine is given and every action that comes out.

mod actions;
mod inputs;
mod settlement;
mod verdict;

use std::sync::Arc;

use longshore_core::policy::Reason;
use longshore_core::{Record, Settlement};

pub(crate) use verdict::{Failed, failure};

use crate::engine::Key;
use crate::scenario::Time;
use crate::world::World;

/// Something that the contract forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name, one of a closed set: `docs/simulator.md` lists them.
    pub name: &'static str,
    /// The number of the message, where it is about one.
    pub message: Option<usize>,
    /// When, in nanoseconds since the start of the world.
    pub at: u64,
    /// What was expected and what came.
    pub text: String,
}

/// What must be true of a copy at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Failures whose settlement is durable.
    pub(crate) failures: u32,
    pub(crate) delayed: u32,
    pub(crate) redrives: u32,
    /// Hand-overs so far, but those that were given back uncounted.
    pub(crate) handovers: u32,
    /// Returns that nothing explains, since the last move into the suspect lane.
    pub(crate) unexplained: u32,
    pub(crate) first_failed: Option<Time>,
    /// No run may begin before.
    pub(crate) not_before: Time,
    pub(crate) suspect: bool,
}

/// One hand-over, as the reference model follows it.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) copy: usize,
    pub(crate) message: usize,
    pub(crate) member: usize,
    pub(crate) inc: u32,
    pub(crate) lane: usize,
    pub(crate) epoch: u32,
    /// The count that it came with.
    pub(crate) deliveries: u32,
    /// The record that it came with.
    pub(crate) record: Option<Arc<Record>>,
    /// As its copy was when it was handed over.
    pub(crate) facts: Facts,
    pub(crate) key: Option<Key>,
    pub(crate) leased_at: Time,
    /// Failures in this process that are not durable yet.
    pub(crate) volatile: u32,
    pub(crate) first_failed: Option<Time>,
    pub(crate) phase: Phase,
    /// The order that the engine owes.
    pub(crate) expect: Option<Expect>,
    /// The engine owes a cancellation.
    pub(crate) must_cancel: bool,
    /// It was said that the lease is lost, while a settlement was under way.
    pub(crate) lost: bool,
    /// The number of its handler run, within the delivery.
    pub(crate) run: u32,
    /// A run of it succeeded, or its failure asked for an ack.
    pub(crate) may_ack: bool,
    /// The copy as its settlement will leave it.
    pub(crate) next: Option<Facts>,
    /// A copy, or a record, was written for its settlement.
    pub(crate) copied: bool,
    pub(crate) recorded: bool,
    /// By the member's own clock its lease was over at some tick; a late answer does not mend that.
    pub(crate) clock_over: bool,
    /// A fault explains why its lease may run out.
    pub(crate) disturbed: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// On its way to the engine.
    Coming,
    Buffered,
    Running {
        begun: Option<Time>,
        why: Option<Why>,
    },
    Pausing {
        from: Time,
        until: Time,
    },
    Settling {
        order: Box<Settlement>,
        tries: u32,
    },
    Stalled {
        order: Box<Settlement>,
        tries: u32,
        until: Time,
    },
    /// The engine has nothing to do with it any more.
    Over,
}

/// Why a run was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    TimedOut,
    Drain,
    Lost,
}

/// A settlement that the contract asks for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Ack,
    Release,
    /// `nominal` is the gap without jitter, from now.
    Retry {
        min: Time,
        max: Time,
        nominal: Time,
    },
    Suspect,
    Dead(Reason),
}

/// Anomalies of what becomes of messages, whatever the steps to it were.
const ENDS: &[&str] = &[
    "lost",
    "stuck",
    "double-terminal",
    "over-attempt",
    "crash-loop",
    "early-retry",
    "lease-forgotten",
    "drain-stuck",
    "endless",
    "panic",
];

impl Delivery {
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Coming | Phase::Over)
    }

    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Pausing { .. })
    }

    /// The number of the run that is on or next.
    pub(crate) fn attempt(&self) -> u32 {
        self.facts.failures + self.volatile + 1
    }
}

impl World {
    /// Keeps the first anomaly.
    pub(crate) fn fail(
        &mut self,
        name: &'static str,
        delivery: Option<usize>,
        text: impl FnOnce() -> String,
    ) {
        if self.anomaly.is_some() || self.ends_only && !ENDS.contains(&name) {
            return;
        }
        let message = delivery.map(|id| self.deliveries[id].message);
        let text = text();
        self.trace.note(self.now, message, "ANOMALY ", 0, || format!("{name}: {text}"));
        self.anomaly = Some(Anomaly { name, message, at: self.now, text });
    }

    /// A copy was acknowledged: somebody must have handled it, or asked for that.
    pub(crate) fn acked(&mut self, id: usize) {
        let message = self.deliveries[id].message;
        self.messages[message].acked += 1;
        if !self.deliveries[id].may_ack {
            self.fail("lost", Some(id), || "acknowledged, and no run of it asked for that".into());
        }
    }

    /// Whether the engine may hold the lease for over, by its own clock.
    pub(crate) fn own_clock_over(&self, id: usize) -> bool {
        self.deliveries[id].clock_over || self.lease_over(id)
    }

    /// Whether it is so now.
    pub(crate) fn lease_over(&self, id: usize) -> bool {
        let age = self.now.saturating_sub(self.deliveries[id].leased_at);
        self.scenario.kind.lease.is_some_and(|lease| age >= lease)
    }

    /// At the end of everything.
    pub(crate) fn judge_end(&mut self) {
        for index in 0..self.messages.len() {
            let message = &self.messages[index];
            if !message.published {
                continue;
            }
            let mine = |copy: &&crate::broker::Copy| copy.message == index;
            let live = self.copies.iter().filter(mine).filter(|copy| copy.is_live()).count();
            let ends = message.acked + message.dead;
            let most = self.most_failures(index);
            let (name, text) = if live > 0 {
                ("stuck", format!("{live} copies are left"))
            } else if ends == 0 {
                ("lost", "nothing is left of it".to_owned())
            } else if ends > message.copies {
                ("double-terminal", format!("{} copies, {ends} ends", message.copies))
            } else if message.kills > self.most_kills(index) {
                ("crash-loop", format!("{} processes killed", message.kills))
            } else if message.failed > most {
                ("over-attempt", format!("{} failed runs, {most} allowed", message.failed))
            } else {
                continue;
            };
            self.trace.note(self.now, Some(index), "ANOMALY ", 0, || format!("{name}: {text}"));
            let at = self.now;
            self.anomaly.get_or_insert(Anomaly { name, message: Some(index), at, text });
        }
    }

    /// In each lane, so many returns that nothing explains; an unrecorded one only comes on top.
    fn most_kills(&self, index: usize) -> u32 {
        let after = self.scenario.policy.crash_suspect_after();
        if self.scenario.kind.isolates() {
            2 * after * self.messages[index].copies
        } else {
            u32::MAX
        }
    }

    /// Each copy has a budget of its own; each return that is no retry may have cost the fast
    /// failures that its process knew, and the one whose settlement was not durable.
    fn most_failures(&self, index: usize) -> u32 {
        let message = &self.messages[index];
        let policy = &self.scenario.policy;
        let fast = u32::try_from(policy.fast_delays().len()).unwrap_or(u32::MAX);
        policy.max_attempts() * message.copies + message.returns * (1 + fast)
    }
}
