//! The reliability engine: what happens to each delivery of one lane, decided once for all brokers.
//!
//! A pure state machine. Inputs go in by [`Engine::step`], actions come out; time is an argument,
//! and the only randomness is a seeded generator. The worker is its shell: it runs handlers,
//! executes settlements and reports what came of them.
//!
//! Where a crash can fall, and what it costs:
//!
//! | between | effect |
//! | --- | --- |
//! | hand-over and handler | redelivered; `deliveries` + 1, `attempt` as it was |
//! | handler's end and the settlement | the run is not known to anyone: redelivered, same attempt |
//! | fast failures and the settlement | they were never durable: redelivered, as before them |
//! | settlement and its answer | settled, or settled again: a token settles once |

mod book;
mod breaker;
mod gate;
mod lease;
mod meter;
mod outcome;
mod rate;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use book::{Book, Facts, redrive_record};
pub use breaker::BreakerState;
pub(crate) use gate::Gate;
pub(crate) use meter::{Meter, RESULTS, RunEnd, VERDICTS};
pub(crate) use step::{Engine, clamp};
pub(crate) use types::{Action, Alarm, Config, Ended, Input, Key, Now, Start};
