//! What is stored: messages, and the topic that keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use longshore_core::{Headers, MessageId, SmolStr, TopicName};
use tokio::time::Instant;

use crate::dedup::Recent;

/// A message as published. All groups share it; nothing in it ever changes.
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) published: Instant,
    pub(crate) published_at: SystemTime,
    pub(crate) body: Bytes,
    pub(crate) key: Option<Bytes>,
    pub(crate) id: Option<MessageId>,
    pub(crate) message_type: Option<SmolStr>,
    pub(crate) content_type: Option<SmolStr>,
    pub(crate) headers: Headers,
    /// The record that a foreign program wrote beside it, encoded.
    pub(crate) record: Option<Arc<str>>,
}

/// A message as one group has it.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) entry: Arc<Entry>,
    /// The retry record as a real broker would keep it: encoded.
    pub(crate) record: Option<Arc<str>>,
    /// How often this copy was handed over.
    pub(crate) count: u32,
    pub(crate) home: Home,
}

/// Who keeps the message while the group has not settled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// The topic, for all groups.
    Topic,
    /// The group alone: it came back from the dead-letter queue.
    Group,
}

impl Item {
    pub(crate) fn published(entry: Arc<Entry>) -> Self {
        let record = entry.record.clone();
        Self { entry, record, count: 0, home: Home::Topic }
    }

    pub(crate) fn seq(&self) -> u64 {
        self.entry.seq
    }
}

pub(crate) struct Topic {
    pub(crate) name: TopicName,
    /// The places of its groups in the world's list.
    pub(crate) groups: Vec<usize>,
    pub(crate) recent: Recent,
    stored: BTreeMap<u64, Stored>,
    next_seq: u64,
}

struct Stored {
    entry: Arc<Entry>,
    /// How many groups have not settled it.
    holders: usize,
}

impl Topic {
    pub(crate) fn new(name: TopicName, recent: Recent) -> Self {
        Self { name, groups: Vec::new(), recent, stored: BTreeMap::new(), next_seq: 1 }
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub(crate) fn store(&mut self, entry: Arc<Entry>) {
        self.next_seq = entry.seq + 1;
        self.stored.insert(entry.seq, Stored { entry, holders: self.groups.len() });
    }

    /// One group has settled the message; whether that was the last and the message is gone.
    pub(crate) fn settled(&mut self, seq: u64) -> bool {
        let Some(stored) = self.stored.get_mut(&seq) else {
            return false;
        };
        stored.holders = stored.holders.saturating_sub(1);
        stored.holders == 0 && self.stored.remove(&seq).is_some()
    }

    /// Everything stored, oldest first, for a new group that will settle it too.
    pub(crate) fn share_all(&mut self) -> impl Iterator<Item = Item> {
        self.stored.values_mut().map(|stored| {
            stored.holders += 1;
            Item::published(stored.entry.clone())
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.stored.len()
    }
}
