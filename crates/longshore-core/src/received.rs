use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};

use crate::{AckToken, Headers, Letter, MessageId, Record, TopicName};

/// One delivery as data: the message and what is known of its past. Cheap to clone.
///
/// Handlers get it. They cannot settle: the token is of use only to who holds the consumer.
#[derive(Clone)]
pub struct Received {
    /// Names this delivery to the consumer that handed it over.
    pub token: AckToken,
    /// The topic, with the tenant's prefix.
    pub topic: TopicName,
    /// The body as published.
    pub body: Bytes,
    /// The key as published.
    pub key: Option<Bytes>,
    /// The id as published, or the position of a foreign message without one. Absent only where a
    /// broker has no positions (RabbitMQ) and nobody gave one yet.
    pub id: Option<MessageId>,
    /// The message type as published.
    pub message_type: Option<SmolStr>,
    /// The content type as published.
    pub content_type: Option<SmolStr>,
    /// The headers as published; none of ours.
    pub headers: Headers,
    /// When the broker or the publisher says it was published.
    pub published_at: Option<SystemTime>,
    /// Where it stands in the broker.
    pub position: Position,
    /// Every hand-over so far, this one included: what the record says plus the broker's own count
    /// for this copy.
    pub deliveries: u32,
    /// How long this hand-over lasts without an extension, as the broker holds it for the group
    /// now; absent where the connection is the lease.
    pub lease: Option<Duration>,
    /// What travelled with it since its first attempt; absent before the first failure, and where
    /// it could not be read.
    pub record: Option<Arc<Record>>,
    /// Of a dead letter: why it is one.
    pub letter: Option<Arc<Letter>>,
}

impl Received {
    /// The number of this handler run: one more than the failures that are durable.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.record.as_ref().map_or(1, |record| record.failures.saturating_add(1))
    }

    /// The bytes of key and headers.
    #[must_use]
    pub fn metadata_size(&self) -> usize {
        self.headers.size() + self.key.as_ref().map_or(0, Bytes::len)
    }

    /// How often it came back without a failure, a delayed retry or a graceful return to explain
    /// it: the crashes and lost connections.
    #[must_use]
    pub fn unexplained(&self) -> u32 {
        let record = self.record.as_deref();
        let explained = record.map_or(0, |r| r.delayed.saturating_add(r.explained));
        self.deliveries.saturating_sub(1).saturating_sub(explained)
    }
}

/// Sizes only: a body or a key may hold what a log must not.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .field("body", &format_args!("{} B", self.body.len()))
            .field("position", &self.position)
            .field("deliveries", &self.deliveries)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// Where a message stands in its broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Position {
    /// The broker has none (RabbitMQ).
    #[default]
    None,
    /// A number in a stream (NATS, memory).
    Sequence(u64),
    /// An offset in a partition (Kafka).
    Offset {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// The id of a stream entry (Redis).
    Entry(SmolStr),
}

impl Position {
    /// As text, the same for ever: it goes into dead-letter ids. Empty for [`Position::None`].
    #[must_use]
    pub fn to_text(&self) -> SmolStr {
        match self {
            Self::None => SmolStr::default(),
            Self::Sequence(sequence) => format_smolstr!("{sequence}"),
            Self::Offset { partition, offset } => format_smolstr!("{partition}:{offset}"),
            Self::Entry(id) => id.clone(),
        }
    }
}
