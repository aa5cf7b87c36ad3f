//! Brokers that are broken on purpose, each in one way: proof that the checks can fail.

mod broken;
mod connection;
mod consume;
mod consumer;
mod crash;
mod fault;
mod flow;
mod groups;
mod letters;
mod publish;
mod publisher;
mod redrive;
mod retry;
mod settle;

use std::fmt;

pub(crate) use broken::{Broken, World};
use fault::Fault;

/// A way to break a broker, and the checks that must notice.
#[derive(Clone, Copy)]
pub struct Mutant {
    /// What is broken.
    pub name: &'static str,
    /// The ids of the checks that must fail on it.
    pub caught_by: &'static [&'static str],
    make: fn() -> Box<dyn Fault>,
}

impl Mutant {
    pub(crate) fn fault(&self) -> Box<dyn Fault> {
        (self.make)()
    }
}

impl fmt::Debug for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutant")
            .field("name", &self.name)
            .field("caught_by", &self.caught_by)
            .finish_non_exhaustive()
    }
}

/// The wrapper with nothing broken: it must pass every check, or what the mutants fail on could be
/// the wrapper.
pub(crate) static CONTROL: Mutant =
    Mutant { name: "nothing is broken", caught_by: &[], make: || Box::new(fault::Nothing) };

/// All mutants.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    [
        publish::MUTANTS,
        connection::MUTANTS,
        consume::MUTANTS,
        groups::MUTANTS,
        settle::MUTANTS,
        retry::MUTANTS,
        letters::MUTANTS,
        redrive::MUTANTS,
        crash::MUTANTS,
        flow::MUTANTS,
    ]
    .into_iter()
    .flatten()
}
