//! The transitions.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use longshore_core::policy::Reason;
use longshore_core::{MAX_HEADERS, Policy, Received};

use super::gate::{Answer, Gate, View};
use super::meter::Meter;
use super::state::{Held, State, Table, Why};
use super::types::{Action, Alarm, Config, Input, Key, Now, Start};
use crate::tally::Tally;

/// Handler time-outs are found by a sweep this many times as fine as the time-out.
const SWEEP_SHARE: u32 = 20;

/// The state machine of one lane.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(super) config: Config,
    pub(super) table: Table,
    /// Deliveries that wait for a slot, in order.
    pub(super) buffered: VecDeque<Key>,
    /// Fast retries whose gap is over and that wait for the rate, in order.
    overdue: VecDeque<Key>,
    pub(super) gate: Gate,
    /// The gate's breaker, as last seen.
    pub(super) view: View,
    /// When the rate has the next start for who waits.
    next_start: Option<Duration>,
    /// Slots in use: running, or pausing before a fast retry.
    pub(super) busy: usize,
    /// Ends of pauses and of settlement back-offs. Entries outlive what they were made for; the
    /// state says whether they still mean anything.
    pub(super) timers: BinaryHeap<Reverse<(Duration, Key)>>,
    next_sweep: Duration,
    next_extension: Duration,
    /// The shortest lease among what is held; `None` where the connection holds it all.
    lease: Option<Duration>,
    pub(super) draining: bool,
    pub(super) overtaking_said: bool,
    pub(super) rng: fastrand::Rng,
    pub(crate) tally: Tally,
    pub(crate) meter: Meter,
}

