//! What a user of Redis sees from outside: the examples by another URL and nothing else, a server
//! that dies under a running service, and programs in another language.
//!
//! Each test has a server of its own, of the row that `LONGSHORE_REDIS` names or of the default one.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod examples;
mod outage;
#[path = "../program/mod.rs"]
mod program;
mod python;
#[path = "../program/outage.rs"]
mod worker;

use longshore_testbed::{Broker, Options, Testbed};

async fn server() -> Broker {
    let row = std::env::var("LONGSHORE_REDIS").unwrap_or("redis".into());
    Testbed::start(&row, Options::default()).await.unwrap()
}
