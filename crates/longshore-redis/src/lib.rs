//! The Redis Streams backend of longshore, for Redis and Valkey.
//!
//! # URLs
//! `redis://user:password@host:port/database?option=value`, or `rediss://…` where the connection
//! must be encrypted; `valkey://` and `valkeys://` are the same. `?cluster=true` says that the
//! hosts are nodes of a cluster, `?sentinel=NAME` that they are sentinels. The options stand in
//! [`OPTIONS`].
//!
//! # Delivery semantics
//! - A topic is a stream, a group one of its consumer groups. What all groups have settled is
//!   deleted, by a script that looks at the groups in the same step.
//! - A retry waits in place: it stays pending, under a member that is nobody, and its due time and
//!   its record stand beside the stream.
//! - Every move is one script, so none can be torn: into the dead-letter queue, into the suspect
//!   lane, and back.
//! - Reads have a connection of their own. After an answer that was lost, what it brought is looked
//!   for on the server.
//!
//! # Native types
//! [`Native`], which opens connections of the type [`redis::aio::MultiplexedConnection`].

mod broker;
mod browse;
mod codec;
mod config;
mod connect;
mod consumer;
mod declare;
mod deliver;
mod error;
mod flight;
mod keeper;
mod letters;
mod line;
mod names;
mod noting;
mod packed;
mod publisher;
mod reader;
mod release;
mod reply;
mod script;
mod server;
mod settings;
mod settle;
mod shared;
mod stats;
mod tls;

pub use broker::{Native, Redis, connect};
pub use config::OPTIONS;
