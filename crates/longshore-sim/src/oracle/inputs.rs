//! What an input asks of the engine.

use longshore_core::policy::Reason;
use longshore_core::{ErrorKind, Result};

use super::verdict::{Past, Verdict, verdict};
use super::{Expect, Failed, Phase, Why};
use crate::broker::nanos;
use crate::scenario::{Counts, End, MS, Time};
use crate::seen::Sight;
use crate::world::World;

/// The first wait after a settlement that failed, and the longest: `docs/guarantees.md`, 11.
const BACKOFF: Time = 100 * MS;
const BACKOFF_MAX: Time = 10_000 * MS;
/// Time-outs are found by a sweep of this share of the time-out.
pub(crate) const SWEEP_SHARE: u64 = 20;

impl World {
    pub(crate) fn expect_received(&mut self, id: usize, unexplained: u32) {
        let delivery = &self.deliveries[id];
        let facts = delivery.facts;
        let exact = self.scenario.kind.counts == Counts::Exact;
        if exact && (delivery.deliveries, unexplained) != (facts.handovers, facts.unexplained) {
            let (deliveries, wanted) = (delivery.deliveries, facts.handovers);
            return self.fail("count-drift", Some(id), || {
                format!(
                    "came with {deliveries} deliveries, {unexplained} unexplained; it has had \
                     {wanted} and {}",
                    facts.unexplained
                )
            });
        }
        let plan = &self.scenario.messages[delivery.message];
        let (oversize, forged) = (plan.oversize, plan.forged);
        let (member, lane) = (delivery.member, delivery.lane);
        let draining = self.members[member].draining();
        let policy = &self.scenario.policy;
        let isolated =
            self.scenario.kind.isolates() && facts.unexplained >= policy.crash_suspect_after();
        let dead = |reason| {
            if policy.dead_letter().enabled { Expect::Dead(reason) } else { Expect::Ack }
        };
        let expect = if isolated && lane == 0 {
            Some(Expect::Suspect)
        } else if isolated {
            Some(dead(Reason::CrashSuspect))
        } else if oversize {
            Some(dead(Reason::Oversize))
        } else {
            draining.then_some(Expect::Release)
        };
        match expect {
            Some(Expect::Suspect) => self.seen.see(Sight::Suspected),
            Some(Expect::Dead(Reason::CrashSuspect)) => self.seen.see(Sight::CrashSuspect),
            Some(Expect::Dead(Reason::Oversize)) => self.seen.see(Sight::Oversize),
            Some(Expect::Ack) => self.seen.see(Sight::DeadLettersOff),
            Some(Expect::Release) => self.seen.see(Sight::DrainArrival),
            _ => {}
        }
        if forged {
            self.seen.see(Sight::Forged);
        }
        let now = self.now;
        let delivery = &mut self.deliveries[id];
        delivery.leased_at = now;
        delivery.expect = expect;
        delivery.may_ack = expect == Some(Expect::Ack);
        delivery.phase = Phase::Buffered;
        self.members[member].lanes[lane].live.push(id);
    }

    /// A run ended: well, with a failure, or cancelled (`None`).
    pub(crate) fn expect_ended(&mut self, id: usize, ended: Option<Failed>, well: bool) {
        let Phase::Running { why, .. } = self.deliveries[id].phase else { return };
        self.just_ended = Some(id);
        let lane = self.deliveries[id].lane;
        if why == Some(Why::Lost) {
            self.seen.see(Sight::LostWhileRunning);
            self.deliveries[id].phase = Phase::Over;
            return;
        }
        if well {
            if lane == 1 {
                self.seen.see(Sight::SuspectSucceeded);
            }
            if why.is_some() {
                self.seen.see(Sight::CancelledOk);
            }
            self.deliveries[id].may_ack = true;
            self.deliveries[id].expect = Some(Expect::Ack);
            return;
        }
        let failed = match (ended, why) {
            (Some(failed), _) => {
                if why.is_some() {
                    self.seen.see(Sight::CancelledFailed);
                }
                failed
            }
            (None, Some(Why::TimedOut)) => {
                self.seen.see(Sight::TimedOut);
                Failed::TimedOut
            }
            (None, _) => {
                self.deliveries[id].expect = Some(Expect::Release);
                return;
            }
        };
        self.expect_failed(id, failed);
    }

