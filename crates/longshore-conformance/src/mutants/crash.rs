//! Faults that show when a message comes again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_core::{
    ConsumerSpec, GroupName, Message, MessageId, Received, Record, Settlement, Source, TopicName,
};

use super::Mutant;
use super::fault::Fault;

/// Where a letter is too large for a broker that forgot the room for its metadata.
const LARGE: usize = 512 * 1024;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "what a dead member held is lost",
        caught_by: &[
            "crash.held_message_returns",
            "settle.ack_spares_earlier_deliveries",
            "settle.lost_ack_is_no_failure",
            "retry.torn_move_loses_nothing",
        ],
        make: || Box::new(LosesHeld),
    },
    Mutant {
        name: "a message is dropped at its third hand-over",
        caught_by: &["crash.deployments_cost_nothing", "attempt.broker_limit_loses_nothing"],
        make: || Box::new(Limit::of(2)),
    },
    Mutant {
        name: "a message is dropped after 200 hand-overs",
        caught_by: &["attempt.broker_limit_loses_nothing"],
        make: || Box::new(Limit::of(200)),
    },
    Mutant {
        name: "the suspect lane loses what it is given",
        caught_by: &["crash.culprit_is_named"],
        make: || Box::new(Suspects),
    },
    Mutant {
        name: "records live in the process that wrote them",
        caught_by: &["attempt.survives_restart", "attempt.copies_keep_the_cap"],
        make: || Box::new(Forgetful::default()),
    },
    Mutant {
        name: "a record that cannot be read counts as the last attempt",
        caught_by: &["attempt.hostile_record_is_clamped"],
        make: || Box::new(LastAttempt::default()),
    },
    Mutant {
        name: "a failure takes the rest of its batch with it",
        caught_by: &["batch.one_bad_item_is_alone"],
        make: || Box::new(OneFate::default()),
    },
    Mutant {
        name: "an order that makes no sense is an ack",
        caught_by: &["settle.unsupported_is_typed"],
        make: || Box::new(Obeys),
    },
    Mutant {
        name: "large dead letters are lost",
        caught_by: &["dead_letter.fits_whatever_its_size"],
        make: || Box::new(LosesLarge),
    },
    Mutant {
        name: "a letter that a redrive passes over is lost",
        caught_by: &["redrive.filters_by_what_is_known"],
        make: || Box::new(LosesPassed),
    },
];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct LosesHeld;

impl Fault for LosesHeld {
    fn deliver(&self, _: &Source, received: Received) -> Option<Received> {
        (received.unexplained() == 0).then_some(received)
    }
}

#[derive(Debug)]
struct Limit {
    most: u32,
    counts: Mutex<HashMap<MessageId, u32>>,
}

impl Limit {
    fn of(most: u32) -> Self {
        Self { most, counts: Mutex::default() }
    }
}

impl Fault for Limit {
    fn deliver(&self, source: &Source, received: Received) -> Option<Received> {
        if !matches!(source, Source::Group { .. }) {
            return Some(received);
        }
        let mut counts = lock(&self.counts);
        let count = counts.entry(received.id.clone()?).or_default();
        *count += 1;
        (*count <= self.most).then_some(received)
    }
}

#[derive(Debug)]
struct Suspects;

impl Fault for Suspects {
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Suspect { token, .. } => Settlement::Ack(token),
            other => other,
        });
    }
}

/// The messages whose records were written since the group's last reader came.
#[derive(Debug, Default)]
struct Forgetful(Mutex<HashSet<MessageId>>);

impl Fault for Forgetful {
    fn open(&self, spec: ConsumerSpec, _: &[(TopicName, GroupName)]) -> ConsumerSpec {
        if matches!(spec.source, Source::Group { .. }) {
            lock(&self.0).clear();
        }
        spec
    }

    fn deliver(&self, _: &Source, mut received: Received) -> Option<Received> {
        if received.id.as_ref().is_some_and(|id| !lock(&self.0).contains(id)) {
            received.record = None;
        }
        Some(received)
    }

    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        if matches!(settlement, Settlement::Retry { .. }) {
            lock(&self.0).extend(received.id.clone());
        }
        out.push(settlement);
    }
}

/// Tells the messages of other programs by the ids that it saw published.
#[derive(Debug, Default)]
struct LastAttempt(Mutex<HashSet<MessageId>>);

impl Fault for LastAttempt {
    fn publish(&self, _: &TopicName, message: Message, out: &mut Vec<Message>) {
        lock(&self.0).extend(message.id.clone());
        out.push(message);
    }

    fn deliver(&self, _: &Source, mut received: Received) -> Option<Received> {
        let foreign = received.id.as_ref().is_none_or(|id| !lock(&self.0).contains(id));
        if foreign && received.record.is_none() {
            received.record = Some(Arc::new(Record { failures: 1000, ..Record::default() }));
        }
        Some(received)
    }
}

#[derive(Debug, Default)]
struct OneFate(AtomicBool);

impl Fault for OneFate {
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        if matches!(settlement, Settlement::Retry { .. }) {
            self.0.store(true, Ordering::Relaxed);
        }
        out.push(match settlement {
            Settlement::Ack(token) if self.0.load(Ordering::Relaxed) => {
                let deliveries = received.deliveries;
                let record =
                    Record { failures: 1, deliveries, delayed: deliveries, ..Record::default() };
                let after = Duration::from_millis(100);
                Settlement::Retry { token, after, record: Box::new(record) }
            }
            other => other,
        });
    }
}

#[derive(Debug)]
struct Obeys;

impl Fault for Obeys {
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Redrive { token, .. } if received.letter.is_none() => {
                Settlement::Ack(token)
            }
            other => other,
        });
    }
}

#[derive(Debug)]
struct LosesLarge;

impl Fault for LosesLarge {
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::DeadLetter { token, .. } if received.body.len() > LARGE => {
                Settlement::Ack(token)
            }
            other => other,
        });
    }
}

#[derive(Debug)]
struct LosesPassed;

impl Fault for LosesPassed {
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Release { token, .. } if received.letter.is_some() => {
                Settlement::Ack(token)
            }
            other => other,
        });
    }
}
