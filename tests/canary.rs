//! A canary in a URL's password, a payload, a key and a header, on a real server: it must sing in no
//! log line of ours, at the finest level, nor in an error. (The client library's own lines at `TRACE`
//! are another matter: `docs/backends/nats.md`.)
//!
//! Alone in its process: where another thread meets a log line first, `tracing` may take it for one
//! that nobody wants.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore::observe::AlarmKind;
use longshore::{Client, Failure, HeaderName, Message, Policy, Received, Setup};
use longshore_testbed::{Options, Testbed};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

const CANARY: &str = "canary-4f1d";

#[derive(Clone, Debug, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn connect(url: &str) -> longshore::Result<Client> {
    let setup = Setup::default();
    let nats = longshore_nats::connect(url, setup.clone()).await?;
    Ok(Client::new(Arc::new(nats), setup))
}

#[tokio::test]
async fn no_secret_of_a_user_is_shown_on_nats() {
    let sink = Sink::default();
    let writer = sink.clone();
    let ours = Targets::new().with_target("longshore", tracing::Level::TRACE);
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(ours));
    let _logs = tracing::subscriber::set_default(subscriber);

    // The testbed asks the server whether it is ready as nobody in particular.
    let users = format!(
        "authorization {{ users: [ {{ user: ann, password: {CANARY} }}, {{ user: probe, \
         password: probe }} ] }}\nno_auth_user: probe"
    );
    let broker = Testbed::start("nats@2.15", Options::default().config(users)).await.unwrap();
    let address = broker.address();
    let client = connect(&format!("nats://ann:{CANARY}@{address}")).await.unwrap();

    let mut alarms = client.alarms();
    let refuse = |_: Received| async { Err(Failure::permanent("stolen")) };
    let policy = Policy::builder().build().unwrap();
    let worker = client.worker("orders", "billing").policy(policy).handle(refuse);
    let worker = worker.start().await.unwrap();
    let sender = client.sender("orders").await.unwrap();
    let secret = HeaderName::new("x-secret").unwrap();
    let message = Message::new(format!("body {CANARY}"));
    let message = message.key(format!("key {CANARY}")).header(secret, CANARY);
    sender.send(message).await.unwrap();
    // The link is lost and found with the credentials.
    broker.kill().await.unwrap();
    broker.restart().await.unwrap();
    let again = Message::new(format!("body {CANARY}"));
    while sender.send(again.clone()).await.is_err() {}
    let dead = async { while alarms.next().await.unwrap().kind != AlarmKind::DeadLettered {} };
    tokio::time::timeout(Duration::from_secs(60), dead).await.unwrap();
    worker.stop().await.unwrap();

    let wrong = connect(&format!("nats://ann:wrong-{CANARY}@{address}")).await.unwrap_err();
    let shown = format!("{wrong} {wrong:?} {client:?} {worker:?} {sender:?}");
    let logs = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    assert!(logs.contains("dead-lettered") && logs.contains("reconnecting"), "{logs}");
    for (what, text) in [("logs", logs), ("errors", shown)] {
        assert!(!text.contains(CANARY), "the canary sings in the {what}:\n{text}");
    }
}
