//! Faults of groups and of handing over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    Broker, ConsumerSpec, Event, GroupName, InstanceId, Message, MessageId, Mode, Received, Record,
    Result, Settlement, Source, TopicName, Topology,
};

use super::Mutant;
use super::fault::{Fault, Spread};

/// How long a group that is emptied is read without anything coming.
const EMPTY_AFTER: Duration = Duration::from_millis(50);

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "deliveries come one at a time",
        caught_by: &["consume.concurrency_is_reached_and_kept"],
        make: || Box::new(OneAtATime),
    },
    Mutant {
        name: "all groups of a topic share one queue",
        caught_by: &["group.each_gets_everything"],
        make: || Box::new(OneQueue),
    },
    Mutant {
        name: "every member of a group gets everything",
        caught_by: &["group.members_share"],
        make: || Box::new(Spreads(Spread::Members)),
    },
    Mutant {
        name: "every message is delivered twice",
        caught_by: &["settle.ack_is_durable", "retry.succeeds_after_failures"],
        make: || Box::new(Spreads(Spread::Again)),
    },
    Mutant {
        name: "messages of other programs are dropped",
        caught_by: &["bad_input.foreign_message"],
        make: || Box::new(OwnOnly::default()),
    },
    Mutant {
        name: "attempts are counted by hand-overs",
        caught_by: &["attempt.counts_failures_only"],
        make: || Box::new(CountsDeliveries),
    },
    Mutant {
        name: "declaring a group again empties it",
        caught_by: &["topology.redeclare_is_idempotent"],
        make: || Box::new(Resets),
    },
    Mutant {
        name: "other settings are accepted in silence",
        caught_by: &["topology.redeclare_is_idempotent"],
        make: || Box::new(HidesDrift),
    },
];

#[derive(Debug)]
struct OneAtATime;

impl Fault for OneAtATime {
    fn open(&self, spec: ConsumerSpec, _: &[(TopicName, GroupName)]) -> ConsumerSpec {
        ConsumerSpec { prefetch: 1, ..spec }
    }
}

#[derive(Debug)]
struct OneQueue;

impl Fault for OneQueue {
    fn open(&self, mut spec: ConsumerSpec, known: &[(TopicName, GroupName)]) -> ConsumerSpec {
        if let Source::Group { topic, group } = &mut spec.source
            && let Some((_, first)) = known.iter().find(|(other, _)| other == topic)
        {
            *group = first.clone();
        }
        spec
    }
}

#[derive(Debug)]
struct Spreads(Spread);

impl Fault for Spreads {
    fn spread(&self, source: &Source) -> Spread {
        if matches!(source, Source::Group { .. }) { self.0 } else { Spread::Nobody }
    }
}

#[derive(Debug, Default)]
struct OwnOnly(Mutex<HashSet<MessageId>>);

impl Fault for OwnOnly {
    fn publish(&self, _: &TopicName, message: Message, out: &mut Vec<Message>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(message.id.clone());
        out.push(message);
    }

    fn deliver(&self, _: &Source, received: Received) -> Option<Received> {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        received.id.as_ref().is_some_and(|id| own.contains(id)).then_some(received)
    }
}

#[derive(Debug)]
struct CountsDeliveries;

impl Fault for CountsDeliveries {
    fn deliver(&self, _: &Source, mut received: Received) -> Option<Received> {
        let failures = received.deliveries.saturating_sub(1);
        let record = received.record.as_deref().cloned().unwrap_or_default();
        received.record = Some(Arc::new(Record { failures, ..record }));
        Some(received)
    }
}

#[derive(Debug)]
struct Resets;

#[async_trait]
impl Fault for Resets {
    async fn declare(
        &self,
        inner: &Arc<dyn Broker>,
        topology: &Topology,
        known: &[(TopicName, GroupName)],
    ) -> Result<()> {
        inner.declare(topology).await?;
        for group in &topology.groups {
            if topology.mode == Mode::Declare
                && known.contains(&(group.topic.clone(), group.name.clone()))
            {
                empty(inner, &group.topic, &group.name, group.lease).await?;
            }
        }
        Ok(())
    }
}

async fn empty(
    inner: &Arc<dyn Broker>,
    topic: &TopicName,
    group: &GroupName,
    lease: Duration,
) -> Result<()> {
    let source = Source::Group { topic: topic.clone(), group: group.clone() };
    let spec = ConsumerSpec { source, prefetch: 100, lease, instance: InstanceId::generate() };
    let consumer = inner.consumer(&spec).await?;
    let mut events = Vec::new();
    while tokio::time::timeout(EMPTY_AFTER, consumer.receive(&mut events, 100)).await.is_ok() {
        let acks: Vec<_> = events
            .drain(..)
            .filter_map(|event| match event {
                Event::Message(received) => Some(Settlement::Ack(received.token)),
                _ => None,
            })
            .collect();
        consumer.settle(&acks, &mut Vec::new()).await;
    }
    consumer.close().await
}

#[derive(Debug)]
struct HidesDrift;

#[async_trait]
impl Fault for HidesDrift {
    async fn declare(
        &self,
        inner: &Arc<dyn Broker>,
        topology: &Topology,
        _: &[(TopicName, GroupName)],
    ) -> Result<()> {
        match inner.declare(topology).await {
            Err(error) if error.kind() == longshore_core::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }
}
