//! Topologies: made by many at once, compared in full, and changed by nobody.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use longshore_core::{Broker as _, Drift, ErrorKind, Mode, Start, Topology};

use longshore_rabbitmq::Connections;

use crate::server::{control, shared};
use crate::support::{Bench, client, group, is, raw, raw_queue, text, topic};

fn settings(drift: &Drift) -> BTreeSet<(&str, &str)> {
    drift.entries.iter().map(|entry| (entry.setting, entry.found.as_str())).collect()
}

#[tokio::test]
async fn many_processes_declare_the_same_at_once() {
    let broker = shared().await;
    let wanted = Topology::group(group(&topic(), "billing"));
    let verify = Topology { mode: Mode::Verify, ..wanted.clone() };
    let first = client(&broker, "").await;
    is(first.declare(&verify).await, ErrorKind::NotFound);
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(client(&broker, "").await);
    }
    let declared = futures::future::join_all(all.iter().map(|it| it.declare(&wanted))).await;
    for declared in declared {
        declared.unwrap();
    }
    first.declare(&verify).await.unwrap();
    first.declare(&wanted).await.unwrap();
}

/// Pitfall 13: a classic queue of the same name.
#[tokio::test]
async fn every_difference_of_a_queue_is_told_and_nothing_is_changed() {
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    let topic = topic();
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let queue = format!("{topic}.billing");
    let arguments = [
        ("x-queue-type", text("classic")),
        ("x-max-length", AMQPValue::LongLongInt(7)),
        ("x-dead-letter-exchange", text("elsewhere")),
        ("x-expires", AMQPValue::LongLongInt(3_600_000)),
    ];
    raw_queue(&channel, &queue, arguments).await;
    let wanted = Topology::group(group(&topic, "billing"));
    let first = rabbit.native().downcast_ref::<Connections>().unwrap().outgoing().unwrap();
    for mode in [Mode::Declare, Mode::Verify] {
        let error = rabbit.declare(&Topology { mode, ..wanted.clone() }).await;
        // To verify what is missing comes first: the exchange of the topic.
        if mode == Mode::Verify {
            is(error, ErrorKind::NotFound);
            continue;
        }
        let error = is(error, ErrorKind::AlreadyExists);
        let drift = error.native::<Drift>().unwrap();
        let found = settings(drift);
        for wanted in [
            ("x-queue-type", "classic"),
            ("x-max-length", "7"),
            ("x-dead-letter-exchange", "elsewhere"),
            ("x-expires", "3600000"),
            ("x-overflow", "none"),
            ("x-dead-letter-routing-key", "none"),
        ] {
            assert!(found.contains(&wanted), "{wanted:?} is not told: {drift}");
        }
        let object = format!("group {topic}.billing");
        assert!(drift.entries.iter().all(|entry| entry.object == object), "{drift}");
    }
    // The connection stays the one that it was: nothing reconnects over it.
    let native = rabbit.native().downcast_ref::<Connections>().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &native.outgoing().unwrap()));
    // Neither the topic nor any other queue was made.
    let exchanges = control(&broker, &["list_exchanges", "name"]).await;
    assert!(!exchanges.contains(topic.as_str()), "{exchanges}");
    let queues = control(&broker, &["list_queues", "name"]).await;
    assert!(!queues.contains(&format!("{queue}.")), "{queues}");
}

