//! The circuit breaker: whether handlers may run, decided by how the last runs ended.
//!
//! | state | when | then |
//! | --- | --- | --- |
//! | closed | `min` runs or more in the window, and at least `ratio` of them failed | open |
//! | open | its time is over | half-open |
//! | half-open | `probes` runs succeeded | closed, and the next open time is the first one again |
//! | half-open | a probe failed | open, twice as long as before, at most `max_open` |
//!
//! Only transient failures count as failed, and only successes beside them as runs. What says
//! nothing of the world behind the handler (a permanent failure, a cancelled run) is left out; a
//! probe that ends so makes room for another one.

use std::collections::VecDeque;
use std::time::Duration;

use longshore_core::policy::Breaker as Rules;

/// The window moves by this share of its length, so that no run has to be remembered by itself.
const SLICES: u32 = 10;

/// Whether a worker lets its handlers run: the state of its policy's circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// They run. Always so without a breaker.
    #[default]
    Closed,
    /// A few may try whether the trouble is over.
    HalfOpen,
    /// None starts and nothing is fetched, because nearly everything failed.
    Open,
}

impl BreakerState {
    /// As logs and metrics spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// The right of one run to be counted. Void when the state has changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass(u64);

#[derive(Debug)]
pub(crate) struct Breaker {
    rules: Rules,
    phase: Phase,
    window: Window,
    /// How long it is open the next time.
    next_open: Duration,
    /// Counts the changes of state.
    turn: u64,
    /// Counts the changes of state and of room.
    version: u64,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { left: u32, succeeded: u32 },
}

impl Breaker {
    pub(crate) fn new(rules: Rules) -> Self {
        let window = Window { slice: rules.window / SLICES, counts: VecDeque::new(), sum: (0, 0) };
        Self { next_open: rules.open, rules, phase: Phase::Closed, window, turn: 0, version: 0 }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// The pass of a run that starts while it is closed.
    pub(crate) fn pass(&self) -> Pass {
        Pass(self.turn)
    }

    /// Another number whenever its state or its room is another.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The end of its open time.
    pub(crate) fn until(&self) -> Option<Duration> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Closed | Phase::HalfOpen { .. } => None,
        }
    }

    /// How many runs may start now; `None` where it sets no limit.
    pub(crate) fn room(&self) -> Option<u32> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open { .. } => Some(0),
            Phase::HalfOpen { left, .. } => Some(left),
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.until().is_some_and(|until| until <= now) {
            self.change(Phase::HalfOpen { left: self.rules.probes, succeeded: 0 });
        }
    }

    /// A run wants to start.
    pub(crate) fn admit(&mut self) -> Option<Pass> {
        match &mut self.phase {
            Phase::Closed => {}
            Phase::HalfOpen { left, .. } if *left > 0 => {
                *left -= 1;
                self.version += 1;
            }
            Phase::HalfOpen { .. } | Phase::Open { .. } => return None,
        }
        Some(Pass(self.turn))
    }

    /// A run ended: well, with a transient failure, or (`None`) in a way that says nothing.
    pub(crate) fn ended(&mut self, now: Duration, pass: Pass, well: Option<bool>) {
        if pass.0 != self.turn {
            // It began in another state: what it found may be over.
            return;
        }
        match (&mut self.phase, well) {
            (Phase::Open { .. }, _) | (Phase::Closed, None) => {}
            (Phase::Closed, Some(well)) => {
                let (runs, failed) = self.window.add(now, well);
                if runs >= u64::from(self.rules.min) && reaches(failed, runs, self.rules.ratio) {
                    self.open(now);
                }
            }
            (Phase::HalfOpen { left, .. }, None) => {
                *left += 1;
                self.version += 1;
            }
            (Phase::HalfOpen { .. }, Some(false)) => self.open(now),
            (Phase::HalfOpen { succeeded, .. }, Some(true)) => {
                *succeeded += 1;
                if *succeeded == self.rules.probes {
                    self.next_open = self.rules.open;
                    self.window.clear();
                    self.change(Phase::Closed);
                }
            }
        }
    }

    fn open(&mut self, now: Duration) {
        let until = now.saturating_add(self.next_open);
        self.next_open = self.next_open.saturating_mul(2).min(self.rules.max_open);
        self.change(Phase::Open { until });
    }

    fn change(&mut self, phase: Phase) {
        self.phase = phase;
        self.turn += 1;
        self.version += 1;
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a window are far below 2^52")]
fn reaches(failed: u64, runs: u64, ratio: f64) -> bool {
    failed as f64 >= ratio * runs as f64
}

/// How the runs of the last while ended, by slices of time.
#[derive(Debug)]
struct Window {
    slice: Duration,
    counts: VecDeque<Slice>,
    /// Their sum: runs, and those that failed.
    sum: (u64, u64),
}

#[derive(Debug)]
struct Slice {
    began: Duration,
    runs: u64,
    failed: u64,
}

impl Window {
    /// Adds a run, and says what the window has now: runs, and those that failed.
    fn add(&mut self, now: Duration, well: bool) -> (u64, u64) {
        let length = self.slice * SLICES;
        while let Some(old) = self.counts.pop_front_if(|first| first.began + length <= now) {
            self.sum = (self.sum.0 - old.runs, self.sum.1 - old.failed);
        }
        let current = self.counts.back().is_some_and(|last| now < last.began + self.slice);
        if !current {
            self.counts.push_back(Slice { began: now, runs: 0, failed: 0 });
        }
        if let Some(last) = self.counts.back_mut() {
            last.runs += 1;
            last.failed += u64::from(!well);
        }
        self.sum = (self.sum.0 + 1, self.sum.1 + u64::from(!well));
        self.sum
    }

    fn clear(&mut self) {
        self.counts.clear();
        self.sum = (0, 0);
    }
}
