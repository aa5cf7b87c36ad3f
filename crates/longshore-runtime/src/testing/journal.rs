//! What happened at the broker, in order.

use std::fmt;
use std::time::Duration;

use longshore_core::{Error, GroupName, MessageId, Reason, Settlement, TopicName};
use tokio::time::Instant;

/// One thing that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Since the kit was made, by the test's clock.
    pub at: Duration,
    /// The topic, without the kit's prefix.
    pub topic: TopicName,
    /// The group; absent for what a sender did.
    pub group: Option<GroupName>,
    /// The message.
    pub id: Option<MessageId>,
    /// What happened to it.
    pub what: What,
}

/// What happened to a message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum What {
    /// The broker confirmed it to its sender.
    Published,
    /// Its sender got an error.
    NotPublished(Error),
    /// It was handed to a worker or a subscription.
    Delivered {
        /// The number of the handler run that this begins.
        attempt: u32,
        /// Every hand-over so far, this one included.
        deliveries: u32,
    },
    /// It is done and never comes again: its handler succeeded, or the failure said to discard it.
    Handled,
    /// It comes again after a delay.
    Retried {
        /// The delay.
        after: Duration,
        /// The failed attempts so far.
        failures: u32,
    },
    /// It is in the dead-letter queue.
    DeadLettered(Reason),
    /// It went into the suspect lane.
    Suspected,
    /// It was given back to the group.
    Released,
    /// A dead letter was sent back to its group.
    Redriven,
    /// The broker, or a fault, refused to settle it: it stays, and the settlement is tried again.
    NotSettled(Error),
    /// Its lease was found lost: another member may have it.
    LeaseLost,
    /// A switch of the kit was thrown.
    Fault(&'static str),
}

impl What {
    pub(super) fn of(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Ack(_) => Self::Handled,
            Settlement::Release { .. } => Self::Released,
            Settlement::Retry { after, record, .. } => {
                Self::Retried { after: *after, failures: record.failures }
            }
            Settlement::Suspect { .. } => Self::Suspected,
            Settlement::DeadLetter { letter, .. } => Self::DeadLettered(letter.reason),
            Settlement::Redrive { .. } => Self::Redriven,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published => f.write_str("published"),
            Self::NotPublished(error) => write!(f, "not published: {error}"),
            Self::Delivered { attempt, deliveries } => {
                write!(f, "delivered, attempt {attempt}, delivery {deliveries}")
            }
            Self::Handled => f.write_str("handled"),
            Self::Retried { after, failures } => {
                write!(f, "to be retried in {after:?}, {failures} failed so far")
            }
            Self::DeadLettered(reason) => write!(f, "dead-lettered: {reason}"),
            Self::Suspected => f.write_str("moved to the suspect lane"),
            Self::Released => f.write_str("released"),
            Self::Redriven => f.write_str("redriven"),
            Self::NotSettled(error) => write!(f, "not settled: {error}"),
            Self::LeaseLost => f.write_str("lease lost"),
            Self::Fault(switch) => write!(f, "-- {switch} --"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.3?}  {}", self.at, self.topic)?;
        if let Some(group) = &self.group {
            write!(f, "/{group}")?;
        }
        if let Some(id) = &self.id {
            write!(f, "  {id}")?;
        }
        write!(f, "  {}", self.what)
    }
}

/// The entries and when the last was written.
#[derive(Debug)]
pub(super) struct Journal {
    began: Instant,
    pub(super) entries: Vec<Entry>,
    last: Instant,
}

impl Journal {
    pub(super) fn new() -> Self {
        let began = Instant::now();
        Self { began, entries: Vec::new(), last: began }
    }

    pub(super) fn write(
        &mut self,
        topic: TopicName,
        group: Option<GroupName>,
        id: Option<MessageId>,
        what: What,
    ) {
        self.last = Instant::now();
        let at = self.last - self.began;
        self.entries.push(Entry { at, topic, group, id, what });
    }

    pub(super) fn quiet(&self) -> Duration {
        self.last.elapsed()
    }

    /// Whether a message was put off and has not come again.
    pub(super) fn waits(&self) -> bool {
        let same = |one: &Entry, other: &Entry| {
            one.id == other.id && one.topic == other.topic && one.group == other.group
        };
        self.entries.iter().enumerate().any(|(place, entry)| {
            matches!(entry.what, What::Retried { .. })
                && !self.entries[place + 1..]
                    .iter()
                    .any(|later| same(entry, later) && matches!(later.what, What::Delivered { .. }))
        })
    }
}
