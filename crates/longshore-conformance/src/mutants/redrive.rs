//! Faults of the way out of the dead-letter queue.

use longshore_core::{Received, Record, Settlement};

use super::Mutant;
use super::consume::Delivers;
use super::fault::Fault;
use super::letters::Echoes;

const REDRIVE: &[&str] = &["redrive.resets_attempts_and_loses_nothing"];

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "redriven messages are taken for duplicates and dropped",
        caught_by: &["redrive.resets_attempts_and_loses_nothing", "redrive.reaches_only_its_group"],
        make: || Box::new(RedriveLoses),
    },
    Mutant {
        name: "a redriven message keeps its attempts",
        caught_by: REDRIVE,
        make: || Box::new(Redrives(|record| record.failures = 1)),
    },
    Mutant {
        name: "a redriven message loses its key",
        caught_by: REDRIVE,
        make: || {
            Box::new(Delivers(|again| {
                if again.record.as_ref().is_some_and(|record| record.redrives > 0) {
                    again.key = None;
                }
            }))
        },
    },
    Mutant {
        name: "redrives are not counted",
        caught_by: REDRIVE,
        make: || Box::new(Redrives(|record| record.redrives = 0)),
    },
    Mutant {
        name: "a redrive goes to all groups",
        caught_by: &["redrive.reaches_only_its_group"],
        make: || Box::new(Echoes(|order| matches!(order, Settlement::Redrive { .. }))),
    },
];

#[derive(Debug)]
struct RedriveLoses;

impl Fault for RedriveLoses {
    fn settle(&self, settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        out.push(match settlement {
            Settlement::Redrive { token, .. } => Settlement::Ack(token),
            other => other,
        });
    }
}

#[derive(Debug)]
struct Redrives(fn(&mut Record));

impl Fault for Redrives {
    fn settle(&self, mut settlement: Settlement, _: &Received, out: &mut Vec<Settlement>) {
        if let Settlement::Redrive { record, .. } = &mut settlement {
            (self.0)(record);
        }
        out.push(settlement);
    }
}