    fn expect_failed(&mut self, id: usize, failed: Failed) {
        let now = self.now;
        let message = self.deliveries[id].message;
        self.messages[message].failed += 1;
        let delivery = &self.deliveries[id];
        let first = delivery.first_failed.unwrap_or(now);
        let past = Past {
            attempt: delivery.attempt(),
            age: now - first,
            redrives: delivery.facts.redrives,
        };
        let draining = self.members[delivery.member].draining();
        let lane = delivery.lane;
        let verdict = verdict(&self.scenario.policy, past, failed);
        let delivery = &mut self.deliveries[id];
        delivery.volatile += 1;
        delivery.first_failed = Some(first);
        match verdict {
            Verdict::Fast { min, max } if draining => {
                delivery.expect = Some(Expect::Retry { min, max, nominal: min });
            }
            Verdict::Fast { min, max } => {
                delivery.phase = Phase::Pausing { from: now + min, until: now + max };
            }
            Verdict::Retry { min, max } => {
                delivery.expect = Some(Expect::Retry { min, max, nominal: min });
            }
            Verdict::Dead(reason) => delivery.expect = Some(Expect::Dead(reason)),
            Verdict::Discard => {
                delivery.may_ack = true;
                delivery.expect = Some(Expect::Ack);
            }
        }
        self.seen.see(match verdict {
            Verdict::Fast { .. } => Sight::FastRetry,
            Verdict::Retry { .. } if lane == 1 => Sight::SuspectRetried,
            Verdict::Retry { .. } if matches!(failed, Failed::End(End::RetryAfter(_))) => {
                Sight::WantedGap
            }
            Verdict::Retry { .. } => Sight::DurableRetry,
            Verdict::Dead(Reason::RedriveExhausted) => Sight::RedriveExhausted,
            Verdict::Dead(Reason::TooOld) => Sight::TooOld,
            Verdict::Dead(Reason::Panicked) => Sight::Panicked,
            Verdict::Dead(Reason::Permanent) => Sight::Permanent,
            Verdict::Dead(_) => Sight::Exhausted,
            Verdict::Discard => Sight::Discarded,
        });
    }

    pub(crate) fn expect_settled(&mut self, id: usize, result: &Result<()>) {
        let now = self.now;
        let delivery = &mut self.deliveries[id];
        let Phase::Settling { order, tries } = &delivery.phase else { return };
        delivery.phase = match result {
            Err(error) if error.kind() != ErrorKind::LeaseLost && !delivery.lost => {
                let tries = tries + 1;
                let wait = (BACKOFF << (tries - 1).min(16)).min(BACKOFF_MAX);
                Phase::Stalled { order: order.clone(), tries, until: now + wait }
            }
            _ => Phase::Over,
        };
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::LeaseLost) {
            self.seen.see(Sight::SettleLateFenced);
        }
    }

    /// The engine is told that the lease is gone.
    pub(crate) fn expect_lost(&mut self, id: usize) {
        let delivery = &mut self.deliveries[id];
        match &mut delivery.phase {
            Phase::Running { why, .. } => {
                delivery.must_cancel = why.is_none();
                *why = Some(Why::Lost);
            }
            Phase::Settling { .. } => {
                delivery.lost = true;
                self.seen.see(Sight::LostWhileSettling);
            }
            Phase::Buffered => {
                delivery.phase = Phase::Over;
                self.seen.see(Sight::LostWhileBuffered);
            }
            Phase::Pausing { .. } => {
                delivery.phase = Phase::Over;
                self.seen.see(Sight::LostWhilePausing);
            }
            Phase::Stalled { .. } => {
                delivery.phase = Phase::Over;
                self.seen.see(Sight::LostWhileStalled);
            }
            Phase::Coming | Phase::Over => {}
        }
    }

    /// A drain, or a revocation: what has not started goes back, what pauses goes on in the broker.
    pub(crate) fn expect_given_back(&mut self, id: usize, drain: bool) {
        let now = self.now;
        let delivery = &mut self.deliveries[id];
        match delivery.phase {
            Phase::Buffered => {
                delivery.expect = Some(Expect::Release);
                self.seen.see(if drain { Sight::DrainReleased } else { Sight::RevokedBuffered });
            }
            Phase::Pausing { from, until } => {
                let (min, max) = (from.saturating_sub(now), until.saturating_sub(now));
                delivery.expect = Some(Expect::Retry { min, max, nominal: min });
                self.seen.see(if drain { Sight::DrainPausing } else { Sight::RevokedPausing });
            }
            _ => {}
        }
    }

    /// The drain is over: what runs is cancelled.
    pub(crate) fn expect_aborted(&mut self, id: usize) {
        let delivery = &mut self.deliveries[id];
        if let Phase::Running { why, .. } = &mut delivery.phase
            && why.is_none()
        {
            *why = Some(Why::Drain);
            delivery.must_cancel = true;
            self.seen.see(Sight::DrainAborted);
        }
    }

    /// A tick: what has run for longer than its time and a sweep is cancelled now.
    pub(crate) fn expect_ticked(&mut self, id: usize) {
        let limit = nanos(self.scenario.policy.handler_timeout());
        let sure = limit + limit / SWEEP_SHARE;
        let now = self.now;
        let over = self.own_clock_over(id);
        let delivery = &mut self.deliveries[id];
        delivery.clock_over = over;
        if let Phase::Running { begun: Some(begun), why } = &mut delivery.phase
            && why.is_none()
            && now >= *begun + sure
        {
            *why = Some(Why::TimedOut);
            delivery.must_cancel = true;
        }
    }
}
