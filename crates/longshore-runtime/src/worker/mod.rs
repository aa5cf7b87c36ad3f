//! The worker: a subscription, a policy and a handler, run until stopped.

mod alarms;
mod builder;
mod lane;
mod run;
mod running;
mod shard;
mod shared;

pub(crate) use builder::DEFAULT_LEASE;
pub use builder::{Worker, WorkerBuilder};
pub use running::Running;
