//! The embedded broker of longshore: topics, groups, retry lanes, suspect lanes and dead-letter
//! queues in the memory of this process. The reference backend, and a broker for tests and for
//! programs that need none outside.
//!
//! # URLs
//! - `memory://`: a broker of its own;
//! - `memory://NAME`: shared by all clients of this process, and gone when the last of them is
//!   closed or dropped.
//!
//! The options stand in [`OPTIONS`].
//!
//! # Delivery semantics
//! All of it lives under one lock and dies with the process. Time is tokio's, so that a paused
//! clock drives leases, retries and windows; wall-clock times come from
//! [`Setup::clock`](longshore_core::Setup). There is no background task: whoever waits in a
//! `receive` wakes for what is due.
//!
//! - A message leaves its topic when every group that got it has settled it. Where there was no
//!   group, it stays.
//! - A full broker makes publishers wait for room, then answers `Backpressure`. Dead letters and
//!   redriven messages take room too, but are never refused for want of it: a full broker cannot
//!   keep a message from its dead-letter queue.
//! - A consumer that is closed gives back what it holds, uncounted. One that is dropped gives it
//!   back too, but those hand-overs count, as they would after a connection that just went away.
//! - A retry waits in place. Into the suspect lane and out of the dead-letter queue a message goes
//!   as a copy, so its own count of hand-overs starts anew there and the record holds the sum.
//!
//! # Native types
//! [`Memory`] itself.

mod broker;
mod codec;
mod config;
mod consumer;
mod declare;
mod dedup;
mod error;
mod flight;
mod group;
mod letters;
mod publisher;
mod registry;
mod settle;
mod store;
mod world;

pub use broker::{Memory, connect};
pub use config::OPTIONS;
