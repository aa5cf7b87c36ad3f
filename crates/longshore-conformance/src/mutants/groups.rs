//! Faults of topics and groups: who has what, from when on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use longshore_core::{
    Broker, ConsumerSpec, GroupName, Message, MessageId, Received, Result, Settlement, Source,
    Start, TopicName, Topology,
};

use super::Mutant;
use super::fault::Fault;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a message that no group has is confirmed and dropped",
        caught_by: &["publish.without_a_group"],
        make: || Box::new(DropsUnheard::default()),
    },
    Mutant {
        name: "a message that nobody reads is confirmed and dropped",
        caught_by: &["group.waits_for_its_members"],
        make: || Box::new(DropsUnread::default()),
    },
    Mutant {
        name: "a refused declaration is half done",
        caught_by: &["publish.missing_topic_is_not_found"],
        make: || Box::new(HalfDone),
    },
    Mutant {
        name: "a new group starts with everything",
        caught_by: &["consume.new_group_starts_where_asked", "group.waits_for_its_members"],
        make: || Box::new(Starts(Start::Earliest)),
    },
    Mutant {
        name: "a new group never starts at the earliest message",
        caught_by: &["consume.new_group_starts_where_asked", "publish.without_a_group"],
        make: || Box::new(Starts(Start::Declared)),
    },
    Mutant {
        name: "a group's position is forgotten when its reader closes",
        caught_by: &["settle.ack_is_durable", "group.waits_for_its_members"],
        make: || Box::new(Replays::default()),
    },
    Mutant {
        name: "what one group acknowledges is gone for all",
        caught_by: &["group.added_late_misses_nothing"],
        make: || Box::new(AckedForAll::default()),
    },
    Mutant {
        name: "names that differ in a sign share a place",
        caught_by: &["names.grammar_is_one"],
        make: || Box::new(Signs),
    },
];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct DropsUnheard(Mutex<HashSet<TopicName>>);

#[async_trait]
impl Fault for DropsUnheard {
    async fn declare(
        &self,
        inner: &Arc<dyn Broker>,
        topology: &Topology,
        _: &[(TopicName, GroupName)],
    ) -> Result<()> {
        lock(&self.0).extend(topology.groups.iter().map(|group| group.topic.clone()));
        inner.declare(topology).await
    }

    fn publish(&self, topic: &TopicName, message: Message, out: &mut Vec<Message>) {
        if lock(&self.0).contains(topic) {
            out.push(message);
        }
    }
}

#[derive(Debug, Default)]
struct DropsUnread(Mutex<HashSet<TopicName>>);

impl Fault for DropsUnread {
    fn open(&self, spec: ConsumerSpec, _: &[(TopicName, GroupName)]) -> ConsumerSpec {
        lock(&self.0).insert(spec.source.topic().clone());
        spec
    }

    fn publish(&self, topic: &TopicName, message: Message, out: &mut Vec<Message>) {
        if lock(&self.0).contains(topic) {
            out.push(message);
        }
    }
}

#[derive(Debug)]
struct HalfDone;

#[async_trait]
impl Fault for HalfDone {
    async fn declare(
        &self,
        inner: &Arc<dyn Broker>,
        topology: &Topology,
        _: &[(TopicName, GroupName)],
    ) -> Result<()> {
        for group in &topology.groups {
            let one = Topology { mode: topology.mode, ..Topology::group(group.clone()) };
            inner.declare(&one).await?;
        }
        inner.declare(topology).await
    }
}

#[derive(Debug)]
struct Starts(Start);

#[async_trait]
impl Fault for Starts {
    async fn declare(
        &self,
        inner: &Arc<dyn Broker>,
        topology: &Topology,
        _: &[(TopicName, GroupName)],
    ) -> Result<()> {
        let mut topology = topology.clone();
        topology.groups.iter_mut().for_each(|group| group.start = self.0);
        inner.declare(&topology).await
    }
}

#[derive(Debug, Default)]
struct Replays(Mutex<Vec<(Source, Received)>>);

impl Fault for Replays {
    fn deliver(&self, source: &Source, received: Received) -> Option<Received> {
        if matches!(source, Source::Group { .. }) {
            lock(&self.0).push((source.clone(), received.clone()));
        }
        Some(received)
    }

    fn replay(&self, source: &Source) -> Vec<Received> {
        let all = lock(&self.0);
        all.iter().filter(|(of, _)| of == source).map(|(_, received)| received.clone()).collect()
    }
}

/// Who had a message first, and whether it was acknowledged.
#[derive(Debug, Default)]
struct AckedForAll(Mutex<HashMap<MessageId, (GroupName, bool)>>);

impl Fault for AckedForAll {
    fn deliver(&self, source: &Source, received: Received) -> Option<Received> {
        let mut known = lock(&self.0);
        let id = received.id.clone()?;
        let (first, acked) =
            known.entry(id).or_insert_with(|| (source.group().clone(), false)).clone();
        (!acked || first == *source.group()).then_some(received)
    }

    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        if matches!(settlement, Settlement::Ack(_))
            && let Some(id) = &received.id
            && let Some((_, acked)) = lock(&self.0).get_mut(id)
        {
            *acked = true;
        }
        out.push(settlement);
    }
}

#[derive(Debug)]
struct Signs;

impl Fault for Signs {
    fn stray(&self, topic: &TopicName, known: &[(TopicName, GroupName)]) -> Option<TopicName> {
        let plain = |name: &TopicName| name.as_str().replace(['.', '_'], "-");
        let same = |other: &&TopicName| *other != topic && plain(other) == plain(topic);
        known.iter().map(|(other, _)| other).find(same).cloned()
    }
}
