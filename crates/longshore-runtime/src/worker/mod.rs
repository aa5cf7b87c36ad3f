//! The worker: a subscription, a policy and a handler, run until stopped.

mod alarms;
mod builder;
mod check;
mod lane;
mod run;
mod running;
mod shard;
mod shared;
mod watch;

pub use builder::{Worker, WorkerBuilder};
pub(crate) use check::{DEFAULT_LEASE, check_group, prefetch};
pub use running::Running;