#[tokio::test]
async fn another_retention_and_a_queue_that_nobody_wants_are_differences() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    for wanted in [Some(Duration::from_secs(3_600)), None] {
        let mut other = group(&bench.topic, "billing");
        other.dead_letters = wanted;
        let error =
            is(bench.rabbit.declare(&Topology::group(other)).await, ErrorKind::AlreadyExists);
        let drift = error.native::<Drift>().unwrap();
        assert_eq!(settings(drift), BTreeSet::from([("dead_letters", "86400000")]));
    }
    let mut twice = Topology::group(group(&bench.topic, "billing"));
    twice.groups.push(group(&bench.topic, "billing"));
    twice.groups[1].dead_letters = None;
    is(bench.rabbit.declare(&twice).await, ErrorKind::AlreadyExists);
    let mut moved = group(&bench.topic, "billing");
    moved.lease *= 2;
    bench.rabbit.declare(&Topology::group(moved)).await.unwrap();
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_a_difference() {
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    let topic = topic();
    let channel = raw(&broker).await.create_channel().await.unwrap();
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    let (kind, none) = (ExchangeKind::Topic, FieldTable::default());
    channel.exchange_declare(topic.as_str().into(), kind, options, none).await.unwrap();
    let error = is(rabbit.declare(&Topology::topic(topic)).await, ErrorKind::AlreadyExists);
    let drift = error.native::<Drift>().unwrap();
    let wanted = [
        ("type", "topic"),
        ("durable", "false"),
        ("auto_delete", "true"),
        ("alternate-exchange", "none"),
    ];
    assert_eq!(settings(drift), BTreeSet::from(wanted), "{drift}");
}

#[tokio::test]
async fn a_queue_that_another_connection_holds_is_a_difference() {
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    let topic = topic();
    let holder = raw(&broker).await;
    let channel = holder.create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions::exclusive();
    let name = format!("{topic}.billing");
    channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await.unwrap();
    let error = rabbit.declare(&Topology::group(group(&topic, "billing"))).await;
    let error = is(error, ErrorKind::AlreadyExists);
    let drift = error.native::<Drift>().unwrap();
    assert_eq!(settings(drift), BTreeSet::from([("exclusive", "true")]), "{drift}");
}

#[tokio::test]
async fn what_no_server_could_keep_is_refused_before_anything_is_asked() {
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    let good = group(&topic(), "billing");
    let day = Duration::from_secs(86_400);
    for (bad, kind) in [
        (longshore_core::Group { lease: Duration::ZERO, ..good.clone() }, ErrorKind::Config),
        (
            longshore_core::Group { dead_letters: Some(Duration::ZERO), ..good.clone() },
            ErrorKind::Config,
        ),
        (longshore_core::Group { dead_letters: Some(day * 50), ..good.clone() }, ErrorKind::Config),
        (longshore_core::Group { start: Start::Earliest, ..good.clone() }, ErrorKind::Unsupported),
        (longshore_core::Group { longest_delay: day * 10, ..good.clone() }, ErrorKind::Unsupported),
    ] {
        is(rabbit.declare(&Topology::group(bad)).await, kind);
    }
    let verify = Topology { mode: Mode::Verify, ..Topology::topic(good.topic) };
    is(rabbit.declare(&verify).await, ErrorKind::NotFound);
}

#[tokio::test]
async fn the_longest_names_are_declared_and_compared() {
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    // A tenant's 24 bytes come before the 112 of a topic.
    let tenant = longshore_core::Tenant::new("t".repeat(24)).unwrap();
    let long = format!("{}{}", "x".repeat(112 - topic().as_str().len()), topic());
    let topic = tenant.topic(&longshore_core::TopicName::new(&long[..112]).unwrap());
    let wanted = group(&topic, &"g".repeat(64));
    rabbit.declare(&Topology::group(wanted.clone())).await.unwrap();
    rabbit.declare(&Topology::group(wanted.clone())).await.unwrap();
    // The server's words are cut off at 255 bytes; the difference is found all the same.
    let other = longshore_core::Group { dead_letters: Some(Duration::from_secs(7)), ..wanted };
    let error = is(rabbit.declare(&Topology::group(other)).await, ErrorKind::AlreadyExists);
    assert_eq!(error.native::<Drift>().unwrap().entries.len(), 1, "{error:?}");
}

#[tokio::test]
async fn an_audit_says_what_it_cannot_see() {
    let broker = shared().await;
    let bench = Bench::with(&broker, "?queue_type=classic").await;
    let findings = bench.rabbit.audit().await.unwrap();
    for setting in ["policies", "queue_type"] {
        assert!(findings.iter().any(|finding| finding.setting == setting), "{findings:?}");
    }
}
