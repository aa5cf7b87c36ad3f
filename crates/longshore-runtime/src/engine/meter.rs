//! What the engine counted and measured since it was last read.

use std::time::{Duration, SystemTime};

use longshore_core::policy::{Class, Reason};
use longshore_core::{ErrorKind, Failure, Received, Result, Settlement};

/// How a handler run ended, as a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEnd {
    Ok,
    Transient,
    Permanent,
    Rejected,
    Discarded,
    Panicked,
    TimedOut,
    Undecodable,
    Cancelled,
    LeaseLost,
}

impl RunEnd {
    pub(crate) const ALL: [(Self, &'static str); 10] = [
        (Self::Ok, "ok"),
        (Self::Transient, "transient"),
        (Self::Permanent, "permanent"),
        (Self::Rejected, "rejected"),
        (Self::Discarded, "discarded"),
        (Self::Panicked, "panicked"),
        (Self::TimedOut, "timed_out"),
        (Self::Undecodable, "undecodable"),
        (Self::Cancelled, "cancelled"),
        (Self::LeaseLost, "lease_lost"),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// `transient` is the policy's word on what the handler did not say.
    pub(crate) fn of(failure: &Failure, transient: bool) -> Self {
        match failure.class() {
            Class::Rejected => Self::Rejected,
            Class::Discard => Self::Discarded,
            Class::Undecodable => Self::Undecodable,
            Class::Panicked => Self::Panicked,
            Class::TimedOut => Self::TimedOut,
            Class::Unknown | Class::Transient | Class::Permanent if transient => Self::Transient,
            Class::Unknown | Class::Transient | Class::Permanent => Self::Permanent,
        }
    }
}

/// The labels of settlements, in the order in which they are counted.
pub(crate) const VERDICTS: [&str; 6] =
    ["ack", "retry", "dead_letter", "suspect", "release", "discard"];
/// The labels of their results.
pub(crate) const RESULTS: [&str; 3] = ["ok", "failed", "lease_lost"];

/// Counts and measures. The shell empties it after each batch.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) handled: [u64; RunEnd::ALL.len()],
    pub(crate) settled: [[u64; RESULTS.len()]; VERDICTS.len()],
    pub(crate) dead_lettered: [u64; Reason::ALL.len()],
    pub(crate) fast_retries: u64,
    /// Unexplained, explained.
    pub(crate) redelivered: [u64; 2],
    pub(crate) handler: Vec<Duration>,
    pub(crate) queued: Vec<Duration>,
    pub(crate) late: Vec<Duration>,
}

impl Meter {
    pub(super) fn received(&mut self, received: &Received, wall: SystemTime) {
        if received.deliveries <= 1 {
            return;
        }
        self.redelivered[usize::from(received.unexplained() == 0)] += 1;
        let last = received.record.as_ref().and_then(|record| record.history.last());
        let due = last
            .and_then(|failure| failure.at?.checked_add(Duration::from_millis(failure.delay_ms?)));
        if let Some(due) = due {
            // Two clocks may be compared here: one that is behind makes it nothing, not negative.
            self.late.push(wall.duration_since(due).unwrap_or_default());
        }
    }

    /// A run is about to begin.
    pub(super) fn begun(&mut self, received: &Received, wall: SystemTime) {
        if received.deliveries <= 1
            && let Some(published) = received.published_at
        {
            self.queued.push(wall.duration_since(published).unwrap_or_default());
        }
    }

    pub(super) fn ended(&mut self, end: RunEnd, took: Option<Duration>) {
        self.handled[end as usize] += 1;
        self.handler.extend(took);
    }

    pub(super) fn settled(
        &mut self,
        settlement: &Settlement,
        discarding: bool,
        result: &Result<()>,
    ) {
        let verdict = match settlement {
            Settlement::Ack(_) if discarding => 5,
            Settlement::Ack(_) => 0,
            Settlement::Retry { .. } => 1,
            Settlement::DeadLetter { .. } => 2,
            Settlement::Suspect { .. } => 3,
            Settlement::Release { .. } => 4,
            // A worker orders none.
            Settlement::Redrive { .. } => return,
        };
        let result = match result {
            Ok(()) => 0,
            Err(error) if error.kind() == ErrorKind::LeaseLost => 2,
            Err(_) => 1,
        };
        self.settled[verdict][result] += 1;
        if let (Settlement::DeadLetter { letter, .. }, 0) = (settlement, result) {
            let place = Reason::ALL.iter().position(|reason| *reason == letter.reason);
            self.dead_lettered[place.unwrap_or_default()] += 1;
        }
    }
}
