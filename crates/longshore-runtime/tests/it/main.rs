//! The runtime on the embedded broker, under virtual time.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod dead_letters;
mod flow;
mod observe;
mod sender;
mod subscription;
mod worker;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_core::{Policy, Received, Setup, TopicName, Topology};
use longshore_memory::Memory;
use longshore_runtime::{Client, ClientOptions, TokioClock};

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn setup() -> Setup {
    Setup { clock: Arc::new(TokioClock::new()), ..Setup::default() }
}

/// A client of a broker of its own, and that broker.
pub(crate) async fn broker(url: &str, options: ClientOptions) -> (Client, Memory) {
    broker_as(setup(), url, options).await
}

pub(crate) async fn broker_as(setup: Setup, url: &str, options: ClientOptions) -> (Client, Memory) {
    let memory = longshore_memory::connect(url, setup.clone()).await.unwrap();
    (Client::with_options(Arc::new(memory.clone()), setup, options), memory)
}

pub(crate) async fn client() -> Client {
    broker("memory://", ClientOptions::default()).await.0
}

pub(crate) async fn topic(client: &Client, name: &str) {
    client.declare(&Topology::topic(TopicName::new(name).unwrap())).await.unwrap();
}

/// One fast gap of 100 ms, then delayed ones of a second.
pub(crate) fn policy() -> Policy {
    Policy::builder()
        .max_attempts(4)
        .fast_delays([ms(100)])
        .delayed([ms(1_000)])
        .jitter(0.0)
        .drain(ms(5_000))
        .breaker(None)
        .build()
        .unwrap()
}

/// Bodies in the order in which handlers saw them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(crate) fn note(&self, message: &Received) -> String {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        self.0.lock().unwrap().push(body.clone());
        body
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Ends with a panic, never with a hang: ten minutes of virtual time.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), future).await.expect("this never came")
}
