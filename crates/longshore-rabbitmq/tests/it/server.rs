//! Servers: one for all tests, and those of a test's own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::{Arc, Weak};

use longshore_testbed::{Broker, Options, Testbed};
use tokio::sync::Mutex;

/// Held by the tests that use it: a static is not dropped at the end, and the server would outlive
/// the last of them until the testbed's own shell ends it.
static SHARED: Mutex<Weak<Broker>> = Mutex::const_new(Weak::new());

/// The row that `LONGSHORE_RABBITMQ` names, or the default one.
pub(crate) fn row() -> String {
    std::env::var("LONGSHORE_RABBITMQ").unwrap_or("rabbitmq".into())
}

/// Whether the row is older than the release `major.minor`.
pub(crate) fn older_than(broker: &Broker, release: (u32, u32)) -> bool {
    let mut parts = broker.version().split('.').map(|part| part.parse::<u32>().unwrap());
    (parts.next().unwrap(), parts.next().unwrap()) < release
}

/// The server of all tests. Whoever holds it must not stop, fill or configure it.
pub(crate) async fn shared() -> Arc<Broker> {
    let mut shared = SHARED.lock().await;
    if let Some(broker) = shared.upgrade() {
        return broker;
    }
    let broker = Arc::new(own(Options::default()).await);
    *shared = Arc::downgrade(&broker);
    broker
}

/// A server of a test's own.
pub(crate) async fn own(options: Options) -> Broker {
    Testbed::start(&row(), options).await.unwrap()
}

/// Runs `rabbitmqctl` on the first node.
pub(crate) async fn control(broker: &Broker, arguments: &[&str]) -> String {
    broker.nodes()[0].control(arguments).await.unwrap()
}
