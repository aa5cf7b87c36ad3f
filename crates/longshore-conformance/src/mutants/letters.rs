//! Faults of the dead-letter queue and of the way out of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use longshore_core::{
    Broker, GroupName, Letter, Page, Received, Record, Result, Settlement, SmolStr, Source,
    TopicName,
};

use super::Mutant;
use super::consume::empty;
use super::fault::Fault;

const METADATA: &[&str] = &["dead_letter.metadata_is_complete"];
const UNCHANGED: &[&str] = &["dead_letter.message_is_unchanged"];

/// A mutant whose letters are written otherwise.
const fn writes(name: &'static str, make: fn() -> Box<dyn Fault>) -> Mutant {
    Mutant { name, caught_by: METADATA, make }
}

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "dead letters are lost",
        caught_by: &[
            "dead_letter.exhausted_leaves_the_group",
            "dead_letter.undecodable_is_kept_raw",
            "retry.permanent_failure_is_not_retried",
            "swap.one_program_by_url",
        ],
        make: || Box::new(Lost),
    },
    Mutant {
        name: "a permanent failure is retried",
        caught_by: &["retry.permanent_failure_is_not_retried", "swap.same_outcome_everywhere"],
        make: || Box::new(Retries),
    },
    Mutant {
        name: "a dead letter stays in its group too",
        caught_by: &["dead_letter.exhausted_leaves_the_group"],
        make: || Box::new(Echoes(|order| matches!(order, Settlement::DeadLetter { .. }))),
    },
    Mutant {
        name: "dead letters are shown to every group",
        caught_by: &["dead_letter.stays_in_its_group"],
        make: || Box::new(Leaks),
    },
    Mutant {
        name: "the body of a dead letter is read as text",
        caught_by: &["dead_letter.undecodable_is_kept_raw", "dead_letter.message_is_unchanged"],
        make: || {
            Box::new(Shows(|dead| {
                dead.body = String::from_utf8_lossy(&dead.body).into_owned().into();
            }))
        },
    },
    Mutant {
        name: "a dead letter has no key",
        caught_by: UNCHANGED,
        make: || Box::new(Shows(|dead| dead.key = None)),
    },
    Mutant {
        name: "a dead letter lacks a header",
        caught_by: UNCHANGED,
        make: || {
            Box::new(Shows(|dead| dead.headers = dead.headers.iter().skip(1).cloned().collect()))
        },
    },
    Mutant {
        name: "a dead letter has a header more",
        caught_by: UNCHANGED,
        make: || {
            Box::new(Shows(|dead| {
                let name = longshore_core::HeaderName::from_static("x-death");
                dead.headers.append(name, Bytes::from_static(b"1"));
            }))
        },
    },
    Mutant {
        name: "a dead letter has no content type",
        caught_by: UNCHANGED,
        make: || Box::new(Shows(|dead| dead.content_type = None)),
    },
    Mutant {
        name: "looking at dead letters removes them",
        caught_by: &[
            "redrive.resets_attempts_and_loses_nothing",
            "dead_letter.peek_settles_nothing",
        ],
        make: || Box::new(Consumes),
    },
    writes("a dead letter has no metadata", || Box::new(Shows(|dead| dead.letter = None))),
    Mutant {
        name: "a letter's id is random",
        caught_by: &["dead_letter.metadata_is_complete", "dead_letter.duplicate_has_its_id"],
        make: || {
            Box::new(Writes(|letter| {
                letter.id = longshore_core::MessageId::generate().to_string().into();
            }))
        },
    },
    Mutant {
        name: "a letter has another reason",
        caught_by: &["dead_letter.metadata_is_complete", "redrive.filters_by_what_is_known"],
        make: || Box::new(Writes(|letter| letter.reason = longshore_core::Reason::Permanent)),
    },
    Mutant {
        name: "a dead letter grows with each redrive",
        caught_by: &["dead_letter.does_not_grow"],
        make: || {
            Box::new(Shows(|dead| {
                let redrives = dead.letter.as_ref().map_or(0, |letter| letter.redrive_count);
                for _ in 0..redrives {
                    let name = longshore_core::HeaderName::from_static("x-redriven");
                    dead.headers.append(name, Bytes::from_static(b"1"));
                }
            }))
        },
    },
    writes("a letter counts an attempt too many", || {
        Box::new(Writes(|letter| letter.attempts += 1))
    }),
    writes("a letter's deliveries are its attempts", || {
        Box::new(Writes(|letter| letter.deliveries = letter.attempts))
    }),
    writes("a letter forgets the delayed retries", || {
        Box::new(Writes(|letter| letter.delayed_retries = 0))
    }),
    writes("a letter has no history", || Box::new(Writes(|letter| letter.history.clear()))),
    writes("a letter's history lacks the last failure", || {
        Box::new(Writes(|letter| {
            letter.history.pop();
        }))
    }),
    writes("a letter has no error", || Box::new(Writes(|letter| letter.cause = None))),
    writes("a letter has no source", || {
        Box::new(Writes(|letter| letter.source = SmolStr::default()))
    }),
    writes("a letter names another group", || {
        Box::new(Writes(|letter| letter.source_group = "other".into()))
    }),
    writes("a letter has no backend", || {
        Box::new(Writes(|letter| letter.source_backend = SmolStr::default()))
    }),
    writes("a letter has no original id", || {
        Box::new(Writes(|letter| letter.original_id = SmolStr::default()))
    }),
    writes("a letter has no handler", || {
        Box::new(Writes(|letter| letter.handler = SmolStr::default()))
    }),
    writes("a letter has no version of the library", || {
        Box::new(Writes(|letter| letter.lib_version = SmolStr::default()))
    }),
    writes("a letter has no policy", || {
        Box::new(Writes(|letter| letter.policy = SmolStr::default()))
    }),
    writes("a letter's hash is of other bytes", || {
        Box::new(Writes(|letter| letter.payload_sha256 = Letter::payload_sha256(b"other")))
    }),
    writes("a letter's times are the epoch's", || {
        Box::new(Writes(|letter| letter.first_failed_at = SystemTime::UNIX_EPOCH))
    }),
    writes("a letter died before it failed", || {
        Box::new(Writes(|letter| {
            letter.dead_lettered_at = letter.last_failed_at - Duration::from_millis(5);
        }))
    }),
    writes("a letter was redriven before", || Box::new(Writes(|letter| letter.redrive_count += 1))),
];

