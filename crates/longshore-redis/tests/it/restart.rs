//! A server that is killed in the middle.

use std::time::{Duration, Instant};

use longshore_core::{Broker as _, ErrorKind, Event, Link, Settlement};

use crate::support::{Bench, ack, failed, next, server, settle};

#[tokio::test]
async fn a_parked_retry_survives_a_kill_and_is_never_early() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    for n in 0..8 {
        bench.publish(&n.to_string()).await.unwrap();
    }
    let after = Duration::from_millis(4_700);
    let mut started = Instant::now();
    for _ in 0..8 {
        let received = next(&*consumer).await;
        let retry = Settlement::Retry { token: received.token, after, record: failed(&received) };
        settle(&*consumer, retry).await.unwrap();
        started = started.min(Instant::now());
    }
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    for _ in 0..8 {
        let received = next(&*consumer).await;
        assert!(started.elapsed() >= after, "early: {:?}", started.elapsed());
        assert_eq!((received.attempt(), received.unexplained()), (2, 0));
        ack(&*consumer, received.token).await.unwrap();
    }
    let stats = bench.redis.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
}

#[tokio::test]
async fn a_consumer_goes_on_over_a_restart_and_hears_of_it() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("a").await.unwrap();
    let held = next(&*consumer).await;
    server.kill().await.unwrap();
    let mut out = Vec::new();
    consumer.receive(&mut out, 1).await.unwrap();
    assert!(matches!(out[..], [Event::State(Link::Down { .. })]), "{out:?}");
    let error = ack(&*consumer, held.token).await.unwrap_err();
    assert!([ErrorKind::Unavailable, ErrorKind::LeaseLost].contains(&error.kind()), "{error:?}");
    server.restart().await.unwrap();
    // The message may come before the word of its connection: each has one of its own.
    let mut up = false;
    while !up {
        out.clear();
        consumer.receive(&mut out, 4).await.unwrap();
        up = out.iter().any(|event| matches!(event, Event::State(Link::Up)));
        for event in &out {
            if let Event::Message(received) = event {
                ack(&*consumer, received.token).await.unwrap();
            }
        }
    }
    bench.publish("b").await.unwrap();
    // The ack of `a` is unknown: the client may have kept it and sent it after the restart.
    loop {
        let received = next(&*consumer).await;
        ack(&*consumer, received.token).await.unwrap();
        if &received.body[..] == b"b" {
            break;
        }
    }
}

/// Pitfall 31: much was acknowledged and deleted, and the server reads its data again.
#[tokio::test]
async fn a_topic_that_was_read_and_deleted_is_loaded_again() {
    const MESSAGES: usize = 2000;
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer_of(bench.source(), 500).await;
    let publisher = bench.redis.publisher(&bench.topic).await.unwrap();
    for _ in 0..MESSAGES / 500 {
        let mut batch = (0..500).map(|n| n.to_string().into()).collect();
        for outcome in publisher.publish(&mut batch).await.unwrap().await {
            outcome.unwrap();
        }
        let received = crate::support::many(&*consumer, 500).await;
        // Every third stays.
        let acks: Vec<_> = received
            .iter()
            .enumerate()
            .filter(|(index, _)| index % 3 != 0)
            .map(|(_, received)| Settlement::Ack(received.token))
            .collect();
        let mut out = Vec::new();
        consumer.settle(&acks, &mut out).await;
        assert!(out.iter().all(Result::is_ok), "{out:?}");
        let rest: Vec<_> = received
            .iter()
            .step_by(3)
            .map(|received| Settlement::Release { token: received.token, record: None })
            .collect();
        out.clear();
        consumer.settle(&rest, &mut out).await;
        assert!(out.iter().all(Result::is_ok), "{out:?}");
        // The released come first.
        for received in crate::support::many(&*consumer, rest.len()).await {
            assert_eq!(received.deliveries, 1);
            ack(&*consumer, received.token).await.unwrap();
        }
    }
    bench.publish("last").await.unwrap();
    let node = &server.nodes()[0];
    node.control(&["bgrewriteaof"]).await.unwrap();
    crate::support::eventually("the file is rewritten", async || {
        node.control(&["info", "persistence"]).await.unwrap().contains("aof_rewrite_in_progress:0")
    })
    .await;
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(bench.number(&["XLEN", "orders"]).await, 1);
    assert_eq!(next(&*consumer).await.body, "last");
}
