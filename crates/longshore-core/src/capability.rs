//! What a backend can do, declared as values. The conformance suite holds each against what it
//! observes: a difference is a failure in either direction.

use std::time::Duration;

/// How an ability is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Support {
    /// By the broker itself.
    Native,
    /// By longshore, on the broker's primitives, with the same promise.
    Emulated,
    /// Not at all: using it is a typed `Unsupported` error at start.
    Unsupported,
}

/// What a confirmed message survives on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: it was synced to disk before the confirmation.
    Fsync,
    /// The death of the broker's process; power loss costs what this long ago was not yet synced.
    PageCache(Duration),
    /// Nothing: it lives as long as the broker's process.
    Memory,
}

/// How a confirmed message reaches other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replication {
    /// A majority has it before the confirmation.
    Quorum,
    /// Others get it later; a failover can lose what was confirmed.
    Async,
    /// There are no others.
    None,
}

/// Whether the broker drops a repeated message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishDedup {
    /// No.
    None,
    /// Yes, for this long.
    Window(Duration),
    /// Yes, for the last ids of a producer.
    Ids(u32),
}

/// What becomes of a message whose topic has no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoSubscriber {
    /// It stays in the topic.
    Retain,
    /// It is stored aside, counted, alarmed and recoverable.
    Park,
    /// The publish fails with `Unroutable`.
    Reject,
}

/// Who refuses a settlement whose lease is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fencing {
    /// The broker.
    Broker,
    /// The backend, by a local monotonic clock.
    LocalClock,
}

/// How good the count of deliveries is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deliveries {
    /// Every hand-over counts.
    Exact,
    /// Only "redelivered or not" is known: crash isolation is `Unsupported`.
    Flag,
    /// After an unclean end, everything that may have been handed over counts.
    Suspected,
}

/// Where a message waits for its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryPlace {
    /// Where it stands.
    InPlace,
    /// In a copy: a crash between copy and settle leaves two, with the same id.
    Copy,
}

/// How a message gets into the dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveKind {
    /// In one step.
    Atomic,
    /// Copy, confirm, then settle: a crash in between duplicates, with the same dead-letter id.
    CopyThenSettle,
}

/// What holds a delivery with its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseKind {
    /// The connection: no extension needed.
    Connection,
    /// A clock in the broker: extended while the delivery is held.
    Timed,
    /// Membership in the group, and a clock of the backend's own.
    Session,
}

/// Everything that a backend declares.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each a row of the matrix")]
pub struct Capabilities {
    /// What a confirmed message survives on one node.
    pub durability: Durability,
    /// How it reaches other nodes.
    pub replication: Replication,
    /// Whether a repeated id is dropped.
    pub publish_dedup: PublishDedup,
    /// What becomes of a message whose topic has no group.
    pub no_subscriber: NoSubscriber,
    /// Whether `Ok` from a settlement means that the broker said so, not only that it was written.
    pub settle_confirmed: bool,
    /// Who refuses a settlement whose lease is lost.
    pub settle_fenced: Fencing,
    /// How good the count of deliveries is.
    pub deliveries: Deliveries,
    /// Whether a release leaves the count of deliveries alone.
    pub release_uncounted: bool,
    /// How soon what was released is visible to other members.
    pub release_latency: Duration,
    /// Where a message waits for its next attempt.
    pub retry_place: RetryPlace,
    /// Durable delays.
    pub delay: Support,
    /// The shortest durable delay.
    pub delay_min: Duration,
    /// By what share of itself a delay may be late, on top of the stated bound.
    pub delay_rel_error: f64,
    /// The longest durable delay, where there is a limit.
    pub delay_max: Option<Duration>,
    /// Dead-letter queues.
    pub dead_letters: Support,
    /// How a message gets into the dead-letter queue.
    pub dlq_move: MoveKind,
    /// The suspect lane of crash isolation.
    pub suspect_lane: Support,
    /// What holds a delivery with its consumer.
    pub lease: LeaseKind,
    /// Whether a new group can start at the earliest stored message.
    pub replay: bool,
    /// Whether `Stats` are exact at the moment of the call, so that `idle()` is too.
    pub exact_stats: bool,
    /// The largest body and metadata together, in bytes.
    pub max_message: usize,
    /// The most deliveries that one consumer can hold.
    pub max_prefetch: u16,
}
