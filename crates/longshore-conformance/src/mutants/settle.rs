//! Faults of settling.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use longshore_core::{AckToken, Received, Record, Settlement, Source};

use super::Mutant;
use super::fault::Fault;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "an ack does nothing",
        caught_by: &[
            "settle.ack_is_durable",
            "shutdown.running_handlers_finish",
            "settle.discard_is_gone_and_counted",
        ],
        make: || Box::new(AckIsNothing),
    },
    Mutant {
        name: "an ack acknowledges all earlier deliveries",
        caught_by: &["settle.token_settles_once", "settle.ack_spares_earlier_deliveries"],
        make: || Box::new(AckIsCumulative::default()),
    },
    Mutant {
        name: "a token names a place, not a delivery",
        caught_by: &["settle.token_settles_once"],
        make: || Box::new(SlotsOnly::default()),
    },
    Mutant {
        name: "a release loses the message",
        caught_by: &[
            "settle.dropped_unsettled_returns",
            "settle.release_returns",
            "shutdown.nothing_starts_after_stop",
            "shutdown.drain_timeout_costs_no_attempt",
        ],
        make: || Box::new(ReleaseLoses),
    },
    Mutant {
        name: "a release counts as a failure",
        caught_by: &[
            "settle.dropped_unsettled_returns",
            "settle.release_returns",
            "shutdown.nothing_starts_after_stop",
            "shutdown.drain_timeout_costs_no_attempt",
        ],
        make: || Box::new(ReleaseFails),
    },
    Mutant {
        name: "a release loses the retry record",
        caught_by: &["shutdown.drain_timeout_costs_no_attempt"],
        make: || Box::new(ReleaseForgets),
    },
];

#[derive(Debug)]
struct AckIsNothing;

impl Fault for AckIsNothing {
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        if !matches!(settlement, Settlement::Ack(_)) {
            out.push(settlement);
        }
    }
}

#[derive(Debug, Default)]
struct AckIsCumulative(Mutex<Vec<AckToken>>);

impl Fault for AckIsCumulative {
    fn deliver(&self, _: &Source, received: Received) -> Option<Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(received.token);
        Some(received)
    }

    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        let token = settlement.token();
        let is_ack = matches!(settlement, Settlement::Ack(_));
        out.push(settlement);
        let handed_over = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_ack {
            let earlier = handed_over.iter().take_while(|other| **other != token);
            out.extend(earlier.map(|other| Settlement::Ack(*other)));
        }
    }
}

/// Hands out the lowest free place, and settles whatever is there.
#[derive(Debug, Default)]
struct SlotsOnly(Mutex<HashMap<u32, Place>>);

#[derive(Clone, Copy, Debug)]
struct Place {
    own: AckToken,
    free: bool,
}

impl Fault for SlotsOnly {
    fn deliver(&self, _: &Source, mut received: Received) -> Option<Received> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = (0..).find(|slot| places.get(slot).is_none_or(|place| place.free))?;
        places.insert(slot, Place { own: received.token, free: false });
        received.token.slot = slot;
        Some(received)
    }

    fn token(&self, token: AckToken) -> Option<AckToken> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(&token.slot).map(|place| place.own)
    }

    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        let token = settlement.token();
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.values_mut().filter(|place| place.own == token).for_each(|place| place.free = true);
        out.push(settlement);
    }
}

#[derive(Debug)]
struct ReleaseLoses;

impl Fault for ReleaseLoses {
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Release { token, .. } => Settlement::Ack(token),
            other => other,
        });
    }
}

#[derive(Debug)]
struct ReleaseFails;

impl Fault for ReleaseFails {
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Release { token, record } => {
                let mut record = record.map(|record| *record).unwrap_or_else(|| known(received));
                record.failures += 1;
                Settlement::Release { token, record: Some(Box::new(record)) }
            }
            other => other,
        });
    }
}

#[derive(Debug)]
struct ReleaseForgets;

impl Fault for ReleaseForgets {
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Release { token, .. } => {
                let record = Record { failures: 0, history: Vec::new(), ..known(received) };
                Settlement::Release { token, record: Some(Box::new(record)) }
            }
            other => other,
        });
    }
}

/// The record that the message came with, as of this hand-over.
fn known(received: &Received) -> Record {
    let record = received.record.as_deref().cloned().unwrap_or_default();
    Record { deliveries: received.deliveries, ..record }
}
