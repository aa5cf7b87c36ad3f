//! The transitions.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use longshore_core::policy::{Reason, Run, Verdict};
use longshore_core::{ErrorKind, Failure, MessageId, Received, Result, Settlement};

use super::state::{Held, State, Table, Why};
use super::types::{Action, Alarm, Config, Ended, Input, Key, Now, Start};
use crate::tally::Tally;

/// A failed settlement is tried again after this, then twice as long each time.
const SETTLE_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait between two tries of a settlement.
const SETTLE_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Handler time-outs are found by a sweep this many times as fine as the time-out.
const SWEEP_SHARE: u32 = 20;

/// The state machine of one lane.
#[derive(Debug)]
pub(crate) struct Engine {
    config: Config,
    table: Table,
    /// Deliveries that wait for a slot, in order.
    buffered: VecDeque<Key>,
    /// Slots in use: running, or pausing before a fast retry.
    busy: usize,
    /// Ends of pauses and of settlement back-offs. Entries outlive what they were made for; the
    /// state says whether they still mean anything.
    timers: BinaryHeap<Reverse<(Duration, Key)>>,
    next_sweep: Duration,
    next_extension: Duration,
    draining: bool,
    overtaking_said: bool,
    rng: fastrand::Rng,
    pub(crate) tally: Tally,
}

