//! What goes into the engine, and what comes out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use longshore_core::policy::Reason;
use longshore_core::{AckToken, Error, Failure, Policy, Received, Result, Settlement};

use super::book::Book;
use super::breaker::BreakerState;

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Since the engine's start; never goes back. All gaps and deadlines run on it.
    pub(crate) mono: Duration,
    /// For records and letters only.
    pub(crate) wall: SystemTime,
}

/// Names a delivery that the engine holds. A place is used again; the turn tells who by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) place: u32,
    pub(crate) turn: u32,
}

/// Everything about a lane that does not change.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) policy: Arc<Policy>,
    pub(crate) book: Book,
    /// Handler runs at a time, those that wait for a fast retry included.
    pub(crate) concurrency: usize,
    /// The largest body that a handler is given.
    pub(crate) max_body: usize,
    /// Whether this is the suspect lane.
    pub(crate) suspects: bool,
    /// Whether the broker has a suspect lane and counts well enough for it.
    pub(crate) isolation: bool,
    /// Whether the broker counts a release as a delivery.
    pub(crate) release_counted: bool,
}

/// What happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "every message is one")]
pub(crate) enum Input {
    /// The consumer handed over a delivery.
    Received(Received),
    /// A shard took a handler run: its time begins.
    Begun { key: Key },
    /// A handler run ended.
    Ended { key: Key, ended: Ended },
    /// A settlement was answered.
    Settled { key: Key, settlement: Settlement, result: Result<()> },
    /// A lease extension was answered.
    Extended { key: Key, result: Result<()> },
    /// The deliveries of this epoch will be taken away.
    Revoking { epoch: u32 },
    /// They are gone.
    Lost { epoch: u32 },
    /// Time passed.
    Tick,
    /// Start nothing more, give back what has not started.
    Drain,
    /// The drain budget is spent: cancel what still runs.
    Abort,
}

/// How a handler run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Ok,
    Failed(Failure),
    /// It was dropped because the engine asked for it.
    Cancelled,
}

/// What to do.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every action is a start or a settlement")]
pub(crate) enum Action {
    /// Run the handler.
    Start(Start),
    /// Cancel the run's context, poll the handler once more, drop it.
    Cancel { key: Key },
    /// Execute this settlement.
    Settle { key: Key, settlement: Settlement },
    /// Extend this lease to `by` from now.
    Extend { key: Key, token: AckToken, by: Duration },
    /// Tell somebody.
    Alarm(Alarm),
}

/// One handler run.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) key: Key,
    pub(crate) received: Received,
    pub(crate) attempt: u32,
}

/// What an operator must hear of.
#[derive(Debug)]
pub(crate) enum Alarm {
    /// A settlement failed; it is tried again, the original stays.
    SettleFailed { what: &'static str, error: Error, tries: u32 },
    /// A lease was lost while we held the delivery.
    LeaseLost,
    /// A message went into the suspect lane.
    Suspected { unexplained: u32 },
    /// A message became a dead letter.
    DeadLettered { reason: Reason },
    /// A keyed message was retried durably for the first time: later ones overtake it.
    KeyOvertaken,
    /// The circuit breaker changed; where it is open now, for so long.
    Breaker { state: BreakerState, open_for: Option<Duration> },
}
