//! Real brokers for tests: fetched without root or containers, started on loopback, broken on
//! purpose, and gone when the test is.
//!
//! ```no_run
//! use longshore_testbed::{Options, Testbed};
//!
//! # async fn test() -> longshore_testbed::Result<()> {
//! let broker = Testbed::start("nats@2.15", Options::default()).await?;
//! println!("{} runs at {}", broker.version(), broker.url());
//! broker.kill().await?; // as a power cut would
//! broker.restart().await?; // same data, same port
//! # Ok(())
//! # }
//! ```
//!
//! A [`Broker`] stops when it is dropped, and also when the process that holds it is killed: a
//! small shell is the server's parent, waits for the end of a pipe that only the holder has open,
//! and then takes the server with it. [`Broker::leave_running`] is the one way out, and
//! [`Testbed::down`] the way back.
//!
//! Linux only: processes are held by pidfd, so that a number that was given to another process is
//! never signalled, and the servers come from Linux packages.

mod broker;
mod error;
mod flavor;
mod kit;
mod node;
mod options;
mod ports;
mod probe;
mod process;
mod progress;
mod run;
mod slot;
mod supervisor;
mod table;
mod testbed;

pub use crate::broker::Broker;
pub use crate::error::{Error, Result};
pub use crate::node::Node;
pub use crate::options::Options;
pub use crate::process::Identity;
pub use crate::progress::Progress;
pub use crate::slot::{NodeRecord, Record};
pub use crate::table::{Container, Cost, Row, find, rows};
pub use crate::testbed::Testbed;