impl Engine {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            table: Table::default(),
            buffered: VecDeque::new(),
            busy: 0,
            timers: BinaryHeap::new(),
            next_sweep: Duration::ZERO,
            next_extension: Duration::ZERO,
            draining: false,
            overtaking_said: false,
            rng: fastrand::Rng::with_seed(seed),
            tally: Tally::default(),
        }
    }

    /// How many deliveries are in our hands.
    pub(crate) fn held(&self) -> usize {
        self.table.len()
    }

    /// When the next [`Input::Tick`] is due.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        if self.table.len() == 0 {
            return None;
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let sweep = (self.busy > 0).then_some(self.next_sweep);
        let extension = self.config.lease.map(|_| self.next_extension);
        [timer, sweep, extension].into_iter().flatten().min()
    }

    /// Takes one input and appends what is to be done.
    pub(crate) fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Received(received) => self.received(now, received, out),
            Input::Ended { key, ended } => self.ended(now, key, ended, out),
            Input::Settled { key, settlement, result } => {
                self.settled(now, key, settlement, result, out);
            }
            Input::Extended { key, result } => self.extended(now, key, result, out),
            Input::Revoking { epoch } => self.revoking(now, epoch, out),
            Input::Lost { epoch } => {
                for key in self.keys(|held| held.received.token.epoch == epoch) {
                    self.lost(key, out);
                }
            }
            Input::Tick => self.tick(now, out),
            Input::Drain => {
                self.draining = true;
                self.give_back(now, |_| true, out);
            }
            Input::Abort => {
                for key in self.keys(|held| matches!(held.state, State::Running { .. })) {
                    self.cancel(key, Why::Drain, out);
                }
            }
        }
        self.start(now, out);
    }

    fn received(&mut self, now: Now, mut received: Received, out: &mut Vec<Action>) {
        self.tally.received += 1;
        self.tally.redelivered += u64::from(received.deliveries > 1);
        self.clamp(now, &mut received);
        if self.table.len() == 0 {
            // Sweeps rest while nothing is held.
            self.next_sweep = now.mono + self.sweep_interval();
            self.next_extension = now.mono + self.config.lease.unwrap_or_default() / 3;
        }
        let unexplained = received.unexplained();
        let key = self.table.insert(Held {
            received,
            record: None,
            state: State::Buffered,
            leased_at: now.mono,
        });
        if self.config.isolation && self.config.policy.isolates(unexplained) {
            self.isolate(now, key, unexplained, out);
        } else if self.draining {
            self.release(key, out);
        } else {
            self.buffered.push_back(key);
        }
    }

    /// A record is a stranger's word until it is clamped: `docs/guarantees.md`, "Limits".
    fn clamp(&self, now: Now, received: &mut Received) {
        let policy = &self.config.policy;
        if let Some(record) = received.record.take() {
            let record = std::sync::Arc::unwrap_or_clone(record).clamped(
                policy.highest_max_attempts(),
                policy.dead_letter().max_redrives,
                now.wall,
                policy.longest_delay(),
            );
            received.record = Some(std::sync::Arc::new(record));
        }
    }

    /// Crash isolation: into the suspect lane, or out of it for good.
    fn isolate(&mut self, now: Now, key: Key, unexplained: u32, out: &mut Vec<Action>) {
        let token = {
            self.open_record(key);
            let Some(held) = self.table.get_mut(key) else { return };
            held.received.token
        };
        if self.config.suspects {
            let verdict = if self.config.policy.dead_letter().enabled {
                Verdict::DeadLetter { reason: Reason::CrashSuspect }
            } else {
                Verdict::Discard
            };
            return self.execute(now, key, verdict, None, out);
        }
        let Some(held) = self.table.get_mut(key) else { return };
        let Some(mut record) = held.record.take() else { return };
        // The hand-over that the move itself causes is explained too.
        record.explained = record.explained.saturating_add(unexplained).saturating_add(1);
        record.suspect = true;
        self.tally.suspected += 1;
        out.push(Action::Alarm(Alarm::Suspected { unexplained }));
        self.settle(key, Settlement::Suspect { token, record }, out);
    }

    fn start(&mut self, now: Now, out: &mut Vec<Action>) {
        while !self.draining && self.busy < self.config.concurrency {
            let Some(key) = self.buffered.pop_front() else { return };
            // What was lost or revoked in the buffer leaves its key behind.
            let Some(held) = self.table.get_mut(key) else { continue };
            if !matches!(held.state, State::Buffered) {
                continue;
            }
            self.busy += 1;
            self.run(now, key, out);
        }
    }

    fn run(&mut self, now: Now, key: Key, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        held.state = State::Running { since: now.mono, cancelled: None };
        out.push(Action::Start(Start {
            key,
            received: held.received.clone(),
            attempt: held.attempt(),
        }));
    }

    fn ended(&mut self, now: Now, key: Key, ended: Ended, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        let State::Running { cancelled, .. } = held.state else { return };
        self.busy -= 1;
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

    fn failed(&mut self, now: Now, key: Key, failure: &Failure, out: &mut Vec<Action>) {
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

    fn execute(
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
                self.tally.dead_lettered += 1;
                out.push(Action::Alarm(Alarm::DeadLettered { reason }));
                self.settle(key, Settlement::DeadLetter { token, letter }, out);
            }
            Verdict::Discard => {
                self.tally.discarded += 1;
                self.settle(key, Settlement::Ack(token), out);
            }
        }
    }

    fn retry(&mut self, key: Key, after: Duration, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        let Some(mut record) = held.record.take() else { return };
        record.delayed = record.delayed.saturating_add(1);
        self.tally.retried += 1;
        if held.received.key.is_some() && !self.overtaking_said {
            self.overtaking_said = true;
            out.push(Action::Alarm(Alarm::KeyOvertaken));
        }
        let token = held.received.token;
        self.settle(key, Settlement::Retry { token, after, record }, out);
    }

    /// Gives a delivery back without a failure. Fast failures are kept; where the broker counts
    /// releases, one that was redelivered gets its return explained.
    fn release(&mut self, key: Key, out: &mut Vec<Action>) {
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
        self.tally.released += 1;
        self.settle(key, Settlement::Release { token, record }, out);
    }

    fn settle(&mut self, key: Key, settlement: Settlement, out: &mut Vec<Action>) {
        if let Some(held) = self.table.get_mut(key) {
            held.state = State::Settling { tries: 0 };
            out.push(Action::Settle { key, settlement });
        }
    }

    fn settled(
        &mut self,
        now: Now,
        key: Key,
        settlement: Settlement,
        result: Result<()>,
        out: &mut Vec<Action>,
    ) {
        let Some(held) = self.table.get_mut(key) else { return };
        let State::Settling { tries } = held.state else { return };
        match result {
            Ok(()) => {
                self.table.remove(key);
            }
            Err(error) if error.kind() == ErrorKind::LeaseLost => self.forget_lost(key, out),
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

    fn extended(&mut self, now: Now, key: Key, result: Result<()>, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        match result {
            Ok(()) => held.leased_at = now.mono,
            Err(error) if error.kind() == ErrorKind::LeaseLost => self.lost(key, out),
            // The next sweep tries again, until the lease is over by our own clock.
            Err(_) => {}
        }
    }

    /// The lease is gone: cancel, forget fast failures, order no settlement.
    fn lost(&mut self, key: Key, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        match held.state {
            State::Running { .. } => self.cancel(key, Why::LeaseLost, out),
            State::Pausing { .. } => {
                self.busy -= 1;
                self.forget_lost(key, out);
            }
            // Its answer will say whether it was in time.
            State::Settling { .. } => {}
            State::Buffered | State::Stalled { .. } => self.forget_lost(key, out),
        }
    }

    fn forget_lost(&mut self, key: Key, out: &mut Vec<Action>) {
        self.table.remove(key);
        self.tally.lease_lost += 1;
        out.push(Action::Alarm(Alarm::LeaseLost));
    }

    fn cancel(&mut self, key: Key, why: Why, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        if let State::Running { cancelled, .. } = &mut held.state {
            // A lost lease outranks every other reason: what is not ours is not settled.
            if cancelled.is_none() {
                out.push(Action::Cancel { key });
            }
            if cancelled.is_none() || why == Why::LeaseLost {
                *cancelled = Some(why);
            }
        }
    }

    fn revoking(&mut self, now: Now, epoch: u32, out: &mut Vec<Action>) {
        self.give_back(now, |held| held.received.token.epoch == epoch, out);
    }

    /// Releases what has not started; what pauses goes into the retry lane for the rest of its gap.
    fn give_back(&mut self, now: Now, which: impl Fn(&Held) -> bool, out: &mut Vec<Action>) {
        let idle = |held: &Held| matches!(held.state, State::Buffered | State::Pausing { .. });
        for key in self.keys(|held| idle(held) && which(held)) {
            let Some(held) = self.table.get_mut(key) else { continue };
            if let State::Pausing { until } = held.state {
                self.busy -= 1;
                self.retry(key, until.saturating_sub(now.mono), out);
            } else {
                self.release(key, out);
            }
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now.mono {
                break;
            }
            self.timers.pop();
            self.due(now, at, key, out);
        }
        if self.busy > 0 && now.mono >= self.next_sweep {
            self.next_sweep = now.mono + self.sweep_interval();
            let limit = self.config.policy.handler_timeout();
            let late = |held: &Held| match held.state {
                State::Running { since, .. } => now.mono.saturating_sub(since) >= limit,
                _ => false,
            };
            for key in self.keys(late) {
                self.cancel(key, Why::TimedOut, out);
            }
        }
        if let Some(lease) = self.config.lease
            && now.mono >= self.next_extension
        {
            self.next_extension = now.mono + lease / 3;
            self.extend(now, lease, out);
        }
    }

    fn due(&mut self, now: Now, at: Duration, key: Key, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        match &held.state {
            State::Pausing { until } if *until == at => self.run(now, key, out),
            State::Stalled { until, .. } if *until == at => {
                let state = std::mem::replace(&mut held.state, State::Buffered);
                if let State::Stalled { settlement, tries, .. } = state {
                    held.state = State::Settling { tries };
                    out.push(Action::Settle { key, settlement: *settlement });
                }
            }
            _ => {}
        }
    }

    /// Sweeps come each third of a lease and pass over what is younger than a sixth: no lease is
    /// older than half its length when its extension is ordered.
    fn extend(&mut self, now: Now, lease: Duration, out: &mut Vec<Action>) {
        for key in self.keys(|held| now.mono.saturating_sub(held.leased_at) >= lease / 6) {
            let Some(held) = self.table.get_mut(key) else { continue };
            if now.mono.saturating_sub(held.leased_at) >= lease {
                self.lost(key, out);
            } else {
                out.push(Action::Extend { key, token: held.received.token });
            }
        }
    }

    fn open_record(&mut self, key: Key) {
        let rng = &mut self.rng;
        if let Some(held) = self.table.get_mut(key)
            && held.record.is_none()
        {
            let fresh =
                || MessageId::new(format!("{:032x}", rng.u128(..))).expect("hexadecimal is an id");
            held.record = Some(self.config.book.open(&held.received, fresh));
        }
    }

    fn keys(&self, which: impl Fn(&Held) -> bool) -> Vec<Key> {
        self.table.iter().filter(|(_, held)| which(held)).map(|(key, _)| key).collect()
    }

    fn sweep_interval(&self) -> Duration {
        (self.config.policy.handler_timeout() / SWEEP_SHARE).max(Duration::from_millis(1))
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