#[derive(Debug)]
struct Lost;

impl Fault for Lost {
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::DeadLetter { token, .. } => Settlement::Ack(token),
            other => other,
        });
    }
}

#[derive(Debug)]
struct Retries;

impl Fault for Retries {
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::DeadLetter { token, letter } => {
                let record = Box::new(Record {
                    failures: letter.attempts,
                    deliveries: received.deliveries,
                    delayed: received.deliveries,
                    ..Record::default()
                });
                Settlement::Retry { token, after: Duration::from_millis(100), record }
            }
            other => other,
        });
    }
}

#[derive(Debug)]
pub(super) struct Echoes(pub(super) fn(&Settlement) -> bool);

impl Fault for Echoes {
    fn echo(&self, settlement: &Settlement) -> bool {
        (self.0)(settlement)
    }
}

#[derive(Debug)]
struct Leaks;

#[async_trait]
impl Fault for Leaks {
    async fn browse(
        &self,
        inner: &Arc<dyn Broker>,
        source: &Source,
        page: &Page,
        known: &[(TopicName, GroupName)],
    ) -> Result<Vec<Received>> {
        let mut all = inner.browse(source, page).await?;
        let Source::DeadLetters { topic, group } = source else { return Ok(all) };
        for (_, other) in known.iter().filter(|(of, other)| of == topic && other != group) {
            let theirs = Source::DeadLetters { topic: topic.clone(), group: other.clone() };
            all.extend(inner.browse(&theirs, page).await?);
        }
        Ok(all)
    }
}

#[derive(Debug)]
struct Shows(fn(&mut Received));

#[async_trait]
impl Fault for Shows {
    async fn browse(
        &self,
        inner: &Arc<dyn Broker>,
        source: &Source,
        page: &Page,
        _: &[(TopicName, GroupName)],
    ) -> Result<Vec<Received>> {
        let mut all = inner.browse(source, page).await?;
        if matches!(source, Source::DeadLetters { .. }) {
            all.iter_mut().for_each(self.0);
        }
        Ok(all)
    }
}

#[derive(Debug)]
struct Consumes;

#[async_trait]
impl Fault for Consumes {
    async fn browse(
        &self,
        inner: &Arc<dyn Broker>,
        source: &Source,
        page: &Page,
        _: &[(TopicName, GroupName)],
    ) -> Result<Vec<Received>> {
        let all = inner.browse(source, page).await?;
        empty(inner, source.clone(), Duration::from_secs(1)).await?;
        Ok(all)
    }
}

#[derive(Debug)]
struct Writes(fn(&mut Letter));

impl Fault for Writes {
    fn settle(&self, mut settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        if let Settlement::DeadLetter { letter, .. } = &mut settlement {
            (self.0)(letter);
        }
        out.push(settlement);
    }
}
