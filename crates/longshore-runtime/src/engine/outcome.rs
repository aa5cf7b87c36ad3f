//! What becomes of a delivery: the end of its run, its settlement, and the answer.

use std::cmp::Reverse;
use std::time::Duration;

use longshore_core::policy::{Reason, Run, Verdict};
use longshore_core::{ErrorKind, Failure, MessageId, Result, Settlement};

use super::meter::RunEnd;
use super::state::{Held, State, Why};
use super::step::Engine;
use super::types::{Action, Alarm, Ended, Key, Now};

/// A failed settlement is tried again after this, then twice as long each time.
const SETTLE_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait between two tries of a settlement.
const SETTLE_BACKOFF_MAX: Duration = Duration::from_secs(10);

impl Engine {
    /// Crash isolation: into the suspect lane, or out of it for good.
    pub(super) fn isolate(&mut self, now: Now, key: Key, unexplained: u32, out: &mut Vec<Action>) {
        if self.config.suspects {
            return self.bury(now, key, Reason::CrashSuspect, out);
        }
        self.open_record(key);
        let Some(held) = self.table.get_mut(key) else { return };
        let token = held.received.token;
        let Some(mut record) = held.record.take() else { return };
        // The hand-over that the move itself causes is explained too.
        record.explained = record.explained.saturating_add(unexplained).saturating_add(1);
        record.suspect = true;
        self.settle(key, Settlement::Suspect { token, record }, out);
    }

    /// Dead-letters what no handler of ours will see.
    pub(super) fn bury(&mut self, now: Now, key: Key, reason: Reason, out: &mut Vec<Action>) {
        self.open_record(key);
        let verdict = if self.config.policy.dead_letter().enabled {
            Verdict::DeadLetter { reason }
        } else {
            Verdict::Discard
        };
        self.execute(now, key, verdict, None, out);
    }

    pub(super) fn ended(&mut self, now: Now, key: Key, ended: Ended, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        let State::Running { cancelled, since } = held.state else { return };
        self.busy -= 1;
        let end = match (&ended, cancelled) {
            (_, Some(Why::LeaseLost)) => RunEnd::LeaseLost,
            (Ended::Ok, _) => RunEnd::Ok,
            (Ended::Failed(failure), _) => RunEnd::of(failure, self.config.policy.retries(failure)),
            (Ended::Cancelled, Some(Why::TimedOut)) => RunEnd::TimedOut,
            (Ended::Cancelled, _) => RunEnd::Cancelled,
        };
        self.meter.ended(end, since.map(|since| now.mono.saturating_sub(since)));
        if let Some(pass) = held.pass.take() {
            let well = match (&ended, cancelled) {
                (_, Some(Why::LeaseLost)) => None,
                (Ended::Ok, _) => Some(true),
                (Ended::Failed(failure), _) => self.config.policy.retries(failure).then_some(false),
                (Ended::Cancelled, cancelled) => {
                    (cancelled == Some(Why::TimedOut)).then_some(false)
                }
            };
            if self.gate.ended(now.mono, pass, well) {
                self.breaker_changed(now, out);
            }
        }
        let Some(held) = self.table.get_mut(key) else { return };
        match (ended, cancelled) {
            // Somebody else may have it: nothing that we could settle is ours.
            (_, Some(Why::LeaseLost)) => self.forget_lost(key, out),
            (Ended::Ok, _) => {
                let token = held.received.token;
                self.tally.succeeded += 1;
                self.settle(key, Settlement::Ack(token), out);
            }
            (Ended::Failed(failure), _) => self.failed(now, key, &failure, out),
            (Ended::Cancelled, Some(Why::TimedOut)) => {
                let failure = Failure::timed_out(self.config.policy.handler_timeout());
                self.failed(now, key, &failure, out);
            }
            (Ended::Cancelled, _) => self.release(key, out),
        }
    }

    pub(super) fn failed(&mut self, now: Now, key: Key, failure: &Failure, out: &mut Vec<Action>) {
        self.tally.failed += 1;
        self.open_record(key);
        let roll = self.rng.f64();
        let policy = self.config.policy.clone();
        let Some(held) = self.table.get_mut(key) else { return };
        let Some(record) = &mut held.record else { return };
        let first = record.first_failed_at.unwrap_or(now.wall);
        let run = Run {
            attempt: record.failures.saturating_add(1),
            deliveries: held.received.deliveries,
            age: now.wall.duration_since(first).unwrap_or_default(),
            redrives: record.redrives,
        };
        let verdict = match policy.decide(&run, failure, roll) {
            // A shutdown waits for no gap; the broker keeps it instead.
            Verdict::RetryInProcess { after } if self.draining => Verdict::Retry { after },
            verdict => verdict,
        };
        let gap = match verdict {
            Verdict::RetryInProcess { after } | Verdict::Retry { after } => Some(after),
            Verdict::DeadLetter { .. } | Verdict::Discard => None,
        };
        self.config.book.failed(record, failure, now.wall, gap);
        self.execute(now, key, verdict, Some((failure, policy.retries(failure))), out);
    }

