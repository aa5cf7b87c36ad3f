//! A server whose memory is full: it takes nothing, and gives and hears as before.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use longshore_core::{ErrorKind, Message, Settlement};
use longshore_testbed::Options;

use crate::hand::{ack, body, many, next, quiet, retry, settle};
use crate::server::own;
use crate::support::{Bench, eventually, send};

/// Pitfall 5, and the crash window of the same name: copies fail within their deadline, their
/// originals stay and their tokens hold, plain acks go on, and nothing is lost when it is over.
#[tokio::test]
async fn copies_wait_for_memory_and_acks_do_not() {
    let broker = own(Options::default()).await;
    let bench = Bench::with(&broker, "?publish_timeout=2s").await;
    bench.publish(["retried", "dead", "a", "b", "c", "d"]).await;
    let consumer = bench.consumer(bench.source(), 16).await;
    let held = many(&*consumer, 6).await;
    broker.memory_alarm(true).await.unwrap();
    // The server tells a connection so with its first publish.
    let publisher = bench.publisher().await;
    assert!(send(&*publisher, Message::new("x")).await.is_err());

    let retried = retry(&held[0], Duration::from_millis(100));
    let (token, letter) = (held[1].token, bench.letter(&held[1]));
    let dead = Settlement::DeadLetter { token, letter };
    let begun = Instant::now();
    let moves = [retried.clone(), dead.clone()];
    let mut results = Vec::new();
    let moving = consumer.settle(&moves, &mut results);
    let acking = async {
        for received in &held[2..] {
            let began = Instant::now();
            ack(&*consumer, received.token).await.unwrap();
            let took = began.elapsed();
            assert!(took < Duration::from_secs(1), "an ack waited {took:?} behind a copy");
        }
    };
    tokio::join!(moving, acking);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    for result in results {
        let kind = result.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Backpressure | ErrorKind::Timeout), "{kind:?}");
    }
    assert!(quiet(&*consumer, Duration::from_millis(500)).await, "the originals stay here");

    broker.memory_alarm(false).await.unwrap();
    eventually("a copy can be written again", || async {
        settle(&*consumer, retried.clone()).await.is_ok()
    })
    .await;
    settle(&*consumer, dead).await.unwrap();
    // What was published meanwhile had an unknown outcome: it may be there too.
    let mut again = next(&*consumer).await;
    if body(&again) == "x" {
        ack(&*consumer, again.token).await.unwrap();
        again = next(&*consumer).await;
    }
    assert_eq!((again.id.as_ref(), again.attempt()), (held[0].id.as_ref(), 2));
    ack(&*consumer, again.token).await.unwrap();
    eventually("one dead letter", || async { bench.waiting_letters().await >= 1 }).await;
    consumer.close().await.unwrap();
}

/// Crash window: copies that cannot be written for long hold no more than half of the prefetch.
#[tokio::test]
async fn copies_that_cannot_be_written_leave_half_of_the_prefetch() {
    let broker = own(Options::default()).await;
    let bench = Bench::with(&broker, "?publish_timeout=1s").await;
    bench.publish(["a", "b", "c", "d"]).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let held = many(&*consumer, 4).await;
    broker.memory_alarm(true).await.unwrap();
    assert!(send(&*bench.publisher().await, Message::new("x")).await.is_err());
    let begun = Instant::now();
    let mut lost = Vec::new();
    while lost.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "all of them are held");
        let moves: Vec<_> =
            held[..3].iter().map(|one| retry(one, Duration::from_secs(1))).collect();
        let mut results = Vec::new();
        consumer.settle(&moves, &mut results).await;
        let is_lost = |result: &longshore_core::Result<()>| {
            result.as_ref().unwrap_err().kind() == ErrorKind::LeaseLost
        };
        lost = (0..3).filter(|place| is_lost(&results[*place])).collect();
    }
    assert!(begun.elapsed() >= Duration::from_secs(30), "after {:?}", begun.elapsed());
    assert_eq!(lost.len(), 1, "two of four may wait");
    // It is there again for whoever can handle it, and its neighbours are still ours.
    let again = next(&*consumer).await;
    assert_eq!((again.id.as_ref(), again.deliveries), (held[lost[0]].id.as_ref(), 2));
    broker.memory_alarm(false).await.unwrap();
    for received in held.iter().filter(|one| one.id != again.id).chain([&again]) {
        ack(&*consumer, received.token).await.unwrap();
    }
    consumer.close().await.unwrap();
}
