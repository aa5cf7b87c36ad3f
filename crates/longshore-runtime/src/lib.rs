//! The reliability engine of longshore: everything portable, written once.
//!
//! A [`Client`] opens [`Sender`]s, [`Worker`]s and [`Subscription`]s on any backend. A worker runs a
//! handler under a [`Policy`](longshore_core::Policy): fast retries in process, durable delayed
//! retries in the broker, dead letters, crash isolation, graceful drain. The decisions are a pure
//! state machine; the worker is its shell.
//!
//! Users of longshore want the `longshore` crate, which re-exports all of this.

mod client;
mod clock;
mod context;
mod dead_letters;
mod engine;
mod handler;
pub mod observe;
mod registry;
mod sender;
mod subscription;
mod tally;
#[cfg(feature = "testing")]
pub mod testing;
mod worker;

pub use client::{Client, ClientOptions};
pub use clock::TokioClock;
pub use context::Context;
pub use dead_letters::{DeadLetter, DeadLetters, Redrive, Redriven};
pub use engine::BreakerState;
pub use handler::{Handled, Handler, TypedHandler};
pub use registry::Registry;
pub use sender::{Pending, Sender};
pub use subscription::{Delivery, Subscribe, Subscription, Unsettled};
pub use tally::Tally;
pub use worker::{Running, Worker, WorkerBuilder};
