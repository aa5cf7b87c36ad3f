//! Reads that wait, and reads whose answers are lost.

use std::time::{Duration, Instant};

use longshore_core::{Broker as _, ErrorKind, Settlement};

use crate::proxy::Proxy;
use crate::support::{Bench, LEASE, ack, failed, is, next, quiet, server, settle};

/// Pitfall 18: a read that waits for longer than any answer may take strands nothing.
#[tokio::test]
async fn what_comes_after_a_long_wait_comes_at_once() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    // Two reads begin and end meanwhile.
    assert!(quiet(&*consumer, Duration::from_millis(5_300)).await);
    let began = Instant::now();
    bench.publish("a").await.unwrap();
    let received = next(&*consumer).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(received.deliveries, 1);
    ack(&*consumer, received.token).await.unwrap();
}

/// Pitfall 18: a reader that is aborted in the middle leaves what it had to others.
#[tokio::test]
async fn what_a_dropped_consumer_read_comes_to_another_with_the_end_of_its_lease() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let dropped = bench.consumer(bench.source()).await;
    bench.publish("a").await.unwrap();
    next(&*dropped).await;
    bench.publish("b").await.unwrap();
    drop(dropped);
    let consumer = bench.consumer(bench.source()).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let received = next(&*consumer).await;
        seen.push((received.body.clone(), received.deliveries));
        ack(&*consumer, received.token).await.unwrap();
    }
    seen.sort();
    assert_eq!(seen[0], ("a".into(), 2), "it was handed over and lost");
    assert_eq!(seen[1].0, "b");
}

/// Pitfall 19: an entry whose answer was lost is found without waiting for its lease, and its
/// hand-over did not happen.
#[tokio::test]
async fn what_a_lost_answer_brought_is_found_at_once() {
    let server = server().await;
    let direct = Bench::new(server.url()).await;
    let proxy = Proxy::new(server.address(), "only-in-this-body").await;
    let bench = Bench::new(&proxy.url).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("warm").await.unwrap();
    ack(&*consumer, next(&*consumer).await.token).await.unwrap();
    proxy.lose(1);
    let began = Instant::now();
    direct.publish("only-in-this-body").await.unwrap();
    let received = next(&*consumer).await;
    assert_eq!((&received.body[..], proxy.left()), (&b"only-in-this-body"[..], 0));
    assert!(began.elapsed() < LEASE / 2, "{:?}", began.elapsed());
    assert_eq!(received.deliveries, 1);
    ack(&*consumer, received.token).await.unwrap();
}

/// The row "the reply of `take_due` or `reap` is lost": found as soon.
#[tokio::test]
async fn what_a_lost_answer_of_a_script_brought_is_found_at_once() {
    let server = server().await;
    let proxy = Proxy::new(server.address(), "only-in-this-body").await;
    let bench = Bench::new(&proxy.url).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("only-in-this-body").await.unwrap();
    let first = next(&*consumer).await;
    let after = Duration::from_millis(300);
    let retry = Settlement::Retry { token: first.token, after, record: failed(&first) };
    settle(&*consumer, retry).await.unwrap();
    proxy.lose(1);
    let began = Instant::now();
    let again = next(&*consumer).await;
    assert_eq!((again.attempt(), proxy.left()), (2, 0));
    assert!(began.elapsed() < LEASE / 2, "{:?}", began.elapsed());
    assert_eq!(again.unexplained(), 0, "a lost answer is no crash");
    ack(&*consumer, again.token).await.unwrap();
}

/// Pitfall 20: nothing waits behind a read that waits.
#[tokio::test]
async fn publishes_and_settlements_wait_for_no_read() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let began = Instant::now();
        bench.publish(&n.to_string()).await.unwrap();
        let received = next(&*consumer).await;
        ack(&*consumer, received.token).await.unwrap();
        slowest = slowest.max(began.elapsed());
    }
    // A read waits for two seconds.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test]
async fn a_closed_client_answers_closed() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.redis.close().await.unwrap();
    bench.redis.close().await.unwrap();
    is(consumer.receive(&mut Vec::new(), 1).await, ErrorKind::Closed);
    is(bench.publish("late").await, ErrorKind::Closed);
}
