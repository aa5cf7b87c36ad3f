//! What is stored: messages, and the topic that keeps them.

use std::collections::{BTreeMap, VecDeque};
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
    pub(crate) known: Recent,
    /// What is stored, by its place, with a gap for what is gone; the first has place `first`.
    recent: VecDeque<Option<Stored>>,
    first: u64,
    /// What was left behind by those around it, so that a message that waits for hours does not
    /// keep a gap for each of a million later ones.
    old: BTreeMap<u64, Stored>,
    next_seq: u64,
    len: usize,
}

/// Gaps that are kept without a look at how many there are.
const GAPS: usize = 1024;

struct Stored {
    entry: Arc<Entry>,
    /// How many groups have not settled it.
    holders: usize,
}

impl Topic {
    pub(crate) fn new(name: TopicName, known: Recent) -> Self {
        Self {
            name,
            groups: Vec::new(),
            known,
            recent: VecDeque::new(),
            first: 1,
            old: BTreeMap::new(),
            next_seq: 1,
            len: 0,
        }
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Stores the entry of [`Topic::next_seq`].
    pub(crate) fn store(&mut self, entry: Arc<Entry>) {
        debug_assert_eq!(entry.seq, self.next_seq, "places follow each other without a gap");
        self.next_seq += 1;
        self.len += 1;
        self.recent.push_back(Some(Stored { entry, holders: self.groups.len() }));
    }

    /// One group has settled the message; whether that was the last and the message is gone.
    pub(crate) fn settled(&mut self, seq: u64) -> bool {
        let place = seq.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let found = match place {
            Some(place) => self.recent.get_mut(place).and_then(Option::as_mut),
            None => self.old.get_mut(&seq),
        };
        let Some(stored) = found else { return false };
        stored.holders = stored.holders.saturating_sub(1);
        if stored.holders > 0 {
            return false;
        }
        match place {
            Some(place) => self.recent[place] = None,
            None => drop(self.old.remove(&seq)),
        }
        self.len -= 1;
        self.close_gaps();
        true
    }

    /// Leaves no gap in front, and bounds those behind by what is stored.
    fn close_gaps(&mut self) {
        while let Some(front) = self.recent.front() {
            if front.is_some() && self.recent.len() <= GAPS + 2 * self.len {
                return;
            }
            if let Some(stored) = self.recent.pop_front().flatten() {
                self.old.insert(self.first, stored);
            }
            self.first += 1;
        }
    }

    /// Everything stored, oldest first, for a new group that will settle it too.
    pub(crate) fn share_all(&mut self) -> impl Iterator<Item = Item> {
        let recent = self.recent.iter_mut().flatten();
        self.old.values_mut().chain(recent).map(|stored| {
            stored.holders += 1;
            Item::published(stored.entry.clone())
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use longshore_core::Message;

    use super::*;
    use crate::codec;

    fn store(topic: &mut Topic, count: u64) {
        for _ in 0..count {
            let id = MessageId::generate();
            let now = Instant::now();
            let message = Message::new("m");
            let entry = codec::entry(message, id, topic.next_seq(), now, SystemTime::UNIX_EPOCH);
            topic.store(Arc::new(entry));
        }
    }

    #[test]
    fn a_message_that_waits_for_long_keeps_no_gaps_for_later_ones() {
        let mut topic = Topic::new("orders".try_into().unwrap(), Recent::new(Duration::ZERO, 16));
        topic.groups.push(0);
        store(&mut topic, 1);
        for _ in 0..100 {
            let next = topic.next_seq();
            store(&mut topic, 1000);
            (next..next + 999).for_each(|seq| assert!(topic.settled(seq), "{seq}"));
            assert!(topic.recent.len() <= GAPS + 2 * topic.len() + 1000);
        }
        assert_eq!(topic.len(), 101);
        let left: Vec<u64> = topic.share_all().map(|item| item.seq()).collect();
        assert_eq!(left.len(), 101);
        assert!(left.is_sorted());
        for seq in left {
            assert!(!topic.settled(seq), "a second group has it too");
            assert!(topic.settled(seq));
            assert!(!topic.settled(seq), "it is gone");
        }
        assert_eq!((topic.len(), topic.recent.len(), topic.old.len()), (0, 0, 0));
        assert!(!topic.settled(topic.next_seq()));
    }
}
