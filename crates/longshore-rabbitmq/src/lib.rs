//! The RabbitMQ backend of longshore.
//!
//! # URLs
//! `amqp://user:password@host:port,host:port/vhost?option=value`, or `amqps://…` where the connection
//! must be encrypted. Without a path the virtual host is `/`; in the name of one, a `/` is written
//! `%2F`. The options stand in [`OPTIONS`].
//!
//! # Delivery semantics
//! - A topic is a fanout exchange, a group a quorum queue that is bound to it. What is published to a
//!   topic without a group is parked in the queue `longshore.unrouted`, by the exchange's alternate.
//! - A publish is confirmed by a quorum of the queue's nodes. An outcome that is not known is said to
//!   be so; nothing is sent again by itself.
//! - A retry is a copy that falls through delay levels, one queue for each power of two, and comes
//!   out at the group's queue. Copies are confirmed before the original is settled.
//! - Two connections: what the server does to publishers while its memory is full does not hold up
//!   acknowledgements.
//! - Before each connect the server is asked for its version, which the client library keeps to itself,
//!   on a connection of its own. The server logs that one as closed unexpectedly.
//!
//! # Native types
//! [`Connections`], which has both connections of [`lapin`] as they are at the time.
//!
//! # Logs of the client library
//! `lapin` reports each refusal of the server at `ERROR`, also where this backend asks in order to hear
//! it: whether a queue exists, say. What comes back from the server it shows at `WARN` with the body,
//! and at `TRACE` it shows all, the password too. A filter of `lapin=off` loses nothing: this backend
//! says what matters itself.

mod acks;
mod again;
mod ask;
mod attach;
mod audit;
mod broker;
mod browse;
mod codec;
mod config;
mod consumer;
mod copies;
mod declare;
mod delay;
mod deliver;
mod dial;
mod drift;
mod error;
mod flight;
mod greeting;
mod headers;
mod intake;
mod lane;
mod letters;
mod link;
mod longest;
mod make;
mod moves;
mod names;
mod objects;
mod publisher;
mod reading;
mod release;
mod settle;
mod shared;
mod stats;
mod tls;
mod unrouted;

pub use broker::{Connections, RabbitMq, connect};
pub use config::OPTIONS;