    pub(super) fn execute(
        &mut self,
        now: Now,
        key: Key,
        verdict: Verdict,
        failure: Option<(&Failure, bool)>,
        out: &mut Vec<Action>,
    ) {
        let Some(held) = self.table.get_mut(key) else { return };
        let token = held.received.token;
        match verdict {
            Verdict::RetryInProcess { after } => {
                self.tally.fast_retries += 1;
                self.meter.fast_retries += 1;
                self.busy += 1;
                let until = now.mono + after;
                held.state = State::Pausing { until };
                self.timers.push(Reverse((until, key)));
            }
            Verdict::Retry { after } => self.retry(key, after, out),
            Verdict::DeadLetter { reason } => {
                let Some(record) = held.record.take() else { return };
                let letter =
                    self.config.book.letter(&held.received, &record, reason, failure, now.wall);
                self.settle(key, Settlement::DeadLetter { token, letter }, out);
            }
            Verdict::Discard => {
                held.discarding = true;
                self.settle(key, Settlement::Ack(token), out);
            }
        }
    }

    pub(super) fn retry(&mut self, key: Key, after: Duration, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        let Some(mut record) = held.record.take() else { return };
        record.delayed = record.delayed.saturating_add(1);
        if held.received.key.is_some() && !self.overtaking_said {
            self.overtaking_said = true;
            out.push(Action::Alarm(Alarm::KeyOvertaken));
        }
        let token = held.received.token;
        self.settle(key, Settlement::Retry { token, after, record }, out);
    }

    /// Gives a delivery back without a failure. Fast failures are kept; where the broker counts
    /// releases, one that was redelivered gets its return explained.
    pub(super) fn release(&mut self, key: Key, out: &mut Vec<Action>) {
        let counted = self.config.release_counted;
        let Some(held) = self.table.get_mut(key) else { return };
        if counted && held.received.deliveries > 1 {
            self.open_record(key);
        }
        let Some(held) = self.table.get_mut(key) else { return };
        let mut record = held.record.take();
        if let (true, Some(record)) = (counted, &mut record) {
            record.explained = record.explained.saturating_add(1);
        }
        let token = held.received.token;
        self.settle(key, Settlement::Release { token, record }, out);
    }

    pub(super) fn settle(&mut self, key: Key, settlement: Settlement, out: &mut Vec<Action>) {
        if let Some(held) = self.table.get_mut(key) {
            held.state = State::Settling { tries: 0, lost: false };
            out.push(Action::Settle { key, settlement });
        }
    }

    pub(super) fn settled(
        &mut self,
        now: Now,
        key: Key,
        settlement: Settlement,
        result: Result<()>,
        out: &mut Vec<Action>,
    ) {
        let Some(held) = self.table.get_mut(key) else { return };
        let State::Settling { tries, lost } = held.state else { return };
        self.meter.settled(&settlement, held.discarding, &result);
        match result {
            Ok(()) => {
                if let Some(held) = self.table.remove(key) {
                    self.count(&held, &settlement, out);
                }
            }
            Err(error) if lost || error.kind() == ErrorKind::LeaseLost => {
                self.forget_lost(key, out);
            }
            Err(error) => {
                // Nothing was moved: the original stays ours, and the same order is given again.
                let tries = tries + 1;
                let backoff =
                    SETTLE_BACKOFF.saturating_mul(1 << (tries - 1).min(16)).min(SETTLE_BACKOFF_MAX);
                let until = now.mono + backoff;
                let what = what(&settlement);
                let settlement = Box::new(settlement);
                held.state = State::Stalled { until, settlement, tries };
                self.timers.push(Reverse((until, key)));
                self.tally.settle_failures += 1;
                out.push(Action::Alarm(Alarm::SettleFailed { what, error, tries }));
            }
        }
    }

    /// Counts what the broker has done: once, however often it was asked, and not where the lease
    /// was lost before.
    fn count(&mut self, held: &Held, settlement: &Settlement, out: &mut Vec<Action>) {
        let tally = &mut self.tally;
        match settlement {
            Settlement::Ack(_) => tally.discarded += u64::from(held.discarding),
            Settlement::Release { .. } => tally.released += 1,
            Settlement::Retry { .. } => tally.retried += 1,
            Settlement::Suspect { .. } => {
                tally.suspected += 1;
                let unexplained = held.received.unexplained();
                out.push(Action::Alarm(Alarm::Suspected { unexplained }));
            }
            Settlement::DeadLetter { letter, .. } => {
                tally.dead_lettered += 1;
                out.push(Action::Alarm(Alarm::DeadLettered { reason: letter.reason }));
            }
            // A worker orders none.
            Settlement::Redrive { .. } => {}
        }
    }

    pub(super) fn open_record(&mut self, key: Key) {
        let rng = &mut self.rng;
        if let Some(held) = self.table.get_mut(key)
            && held.record.is_none()
        {
            let fresh =
                || MessageId::new(format!("{:032x}", rng.u128(..))).expect("hexadecimal is an id");
            held.record = Some(self.config.book.open(&held.received, fresh));
        }
    }
}

fn what(settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Ack(_) => "ack",
        Settlement::Release { .. } => "release",
        Settlement::Retry { .. } => "retry",
        Settlement::Suspect { .. } => "suspect",
        Settlement::DeadLetter { .. } => "dead letter",
        Settlement::Redrive { .. } => "redrive",
    }
}
