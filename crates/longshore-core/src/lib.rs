//! The contract of longshore.
//!
//! A backend implements three batch-level, object-safe traits: [`Broker`], [`Publisher`] and
//! [`Consumer`]. The plain values that cross them are here too: messages, settlements,
//! capabilities, errors, and the [`Policy`] that decides what happens to a message whose handler
//! failed. Nothing in this crate does I/O, reads a clock or rolls dice, and it depends on no async
//! runtime and no broker client.
//!
//! Users of longshore want the `longshore` crate; authors of a backend start here, then read
//! `docs/writing-a-backend.md`.

mod broker;
mod capability;
mod clock;
mod consumer;
mod error;
mod headers;
mod letter;
mod message;
mod names;
pub mod policy;
mod probe;
mod publisher;
mod received;
mod record;
mod text;
mod topology;

pub use broker::{
    Broker, BrokerInfo, Cursor, Finding, InstanceId, Page, Setup, Severity, Source, Stats,
};
pub use capability::{
    Capabilities, Deliveries, Durability, Fencing, LeaseKind, MoveKind, NoSubscriber, PublishDedup,
    Replication, RetryPlace, Support,
};
pub use clock::{Clock, SystemClock};
pub use consumer::{AckToken, Consumer, ConsumerSpec, Event, Link, Settlement};
pub use error::{Error, ErrorKind, Outcome, Result, Retryability};
pub use headers::{HeaderName, Headers, InvalidHeader, RESERVED_PREFIX};
pub use letter::{Cause, Letter, MAX_LETTER, dead_letter_id};
pub use message::{DEFAULT_MAX_BODY, MAX_HEADERS, Message, MessageId};
pub use names::{GroupName, Lane, Tenant, TopicName, derived};
pub use policy::{Failure, Policy, Reason, Run, Verdict};
pub use probe::{NoProbe, Probe};
pub use publisher::{Confirms, Publisher, Receipt};
pub use received::{Position, Received};
pub use record::{HistoryEntry, MAX_HISTORY, MAX_RECORD, RETRY_HEADER, Record};
pub use topology::{Drift, DriftEntry, Group, Mode, Start, Topic, Topology};

/// The text type of names and short facts: clones without allocating.
pub use smol_str::SmolStr;
