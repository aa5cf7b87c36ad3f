//! Users who may not do everything: a typed error that names what was refused, and no storm.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Message, Mode, Outcome, Setup, Topology};
use longshore_rabbitmq::{RabbitMq, connect};
use longshore_testbed::{Broker, Options};

use crate::server::{control, own, shared};
use crate::support::{Bench, eventually, group, is, send, topic};

/// A user of these permissions: to configure, write and read.
async fn user(broker: &Broker, name: &str, [configure, write, read]: [&str; 3]) -> RabbitMq {
    let name = format!("{name}-{}", topic());
    control(broker, &["add_user", &name, "secret"]).await;
    control(broker, &["set_permissions", "-p", "/", &name, configure, write, read]).await;
    let url = format!("amqp://{name}:secret@{}", broker.address());
    connect(&url, Setup::default()).await.unwrap()
}

#[tokio::test]
async fn a_user_who_may_not_configure_declares_nothing_and_publishes_in_closed_batches() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let rabbit = user(&broker, "writer", ["^$", ".*", ".*"]).await;
    let new = Topology::topic(topic());
    let error = is(rabbit.declare(&new).await, ErrorKind::Forbidden);
    assert!(error.to_string().contains("shared longshore.unrouted"), "{error}");
    // What exists cannot be compared either.
    let there = Topology { mode: Mode::Verify, ..Topology::group(group(&bench.topic, "billing")) };
    is(rabbit.declare(&there).await, ErrorKind::Forbidden);
    rabbit.declare(&Topology { mode: Mode::Assume, ..there }).await.unwrap();
    let publisher = rabbit.publisher(&bench.topic).await.unwrap();
    send(&*publisher, Message::new("m")).await.unwrap();
    bench.has_ready(1).await;
}

#[tokio::test]
async fn a_user_who_may_not_write_is_told_the_topic() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let rabbit = user(&broker, "reader", [".*", "^$", ".*"]).await;
    let publisher = rabbit.publisher(&bench.topic).await.unwrap();
    for _ in 0..2 {
        let error = is(send(&*publisher, Message::new("m")).await, ErrorKind::Forbidden);
        assert_eq!(error.outcome(), Some(Outcome::Refused), "{error:?}");
        assert!(error.to_string().contains(bench.topic.as_str()), "{error}");
    }
    // To bind a queue is to write to it.
    let error = rabbit.declare(&Topology::group(group(&bench.topic, "other"))).await;
    let error = is(error, ErrorKind::Forbidden);
    assert!(error.to_string().contains(".other"), "{error}");
    assert_eq!(bench.ready().await, 0);
}

#[tokio::test]
async fn credentials_that_are_taken_away_end_it_at_once_and_cause_no_storm() {
    let broker = own(Options::default()).await;
    control(&broker, &["add_user", "service", "old-secret"]).await;
    control(&broker, &["set_permissions", "-p", "/", "service", ".*", ".*", ".*"]).await;
    let url = format!("amqp://service:old-secret@{}", broker.address());
    let rabbit = connect(&url, Setup::default()).await.unwrap();
    let topic = topic();
    rabbit.declare(&Topology::topic(topic.clone())).await.unwrap();
    let publisher = rabbit.publisher(&topic).await.unwrap();
    control(&broker, &["change_password", "service", "new-secret"]).await;
    control(&broker, &["close_all_connections", "rotated"]).await;
    eventually("the end of the connection", || async {
        let outcome = send(&*publisher, Message::new("m")).await;
        outcome.is_err_and(|error| error.kind() == ErrorKind::Unauthenticated)
    })
    .await;
    let error = is(rabbit.audit().await, ErrorKind::Unauthenticated);
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    // Two connections, each refused once; a storm would go on.
    let refusals = || {
        let log = broker.nodes()[0].log_tail(10_000);
        log.lines().filter(|line| line.contains("invalid credentials")).count()
    };
    eventually("both refusals", || async { refusals() == 2 }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(refusals(), 2);
}
