//! The settlements, one by one.

use std::time::{Duration, Instant};

use longshore_core::{Broker as _, ErrorKind, Message, Settlement, Source, Topology};

use crate::server::Server;
use crate::support::{Bench, LEASE, ack, failed, group, is, next, quiet, send, settle};

#[tokio::test]
async fn an_acked_message_never_comes_again() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    assert!(!bench.publish("m").await.unwrap().duplicate);
    let received = next(&*consumer).await;
    assert_eq!((&received.body[..], received.deliveries), (&b"m"[..], 1));
    ack(&*consumer, received.token).await.unwrap();
    is(ack(&*consumer, received.token).await, ErrorKind::LeaseLost);
    assert!(quiet(&*consumer, LEASE + Duration::from_secs(1)).await);
    let stats = bench.nats.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
}

#[tokio::test]
async fn a_batch_settles_each_for_itself() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    for body in ["a", "b", "c"] {
        bench.publish(body).await.unwrap();
    }
    let (a, b, c) = (next(&*consumer).await, next(&*consumer).await, next(&*consumer).await);
    let record = failed(&b);
    let after = Duration::from_secs(1);
    let started = Instant::now();
    let batch = [
        Settlement::Ack(a.token),
        Settlement::Retry { token: b.token, after, record },
        Settlement::Release { token: c.token, record: None },
        Settlement::Ack(a.token),
    ];
    let mut out = Vec::new();
    consumer.settle(&batch[..3], &mut out).await;
    assert!(out.iter().all(Result::is_ok), "{out:?}");
    let released = next(&*consumer).await;
    assert_eq!((&released.body[..], released.deliveries), (&b"c"[..], 2));
    ack(&*consumer, released.token).await.unwrap();
    let retried = next(&*consumer).await;
    assert!(started.elapsed() >= after, "early: {:?}", started.elapsed());
    assert_eq!((&retried.body[..], retried.deliveries, retried.attempt()), (&b"b"[..], 2, 2));
    assert_eq!(retried.unexplained(), 0);
    ack(&*consumer, retried.token).await.unwrap();
    let stats = bench.nats.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
}

#[tokio::test]
async fn a_lease_that_is_over_settles_nothing() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let first = next(&*consumer).await;
    let again = next(&*consumer).await;
    // One more where the machine stalled: what comes again while we still have it is ours.
    assert!(again.deliveries >= 2, "{}", again.deliveries);
    is(ack(&*consumer, first.token).await, ErrorKind::LeaseLost);
    let mut out = Vec::new();
    consumer.extend(&[first.token, again.token], LEASE, &mut out).await;
    is(out.remove(0), ErrorKind::LeaseLost);
    out.remove(0).unwrap();
    ack(&*consumer, again.token).await.unwrap();
}

#[tokio::test]
async fn an_extended_lease_holds() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let held = next(&*consumer).await;
    for _ in 0..4 {
        assert!(quiet(&*consumer, LEASE / 3).await);
        let mut out = Vec::new();
        consumer.extend(&[held.token], LEASE, &mut out).await;
        out.remove(0).unwrap();
    }
    ack(&*consumer, held.token).await.unwrap();
}

#[tokio::test]
async fn what_fails_in_the_suspect_lane_waits_in_the_main_one() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let lane = bench.consumer(bench.suspects()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let mut record = failed(&received);
    (record.failures, record.delayed, record.suspect) = (0, 0, true);
    settle(&*consumer, Settlement::Suspect { token: received.token, record }).await.unwrap();
    let suspect = next(&*lane).await;
    assert_eq!(suspect.id, received.id);
    assert_eq!((suspect.deliveries, suspect.record.as_ref().unwrap().suspect), (2, true));
    let (after, started) = (Duration::from_secs(2), Instant::now());
    let retry = Settlement::Retry { token: suspect.token, after, record: failed(&suspect) };
    settle(&*lane, retry).await.unwrap();
    let retried = next(&*consumer).await;
    assert!(started.elapsed() >= after, "early: {:?}", started.elapsed());
    assert_eq!((retried.id.clone(), retried.attempt()), (received.id, 2));
    ack(&*consumer, retried.token).await.unwrap();
    assert!(quiet(&*lane, Duration::from_millis(500)).await);
}

#[tokio::test]
async fn what_a_closed_consumer_held_comes_at_once() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let first = bench.consumer(bench.source()).await;
    bench.publish("a").await.unwrap();
    let held = next(&*first).await;
    let started = Instant::now();
    first.close().await.unwrap();
    first.close().await.unwrap();
    is(ack(&*first, held.token).await, ErrorKind::LeaseLost);
    is(first.receive(&mut Vec::new(), 1).await, ErrorKind::Closed);
    let second = bench.consumer(bench.source()).await;
    let again = next(&*second).await;
    assert!(started.elapsed() < Duration::from_secs(2), "late: {:?}", started.elapsed());
    ack(&*second, again.token).await.unwrap();
}

/// Far below the lease: what is in an inbox that nobody reads would come with its end.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_smaller_prefetch_gives_back_what_is_underway() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let first = bench.consumer(bench.source()).await;
    for body in ["a", "b", "c"] {
        bench.publish(body).await.unwrap();
    }
    let held = next(&*first).await;
    let started = Instant::now();
    first.set_prefetch(0).await;
    let second = bench.consumer(bench.source()).await;
    let mut came = Vec::new();
    for _ in 0..2 {
        let received = next(&*second).await;
        assert_eq!(received.attempt(), 1);
        came.push(received.body.clone());
        ack(&*second, received.token).await.unwrap();
    }
    assert!(started.elapsed() < LEASE, "late: {:?}", started.elapsed());
    came.sort_unstable();
    assert_eq!(came, ["b", "c"]);
    second.close().await.unwrap();

    bench.publish("d").await.unwrap();
    assert!(quiet(&*first, SOON).await, "nothing is asked for");
    first.set_prefetch(1).await;
    assert!(quiet(&*first, SOON).await, "one is held");
    ack(&*first, held.token).await.unwrap();
    let received = next(&*first).await;
    assert_eq!((&received.body[..], received.deliveries), (&b"d"[..], 1));
    bench.publish("e").await.unwrap();
    assert!(quiet(&*first, SOON).await, "one is held");
    first.set_prefetch(16).await;
    let other = next(&*first).await;
    assert_eq!(&other.body[..], b"e");
    ack(&*first, received.token).await.unwrap();
    ack(&*first, other.token).await.unwrap();
}

#[tokio::test]
async fn what_is_published_before_anyone_pulls_arrives_in_topics_with_and_without_dots() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    for name in ["orders", "shop.orders", "shop.eu.orders"] {
        let group = group(name);
        let (topic, name) = (group.topic.clone(), group.name.clone());
        bench.nats.declare(&Topology::group(group)).await.unwrap();
        let publisher = bench.nats.publisher(&topic).await.unwrap();
        for n in 0..5 {
            send(&*publisher, Message::new(n.to_string())).await.unwrap();
        }
        let consumer = bench.consumer(Source::Group { topic, group: name }).await;
        for n in 0..5 {
            let received = next(&*consumer).await;
            assert_eq!(&received.body[..], n.to_string().as_bytes());
            ack(&*consumer, received.token).await.unwrap();
        }
    }
}
