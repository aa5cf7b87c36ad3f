//! The NATS JetStream backend of longshore.
//!
//! # URLs
//! `nats://user:password@host:port,host:port?option=value`, or `tls://…` where the connection must
//! be encrypted. The options stand in [`OPTIONS`].
//!
//! # Delivery semantics
//! - A topic is a stream of its own, with limits and no work-queue retention; a group is a durable
//!   pull consumer with two filters, the topic and the group's redrive subject.
//! - A retry waits in place: the record goes into the topic's ledger stream, then the message is
//!   NAKed with a delay. What the server hands over too early, as it does after it was killed, is
//!   put back unseen.
//! - Settlements leave as a batch of plain acknowledgements whose last is a request: its answer
//!   confirms them all, because the server handles those of one connection in order.
//! - The server honours stale acknowledgements, so the lease is fenced here, by a local clock.
//! - Into the suspect lane, the dead-letter queue and out of it a message goes as a copy:
//!   confirmed, then the original is settled.
//!
//! # Native types
//! [`async_nats::jetstream::Context`], whose `client()` is the [`async_nats::Client`].

mod ack;
mod audit;
mod broker;
mod browse;
mod codec;
mod config;
mod connect;
mod consumer;
mod copy;
mod declare;
mod deliver;
mod drift;
mod error;
mod flight;
mod intake;
mod interest;
mod ledger;
mod letters;
mod link;
mod naks;
mod names;
mod publisher;
mod raw;
mod replies;
mod rescue;
mod settle;
mod shared;
mod slots;
mod stats;
mod tls;
mod watchdog;

pub use broker::{Nats, connect};
pub use config::OPTIONS;
