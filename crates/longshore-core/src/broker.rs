use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use smol_str::{SmolStr, format_smolstr};

use crate::{
    Capabilities, Clock, Consumer, ConsumerSpec, GroupName, NoProbe, Position, Probe, Publisher,
    Received, Result, SystemClock, TopicName, Topology,
};

/// A connection to a broker.
///
/// # Promises of every implementation
/// 1. It never retries a message and never decides: it executes settlements and keeps its
///    connection alive.
/// 2. Every method ends within the connection's deadline, with a typed error at the latest.
/// 3. Futures may be dropped at any await: what was begun ends or never happens, and nothing leaks.
/// 4. Wrong credentials and refused permissions are fatal and typed, and cause no reconnects.
/// 5. Names reach the broker as arguments, never by formatting into a script or a pattern.
#[async_trait]
pub trait Broker: Debug + Send + Sync + 'static {
    /// Name, schemes, server version, capabilities and the named steps of its moves.
    fn info(&self) -> &BrokerInfo;

    /// Makes, verifies or assumes `topology`, as its mode says.
    ///
    /// # Behaviour
    /// - Idempotent; callable from many processes at once.
    /// - A topic or group that exists with other settings is `AlreadyExists` with every difference
    ///   in a [`Drift`](crate::Drift), and nothing is changed. `start` is never drift; `lease` is
    ///   updated.
    /// - A message that is published after a group was declared reaches that group.
    async fn declare(&self, topology: &Topology) -> Result<()>;

    /// Opens a publisher to a topic that exists; `NotFound` where it does not.
    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>>;

    /// Opens a consumer; `NotFound` where its group does not exist.
    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>>;

    /// Reads without settling, oldest first. On RabbitMQ it holds and returns what it reads.
    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>>;

    /// Counts and ages, for metrics and the operator. Exact where the capability `exact_stats`
    /// says so.
    async fn stats(&self, source: &Source) -> Result<Stats>;

    /// Settings of the broker that break or weaken a promise.
    async fn audit(&self) -> Result<Vec<Finding>>;

    /// Closes the connection. Idempotent; what is in flight gets `Closed`.
    async fn close(&self) -> Result<()>;

    /// The native client, for what longshore does not cover; each backend's page lists the types
    /// that it can be downcast to.
    fn native(&self) -> &(dyn Any + Send + Sync);
}

/// What a backend says of itself.
#[derive(Clone, Debug)]
pub struct BrokerInfo {
    /// The backend's name, as in errors, metrics and dead letters.
    pub name: &'static str,
    /// The URL schemes that it answers to.
    pub schemes: &'static [&'static str],
    /// The server and its version, such as `nats-server 2.15.1`.
    pub server: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The durable steps inside its moves, in order, for [`Probe::hit`]; none where a move is
    /// atomic.
    pub steps: &'static [&'static str],
}

/// What every backend's `connect(url, setup)` is given beside the URL.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Who this process is.
    pub instance: InstanceId,
    /// Hit after each durable step inside a move.
    pub probe: Arc<dyn Probe>,
    /// Where wall-clock times come from.
    pub clock: Arc<dyn Clock>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            instance: InstanceId::generate(),
            probe: Arc::new(NoProbe),
            clock: Arc::new(SystemClock),
        }
    }
}

/// One process among the members of a group: unique for each start, so that a restarted process is
/// never taken for the dead one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(SmolStr);

impl InstanceId {
    /// A new one: the process id, and random digits that make each start distinct.
    #[must_use]
    pub fn generate() -> Self {
        let nonce = uuid::Uuid::new_v4().as_u64_pair().1 as u32;
        Self(format_smolstr!("{}-{nonce:08x}", std::process::id()))
    }

    /// As text: letters, digits and `-`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a consumer or a browse reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A group's messages: fresh, retried and redriven.
    Group {
        /// The topic, with the tenant's prefix.
        topic: TopicName,
        /// The group.
        group: GroupName,
    },
    /// A group's suspect lane; one member reads at a time.
    Suspects {
        /// The topic, with the tenant's prefix.
        topic: TopicName,
        /// The group.
        group: GroupName,
    },
    /// A group's dead letters.
    DeadLetters {
        /// The topic, with the tenant's prefix.
        topic: TopicName,
        /// The group.
        group: GroupName,
    },
}

impl Source {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        match self {
            Self::Group { topic, .. }
            | Self::Suspects { topic, .. }
            | Self::DeadLetters { topic, .. } => topic,
        }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        match self {
            Self::Group { group, .. }
            | Self::Suspects { group, .. }
            | Self::DeadLetters { group, .. } => group,
        }
    }
}

/// Which part of a source a browse returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Start behind this one; from the oldest where absent.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// A place in a source: the position of what was read last.
pub type Cursor = Position;

/// What stands where in a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Ready to be handed over.
    pub ready: u64,
    /// Handed over and not settled.
    pub in_flight: u64,
    /// In the retry lane.
    pub waiting: u64,
    /// The age of the oldest that is ready.
    pub oldest_ready: Option<Duration>,
    /// The age of the oldest that is waiting.
    pub oldest_waiting: Option<Duration>,
    /// What had nowhere to go and is parked beside the topics: messages of a topic without a group,
    /// and retries of a group that was deleted. Asked of a group, it counts those of all topics that
    /// share the place; 0 where the broker needs none.
    pub unrouted: u64,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// A promise holds in fewer cases than it reads.
    Warning,
    /// A promise is broken under this setting.
    Danger,
}

/// A setting of the broker that breaks or weakens a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// The setting, as the broker spells it.
    pub setting: String,
    /// What it does to which promise, and what to set instead.
    pub message: String,
}
