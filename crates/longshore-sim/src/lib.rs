//! The reliability engine against a model broker, from a seed, with virtual time.
//!
//! [`run`] plays one seed: a scenario is drawn from it (a kind of broker, a policy, members,
//! messages, faults), and the engine's own inputs and actions are judged step by step by a reference
//! model that knows the contract and not the engine. `docs/simulator.md` describes it.
//!
//! The engine's sources are compiled here once more, without a runtime and without a broker's
//! client: that it needs neither is thus held by the compiler.

mod broker;
mod dice;
#[path = "../../longshore-runtime/src/engine/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the rest of its crate uses these")]
#[expect(unreachable_pub, reason = "some of it is public where it comes from")]
mod engine;
mod keep;
mod mutants;
mod oracle;
mod scenario;
mod seen;
mod shrink;
#[path = "../../longshore-runtime/src/tally.rs"]
#[expect(unreachable_pub, reason = "it is public where it comes from")]
mod tally;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use keep::{InvalidKeep, Keep};
pub use mutants::Mutant;
pub use oracle::Anomaly;
pub use seen::Seen;
pub use shrink::shrink;

use scenario::Scenario;
use world::World;

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first thing that went wrong.
    pub anomaly: Option<Anomaly>,
    /// Over everything that happened: two runs of a seed have the same.
    pub hash: u64,
    /// How many inputs the engines were given.
    pub steps: u64,
    /// What occurred.
    pub seen: Seen,
    /// The history, where it was asked for.
    pub timeline: Vec<String>,
}

/// How a seed is played.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The defect that the engine is given; none by default.
    pub mutant: Option<Mutant>,
    /// The parts of the scenario that are kept; all by default.
    pub keep: Keep,
    /// Judge what becomes of messages only, not each step: whether a defect does harm, and whether
    /// its harm alone is found.
    pub ends_only: bool,
    /// Whether a history is written.
    pub timeline: bool,
}

/// Plays one seed to its end, or to the first anomaly. A panic of the engine is an anomaly.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    let scenario = Scenario::of(seed, &options.keep);
    let mut world = World::new(scenario, options);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        world.fail("panic", None, || text.unwrap_or_else(|| "without a text".to_owned()));
    }
    world.outcome()
}
