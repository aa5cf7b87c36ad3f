//! Several groups of one topic.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use longshore_core::{
    Broker as _, Consumer, ConsumerSpec, Group, InstanceId, Settlement, Source, Topology,
};

use crate::support::{
    Bench, LEASE, ack, eventually, failed, group, many, next, quiet, server, settle,
};

async fn other(bench: &Bench) -> (Source, Box<dyn Consumer>) {
    let other = Group { name: "audit".try_into().unwrap(), ..group("orders") };
    let source = Source::Group { topic: other.topic.clone(), group: other.name.clone() };
    bench.redis.declare(&Topology::group(other)).await.unwrap();
    let instance = InstanceId::generate();
    let spec = ConsumerSpec { source: source.clone(), prefetch: 64, lease: LEASE, instance };
    (source, bench.redis.consumer(&spec).await.unwrap())
}

/// Pitfall 21: a retry and a dead letter of one group are nothing to the other.
#[tokio::test]
async fn a_retry_and_a_letter_of_one_group_do_not_reach_the_other() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let (source, audits) = other(&bench).await;
    let bills = bench.consumer(bench.source()).await;
    bench.publish("retried").await.unwrap();
    bench.publish("buried").await.unwrap();
    for received in many(&*bills, 2).await {
        let token = received.token;
        let order = match &received.body[..] {
            b"retried" => {
                let after = Duration::from_millis(100);
                Settlement::Retry { token, after, record: failed(&received) }
            }
            _ => Settlement::DeadLetter { token, letter: bench.letter(&received) },
        };
        settle(&*bills, order).await.unwrap();
    }
    let again = next(&*bills).await;
    assert_eq!((&again.body[..], again.attempt()), (&b"retried"[..], 2));
    for received in many(&*audits, 2).await {
        assert_eq!(received.attempt(), 1);
        ack(&*audits, received.token).await.unwrap();
    }
    assert!(quiet(&*audits, Duration::from_secs(1)).await);
    let letters =
        Source::DeadLetters { topic: source.topic().clone(), group: source.group().clone() };
    assert_eq!(bench.redis.stats(&letters).await.unwrap().ready, 0);
    assert_eq!(bench.redis.stats(&bench.letters()).await.unwrap().ready, 1);
    ack(&*bills, again.token).await.unwrap();
    // The last group to be done with an entry deletes it.
    assert_eq!(bench.number(&["XLEN", "orders"]).await, 0);
}

/// The row "a group is added while another, believing itself alone, deletes what it acked".
#[tokio::test]
async fn a_group_added_meanwhile_loses_nothing() {
    const MESSAGES: usize = 40;
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let bills = bench.consumer_of(bench.source(), 64).await;
    for n in 0..MESSAGES {
        bench.publish(&n.to_string()).await.unwrap();
    }
    let held = many(&*bills, MESSAGES).await;
    // Everything is handed over to a group that was alone, and acknowledged by one that is not.
    let late = Group {
        name: "late".try_into().unwrap(),
        start: longshore_core::Start::Earliest,
        ..group("orders")
    };
    let source = Source::Group { topic: late.topic.clone(), group: late.name.clone() };
    bench.redis.declare(&Topology::group(late)).await.unwrap();
    for received in held {
        ack(&*bills, received.token).await.unwrap();
    }
    let late = bench.consumer_of(source, 64).await;
    assert_eq!(many(&*late, MESSAGES).await.len(), MESSAGES);
}

/// The row "one message parked for hours, two groups or more": what stands behind it is deleted.
#[tokio::test]
async fn one_parked_message_does_not_hold_the_others_in_memory() {
    const MESSAGES: usize = 50;
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let (_, audits) = other(&bench).await;
    let bills = bench.consumer_of(bench.source(), 64).await;
    bench.publish("parked").await.unwrap();
    let parked = next(&*bills).await;
    let after = Duration::from_secs(50);
    let retry = Settlement::Retry { token: parked.token, after, record: failed(&parked) };
    settle(&*bills, retry).await.unwrap();
    for n in 0..MESSAGES {
        bench.publish(&n.to_string()).await.unwrap();
    }
    for (consumer, count) in [(&bills, MESSAGES), (&audits, MESSAGES + 1)] {
        let received = many(&**consumer, count).await;
        let acks: Vec<_> =
            received.iter().map(|received| Settlement::Ack(received.token)).collect();
        let mut out = Vec::new();
        consumer.settle(&acks, &mut out).await;
        assert!(out.iter().all(Result::is_ok), "{out:?}");
    }
    assert_eq!(bench.number(&["XLEN", "orders"]).await, 1);
    let stats = bench.redis.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 1));
}

/// What another program acknowledged, and what a destroyed group left, goes with the sweep.
#[tokio::test]
async fn entries_that_nobody_needs_any_more_are_swept() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let (_, audits) = other(&bench).await;
    let bills = bench.consumer(bench.source()).await;
    bench.publish("a").await.unwrap();
    ack(&*bills, next(&*bills).await.token).await.unwrap();
    let held = next(&*audits).await;
    drop(audits);
    assert_eq!(bench.number(&["XLEN", "orders"]).await, 1);
    let entry = crate::support::entry(&held);
    assert_eq!(bench.number(&["XACK", "orders", "audit", &entry]).await, 1);
    eventually("the entry is swept", async || bench.number(&["XLEN", "orders"]).await == 0).await;
}

/// Pitfall 24: the name of a consumer goes with its close only where it has nothing.
#[tokio::test]
async fn a_name_with_deliveries_is_never_removed() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let dropped = bench.consumer(bench.source()).await;
    bench.publish("a").await.unwrap();
    next(&*dropped).await;
    let leaves = bench.consumer(bench.source()).await;
    leaves.close().await.unwrap();
    drop(dropped);
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    assert_eq!(received.deliveries, 2);
    ack(&*consumer, received.token).await.unwrap();
}
