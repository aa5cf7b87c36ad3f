//! Faults of a consumer whose worker wants less for a while.

use bytes::Bytes;

use super::Mutant;
use super::consume::Delivers;
use super::fault::Fault;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "the prefetch stays what it was",
        caught_by: &["flow.open_burns_no_attempt"],
        make: || Box::new(Deaf),
    },
    Mutant {
        name: "the prefetch is all or nothing",
        caught_by: &["flow.half_open_lets_one_through"],
        make: || Box::new(AllOrNothing),
    },
    Mutant {
        name: "nothing is fetched again once the prefetch was lowered",
        caught_by: &["flow.half_open_lets_one_through"],
        make: || Box::new(Never),
    },
    Mutant {
        name: "bodies are damaged on their way",
        caught_by: &["flow.permanent_failures_do_not_trip"],
        make: || Box::new(Delivers(|received| received.body = Bytes::from_static(b"?"))),
    },
];

#[derive(Debug)]
struct Deaf;

impl Fault for Deaf {
    fn prefetch(&self, _: u16) -> Option<u16> {
        None
    }
}

#[derive(Debug)]
struct AllOrNothing;

impl Fault for AllOrNothing {
    fn prefetch(&self, prefetch: u16) -> Option<u16> {
        Some(if prefetch == 0 { 0 } else { u16::MAX })
    }
}

#[derive(Debug)]
struct Never;

impl Fault for Never {
    fn prefetch(&self, _: u16) -> Option<u16> {
        Some(0)
    }
}
