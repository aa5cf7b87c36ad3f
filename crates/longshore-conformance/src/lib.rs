//! The conformance suite of longshore: every promise of the contract as a check that any backend
//! can run.
//!
//! A backend's side is a [`Harness`] and a test without a harness of its own:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! whose `main` is [`main`], with a way to open the harness on a [`Target`]. Each check is then a test, and so is each mutant: a broker that is
//! broken on purpose, which the checks that it names must fail.
//!
//! A check that kills a process inside a move starts this same program again, with `--child`.
//!
//! Checks assert on a [`Ledger`] of every hand-over, never through a reader that drops duplicates.
//! A check that did not run says so, and is never green.

mod bench;
mod check;
mod checks;
mod child;
mod control;
mod harness;
mod ledger;
mod member;
mod mutants;
mod report;
mod runner;
mod sabotage;
mod tap;
mod trace;

pub use bench::{Bench, LEASE, PATIENCE, STEP, WINDOW};
pub use check::{Check, Need, Outcome, Stop, Tier};
pub use checks::all as checks;
pub use control::Control;
pub use harness::{Access, Act, Foreign, Harness, Mutants, Target};
pub use ledger::{Delivered, Ended, How, Ledger, Outcome as Ending, Ran, Records, Settled};
pub use member::{Handled, Member, Raw};
pub use mutants::{Mutant, all as mutants};
pub use report::{CheckEntry, MutantEntry, Report, Status};
pub use runner::main;
pub use trace::Trace;

#[cfg(test)]
mod guard;
