//! Faults of groups and of handing over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    Broker, ConsumerSpec, ErrorKind, Event, GroupName, Headers, InstanceId, Message, MessageId,
    Mode, Received, Record, Result, Settlement, Source, TopicName, Topology,
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
        make: || Box::new(Spreads(Spread::Again(1))),
    },
    Mutant {
        name: "every message is delivered three times",
        caught_by: &["settle.ack_is_durable", "retry.succeeds_after_failures"],
        make: || Box::new(Spreads(Spread::Again(2))),
    },
    Mutant {
        name: "messages of other programs are dropped",
        caught_by: &["bad_input.foreign_message"],
        make: || Box::new(OwnOnly::default()),
    },
    Mutant {
        name: "attempts are counted by hand-overs",
        caught_by: &[
            "attempt.counts_failures_only",
            "settle.lost_ack_is_no_failure",
            "attempt.crash_is_no_failure",
        ],
        make: || Box::new(CountsDeliveries),
    },
    Mutant {
        name: "hand-overs are not counted",
        caught_by: &[
            "attempt.counts_failures_only",
            "dead_letter.metadata_is_complete",
            "attempt.crash_is_no_failure",
            "crash.culprit_is_named",
        ],
        make: || Box::new(Delivers(|received| received.deliveries = 1)),
    },
    Mutant {
        name: "the body of a retried message is read as text",
        caught_by: &["fidelity.every_byte_value"],
        make: || {
            Box::new(Delivers(|received| {
                if received.attempt() > 1 {
                    received.body = String::from_utf8_lossy(&received.body).into_owned().into();
                }
            }))
        },
    },
    Mutant {
        name: "a retried message loses its headers",
        caught_by: &[
            "redrive.resets_attempts_and_loses_nothing",
            "retry.handler_changes_do_not_leak",
            "fidelity.trace_parent_is_kept",
            "fidelity.awkward_headers",
        ],
        make: || {
            Box::new(Delivers(|received| {
                if received.attempt() > 1 {
                    received.headers = Headers::new();
                }
            }))
        },
    },
    Mutant {
        name: "declaring a group again empties it",
        caught_by: &["topology.redeclare_is_idempotent"],
        make: || Box::new(Resets),
    },
    Mutant {
        name: "other settings are accepted in silence",
        caught_by: &["topology.redeclare_is_idempotent", "dead_letter.queue_is_there_at_start"],
        make: || Box::new(HidesDrift(Mode::Declare)),
    },
    Mutant {
        name: "verifying hides other settings",
        caught_by: &["topology.redeclare_is_idempotent"],
        make: || Box::new(HidesDrift(Mode::Verify)),
    },
    Mutant {
        name: "verifying makes what is missing",
        caught_by: &["topology.redeclare_is_idempotent", "publish.missing_topic_is_not_found"],
        make: || Box::new(MakesMissing),
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

/// Changes what is handed over.
#[derive(Debug)]
pub(super) struct Delivers(pub(super) fn(&mut Received));

impl Fault for Delivers {
    fn deliver(&self, _: &Source, mut received: Received) -> Option<Received> {
        (self.0)(&mut received);
        Some(received)
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
                let source =
                    Source::Group { topic: group.topic.clone(), group: group.name.clone() };
                empty(inner, source, group.lease).await?;
            }
        }
        Ok(())
    }
}

/// Acknowledges all that a source has.
pub(super) async fn empty(inner: &Arc<dyn Broker>, source: Source, lease: Duration) -> Result<()> {
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
struct HidesDrift(Mode);

#[async_trait]
impl Fault for HidesDrift {
    async fn declare(
        &self,
        inner: &Arc<dyn Broker>,
        topology: &Topology,
        _: &[(TopicName, GroupName)],
    ) -> Result<()> {
        match inner.declare(topology).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && topology.mode == self.0 => {
                Ok(())
            }
            result => result,
        }
    }
}

#[derive(Debug)]
struct MakesMissing;

#[async_trait]
impl Fault for MakesMissing {
    async fn declare(
        &self,
        inner: &Arc<dyn Broker>,
        topology: &Topology,
        _: &[(TopicName, GroupName)],
    ) -> Result<()> {
        inner.declare(&Topology { mode: Mode::Declare, ..topology.clone() }).await
    }
}
