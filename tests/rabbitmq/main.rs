//! What a user of RabbitMQ sees from outside: the examples by another URL and nothing else, a server
//! that dies under a running service, and programs in another language.
//!
//! One server for all, of the row that `LONGSHORE_RABBITMQ` names or of the default one: a start
//! takes seconds. A test that kills has one of its own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod examples;
mod outage;
#[path = "../program/mod.rs"]
mod program;
mod python;
#[path = "../program/outage.rs"]
mod worker;

use std::sync::LazyLock;

use longshore_testbed::{Broker, Options, Testbed};
use tokio::runtime::Runtime;

/// It ends with this process.
static SHARED: LazyLock<(Runtime, Broker)> = LazyLock::new(|| {
    // A runtime cannot be entered from within another, and the server must outlive each test's.
    let start = || {
        let runtime = Runtime::new().unwrap();
        let broker = runtime.block_on(own_server());
        (runtime, broker)
    };
    std::thread::spawn(start).join().unwrap()
});

/// The one that all share; topics tell the tests apart.
fn server() -> &'static Broker {
    &SHARED.1
}

async fn own_server() -> Broker {
    let row = std::env::var("LONGSHORE_RABBITMQ").unwrap_or("rabbitmq".into());
    Testbed::start(&row, Options::default()).await.unwrap()
}
