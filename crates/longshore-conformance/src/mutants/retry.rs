//! Faults of the retry lane.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{Received, Record, Settlement, Source};
use tokio::time::Instant;

use super::Mutant;
use super::fault::Fault;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a retry ignores its delay",
        caught_by: &["settle.retry_is_on_time", "retry.never_early", "retry.zero_delay_is_bounded"],
        make: || Box::new(Delays(|_| Duration::ZERO)),
    },
    Mutant {
        name: "a retry comes at nine tenths of its delay",
        caught_by: &[
            "settle.retry_is_on_time",
            "retry.never_early",
            "retry.delay_may_exceed_the_lease",
        ],
        make: || Box::new(Delays(|after| after.mul_f64(0.9))),
    },
    Mutant {
        name: "a retry comes five seconds late",
        caught_by: &["settle.retry_is_on_time", "retry.never_early"],
        make: || Box::new(Delays(|after| after + Duration::from_secs(5))),
    },
    Mutant {
        name: "the retry lane is first in, first out",
        caught_by: &["retry.short_delay_overtakes_long"],
        make: || Box::new(HeadOfLine::default()),
    },
    Mutant {
        name: "a waiting retry blocks its group",
        caught_by: &["retry.waiting_blocks_nobody"],
        make: || Box::new(Blocks::default()),
    },
    Mutant {
        name: "a retry is lost",
        caught_by: &[
            "retry.succeeds_after_failures",
            "retry.unknown_error_is_transient",
            "retry.panic_is_an_attempt",
            "retry.timeout_is_an_attempt",
            "retry.waits_without_consumers",
        ],
        make: || Box::new(Lost),
    },
    Mutant {
        name: "a retry is published to all groups",
        caught_by: &["retry.stays_in_its_group"],
        make: || Box::new(Echoes),
    },
    Mutant {
        name: "a retry loses its record",
        caught_by: &[
            "attempt.counts_failures_only",
            "retry.succeeds_after_failures",
            "retry.panic_is_an_attempt",
            "retry.timeout_is_an_attempt",
            "retry.waits_without_consumers",
            "attempt.instances_share_the_cap",
            "attempt.survives_restart",
            "attempt.copies_keep_the_cap",
            "swap.same_outcome_everywhere",
        ],
        make: || Box::new(Forgets),
    },
];

#[derive(Debug)]
struct Delays(fn(Duration) -> Duration);

impl Fault for Delays {
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Retry { token, after, record } => {
                Settlement::Retry { token, after: (self.0)(after), record }
            }
            other => other,
        });
    }
}

#[derive(Debug, Default)]
struct HeadOfLine(Mutex<Option<Instant>>);

impl Fault for HeadOfLine {
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Retry { token, after, record } => {
                let now = Instant::now();
                let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let due = last.map_or(now + after, |last| last.max(now + after));
                *last = Some(due);
                Settlement::Retry { token, after: due - now, record }
            }
            other => other,
        });
    }
}

#[derive(Debug, Default)]
struct Blocks(Mutex<Option<Instant>>);

#[async_trait]
impl Fault for Blocks {
    async fn hold(&self, _: &Source) {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// What is handed over while the group is blocked was asked for before.
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        if let Settlement::Retry { after, .. } = &settlement {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + *after);
        }
        out.push(settlement);
    }
}

#[derive(Debug)]
struct Lost;

impl Fault for Lost {
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Retry { token, .. } => Settlement::Ack(token),
            other => other,
        });
    }
}

#[derive(Debug)]
struct Echoes;

impl Fault for Echoes {
    fn echo(&self, settlement: &Settlement) -> bool {
        matches!(settlement, Settlement::Retry { .. })
    }
}

#[derive(Debug)]
struct Forgets;

impl Fault for Forgets {
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Retry { token, after, .. } => {
                let deliveries = received.deliveries;
                // The return itself stays explained: what is broken is the count of failures.
                let record = Record { deliveries, delayed: deliveries, ..Record::default() };
                Settlement::Retry { token, after, record: Box::new(record) }
            }
            other => other,
        });
    }
}