impl Engine {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        let gate = Gate::new(&config.policy);
        Self {
            config,
            table: Table::default(),
            buffered: VecDeque::new(),
            overdue: VecDeque::new(),
            view: gate.view(),
            gate,
            next_start: None,
            busy: 0,
            timers: BinaryHeap::new(),
            next_sweep: Duration::ZERO,
            next_extension: Duration::ZERO,
            lease: None,
            draining: false,
            overtaking_said: false,
            rng: fastrand::Rng::with_seed(seed),
            tally: Tally::default(),
            meter: Meter::default(),
        }
    }

    /// Passes the gate of another lane of the same worker instead of its own.
    pub(crate) fn sharing(self, gate: Gate) -> Self {
        Self { view: gate.view(), gate, ..self }
    }

    /// How many deliveries there may be in our hands while the breaker is not closed; `None`: as
    /// many as ever.
    pub(crate) fn credit(&self) -> Option<usize> {
        let room = usize::try_from(self.view.room?).unwrap_or(usize::MAX);
        // With nothing to be started, nothing is to come, whatever is still settled.
        Some(if room == 0 { 0 } else { (self.held() - self.waiting()).saturating_add(room) })
    }

    /// How many deliveries are in our hands.
    pub(crate) fn held(&self) -> usize {
        self.table.len()
    }

    /// How many of them wait for a slot.
    pub(crate) fn buffered(&self) -> usize {
        self.waiting()
    }

    /// When the next [`Input::Tick`] is due.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        // Also without a delivery: what is open must become half-open to get one.
        if self.table.len() == 0 {
            return self.view.until;
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let sweep = (self.busy > 0).then_some(self.next_sweep);
        let extension = self.lease.map(|_| self.next_extension);
        [timer, sweep, extension, self.view.until, self.next_start].into_iter().flatten().min()
    }

    /// Takes one input and appends what is to be done.
    pub(crate) fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        if let Input::Begun { key } = input {
            // Nothing follows from it.
            return self.begun(now, key);
        }
        self.look(now, out);
        match input {
            Input::Begun { .. } => {}
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
        self.refresh();
        self.start(now, out);
        self.trim(out);
    }

    /// Sees what the breaker has come to, by time or in another lane.
    fn look(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.view.until.is_some_and(|until| until <= now.mono) && self.gate.tick(now.mono) {
            self.breaker_changed(now, out);
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        if self.gate.is_news(&self.view) {
            self.view = self.gate.view();
        }
    }

    pub(super) fn breaker_changed(&mut self, now: Now, out: &mut Vec<Action>) {
        self.view = self.gate.view();
        let View { state, until, .. } = self.view;
        let open_for = until.map(|until| until.saturating_sub(now.mono));
        out.push(Action::Alarm(Alarm::Breaker { state, open_for }));
    }

    fn received(&mut self, now: Now, mut received: Received, out: &mut Vec<Action>) {
        self.tally.received += 1;
        self.tally.redelivered += u64::from(received.deliveries > 1);
        clamp(&self.config.policy, now.wall, &mut received);
        self.meter.received(&received, now.wall);
        if self.table.len() == 0 {
            // Sweeps rest while nothing is held.
            self.next_sweep = now.mono + self.sweep_interval();
            self.lease = None;
        }
        if let Some(lease) = received.lease
            && self.lease.is_none_or(|shortest| lease < shortest)
        {
            self.lease = Some(lease);
            self.next_extension = now.mono + lease / 3;
        }
        let unexplained = received.unexplained();
        let oversize =
            received.body.len() > self.config.max_body || received.metadata_size() > MAX_HEADERS;
        let key = self.table.insert(Held {
            received,
            record: None,
            state: State::Buffered,
            leased_at: now.mono,
            discarding: false,
            pass: None,
        });
        if self.config.isolation && self.config.policy.isolates(unexplained) {
            self.isolate(now, key, unexplained, out);
        } else if oversize {
            self.bury(now, key, Reason::Oversize, out);
        } else if self.draining {
            self.release(key, out);
        } else {
            self.buffered.push_back(key);
        }
    }

    fn start(&mut self, now: Now, out: &mut Vec<Action>) {
        self.next_start = None;
        if self.draining {
            return;
        }
        while let Some(key) = self.overdue.front().copied() {
            // What was lost or given back leaves its key behind.
            let waits = |held: &mut Held| matches!(held.state, State::Pausing { until } if until <= now.mono);
            if self.table.get_mut(key).is_some_and(waits) && !self.run(now, key, true, out) {
                return;
            }
            self.overdue.pop_front();
        }
        while self.busy < self.config.concurrency {
            let Some(key) = self.buffered.front().copied() else { return };
            if self.is_buffered(key) {
                if !self.run(now, key, false, out) {
                    return;
                }
                self.busy += 1;
            }
            self.buffered.pop_front();
        }
    }

    /// While the breaker is not closed, what has no leave to start is not kept waiting.
    fn trim(&mut self, out: &mut Vec<Action>) {
        let Some(room) = self.view.room else { return };
        if self.buffered.len() <= room as usize {
            return;
        }
        for key in std::mem::take(&mut self.buffered) {
            if !self.is_buffered(key) {
                continue;
            }
            if self.buffered.len() < room as usize {
                self.buffered.push_back(key);
            } else {
                self.release(key, out);
            }
        }
    }

    /// A key in the queue is all that is left of what was lost or revoked there.
    fn is_buffered(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(|held| matches!(held.state, State::Buffered))
    }

    fn waiting(&self) -> usize {
        self.buffered.iter().filter(|key| self.is_buffered(**key)).count()
    }

    fn begun(&mut self, now: Now, key: Key) {
        if let Some(held) = self.table.get_mut(key)
            && let State::Running { since, .. } = &mut held.state
        {
            *since = Some(now.mono);
            self.meter.begun(&held.received, now.wall);
        }
    }

    /// Starts a run if the gate lets it.
    fn run(&mut self, now: Now, key: Key, fast_retry: bool, out: &mut Vec<Action>) -> bool {
        let pass = match self.gate.start(now.mono, &self.view, fast_retry) {
            Answer::Go(pass) => pass,
            Answer::At(at) => {
                self.next_start = Some(at);
                return false;
            }
            Answer::Shut => return false,
        };
        self.refresh();
        let Some(held) = self.table.get_mut(key) else { return true };
        held.state = State::Running { since: None, cancelled: None };
        held.pass = pass;
        out.push(Action::Start(Start {
            key,
            received: held.received.clone(),
            attempt: held.attempt(),
        }));
        true
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now.mono {
                break;
            }
            self.timers.pop();
            self.due(at, key, out);
        }
        if self.busy > 0 && now.mono >= self.next_sweep {
            self.next_sweep = now.mono + self.sweep_interval();
            let limit = self.config.policy.handler_timeout();
            let late = |held: &Held| match held.state {
                State::Running { since: Some(since), .. } => {
                    now.mono.saturating_sub(since) >= limit
                }
                _ => false,
            };
            for key in self.keys(late) {
                self.cancel(key, Why::TimedOut, out);
            }
        }
        if let Some(lease) = self.lease
            && now.mono >= self.next_extension
        {
            self.next_extension = now.mono + lease / 3;
            self.extend(now, out);
        }
    }

    fn due(&mut self, at: Duration, key: Key, out: &mut Vec<Action>) {
        let Some(held) = self.table.get_mut(key) else { return };
        match &held.state {
            State::Pausing { until } if *until == at => self.overdue.push_back(key),
            State::Stalled { until, .. } if *until == at => {
                let state = std::mem::replace(&mut held.state, State::Buffered);
                if let State::Stalled { settlement, tries, .. } = state {
                    held.state = State::Settling { tries, lost: false };
                    out.push(Action::Settle { key, settlement: *settlement });
                }
            }
            _ => {}
        }
    }

    pub(super) fn keys(&self, which: impl Fn(&Held) -> bool) -> Vec<Key> {
        self.table.iter().filter(|(_, held)| which(held)).map(|(key, _)| key).collect()
    }

    fn sweep_interval(&self) -> Duration {
        (self.config.policy.handler_timeout() / SWEEP_SHARE).max(Duration::from_millis(1))
    }
}

/// A record is a stranger's word until it is clamped: `docs/guarantees.md`, "Limits".
pub(crate) fn clamp(policy: &Policy, now: SystemTime, received: &mut Received) {
    if let Some(record) = received.record.take() {
        let record = Arc::unwrap_or_clone(record).clamped(
            policy.highest_max_attempts(),
            now,
            policy.longest_delay(),
        );
        received.record = Some(Arc::new(record));
    }
}
