//! Consumers whose connection, channel or queue is lost.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use longshore_core::{Consumer, ErrorKind, Event, Link, Received, Settlement};
use longshore_testbed::Options;
use tokio::time::timeout;

use crate::hand::{ack, body, event, many, next, quiet, settle};
use crate::server::{control, own, shared};
use crate::support::{Bench, DEADLINE, is};

const SOON: Duration = Duration::from_millis(500);

/// What a consumer says until it is attached again; the messages of before, which must not be.
async fn until_up(consumer: &dyn Consumer) -> (Vec<u32>, Option<longshore_core::Error>) {
    let (mut lost, mut down) = (Vec::new(), None);
    loop {
        match event(consumer).await {
            Event::Lost { epoch, .. } => lost.push(epoch),
            Event::State(Link::Down { why }) => down = Some(why),
            Event::State(Link::Up) => return (lost, down),
            Event::Message(received) => panic!("{received:?} before it is up again"),
            other => panic!("{other:?}"),
        }
    }
}

fn by_body(all: &[Received]) -> BTreeMap<&str, u32> {
    all.iter().map(|one| (body(one), one.deliveries)).collect()
}

/// Pitfalls 8 and 15: what was buffered when the connection ended is not handed over, a token of
/// before is lost, and the prefetch holds on the next connection.
#[tokio::test]
async fn what_was_buffered_before_a_reconnect_is_nobodys() {
    let broker = own(Options::default()).await;
    let bench = Bench::new(&broker).await;
    let bodies: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    bench.publish(bodies.iter().map(String::as_str)).await;
    let consumer = bench.consumer(bench.source(), 10).await;
    let first = next(&*consumer).await;
    // Nine wait in the buffer of this process; the others with the server.
    bench.has_ready(20).await;
    control(&broker, &["close_all_connections", "a test"]).await;
    let (lost, down) = until_up(&*consumer).await;
    assert_eq!(lost, [first.token.epoch]);
    assert_eq!(down.unwrap().kind(), ErrorKind::Unavailable);
    is(ack(&*consumer, first.token).await, ErrorKind::LeaseLost);
    let again = many(&*consumer, 10).await;
    assert!(quiet(&*consumer, SOON).await, "ten are held");
    assert_eq!(by_body(&again).len(), 10, "each once: {again:?}");
    assert!(again.iter().all(|one| one.token.epoch != first.token.epoch && one.deliveries == 2));
    for received in &again {
        ack(&*consumer, received.token).await.unwrap();
    }
    for _ in 0..20 {
        let received = next(&*consumer).await;
        assert_eq!(received.deliveries, 1, "never handed out before");
        ack(&*consumer, received.token).await.unwrap();
    }
    assert!(quiet(&*consumer, SOON).await);
}

/// Pitfall 6: a queue that is deleted while it is read is made again, and the program hears of it.
#[tokio::test]
async fn a_queue_that_is_deleted_is_declared_anew_with_an_event() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    bench.publish(["before"]).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let held = next(&*consumer).await;
    let channel = bench.native().await;
    let options = QueueDeleteOptions::default();
    channel.queue_delete(bench.queue().into(), options).await.unwrap();
    let (lost, down) = until_up(&*consumer).await;
    assert_eq!((lost, down.is_some()), (vec![held.token.epoch], true));
    is(ack(&*consumer, held.token).await, ErrorKind::LeaseLost);
    bench.publish(["after"]).await;
    let received = next(&*consumer).await;
    assert_eq!(body(&received), "after");
    // Retries find the way to it too.
    settle(&*consumer, crate::hand::retry(&received, Duration::from_millis(100))).await.unwrap();
    let again = next(&*consumer).await;
    assert_eq!(again.attempt(), 2);
    ack(&*consumer, again.token).await.unwrap();
}

/// Pitfalls 7 and 14: the server closes the channel of a run that is too long. Everything on it comes
/// back, with one more delivery, in no tight loop, and what is acked in time goes on.
#[tokio::test]
async fn a_run_beyond_the_servers_own_limit_loses_its_channel_and_nothing_else() {
    let broker = own(Options::default()).await;
    let limit = "application:set_env(rabbit, consumer_timeout, 3000), \
                 application:set_env(rabbit, channel_tick_interval, 500).";
    control(&broker, &["eval", limit]).await;
    let bench = Bench::new(&broker).await;
    bench.publish(["long", "other"]).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let begun = Instant::now();
    let mut tokens: Vec<_> = many(&*consumer, 2).await.iter().map(|one| one.token).collect();
    for round in 1..=2u32 {
        let (lost, _) = until_up(&*consumer).await;
        assert_eq!(lost.len(), 1);
        for token in tokens {
            is(ack(&*consumer, token).await, ErrorKind::LeaseLost);
        }
        let again = many(&*consumer, 2).await;
        assert!(again.iter().all(|one| one.deliveries == round + 1), "{again:?}");
        tokens = again.iter().map(|one| one.token).collect();
    }
    assert!(begun.elapsed() >= Duration::from_secs(6), "a loop: {:?}", begun.elapsed());
    for token in tokens {
        ack(&*consumer, token).await.unwrap();
    }
    assert!(quiet(&*consumer, SOON).await);
    consumer.close().await.unwrap();
    assert_eq!(bench.ready().await, 0);
}

/// A node that stops and comes back: the consumer goes on by itself, with everything.
#[tokio::test]
async fn a_consumer_outlives_its_server() {
    let broker = own(Options::default()).await;
    let bench = Bench::new(&broker).await;
    bench.publish(["a", "b", "c"]).await;
    let consumer = bench.consumer(bench.source(), 2).await;
    let held = many(&*consumer, 2).await;
    broker.stop().await.unwrap();
    let gone = async {
        loop {
            if let Event::State(Link::Down { .. }) = event(&*consumer).await {
                return;
            }
        }
    };
    timeout(DEADLINE, gone).await.unwrap();
    is(ack(&*consumer, held[0].token).await, ErrorKind::LeaseLost);
    let letter = bench.letter(&held[1]);
    let dead = Settlement::DeadLetter { token: held[1].token, letter };
    is(settle(&*consumer, dead).await, ErrorKind::LeaseLost);
    // Down without a server; no error ends it.
    assert!(quiet(&*consumer, SOON).await);
    broker.restart().await.unwrap();
    let mut seen = BTreeMap::new();
    while seen.len() < 3 {
        let received = next(&*consumer).await;
        seen.insert(body(&received).to_owned(), received.deliveries);
        ack(&*consumer, received.token).await.unwrap();
    }
    assert_eq!(seen["c"], 1);
}

/// A `receive` that is dropped at any time loses nothing.
#[tokio::test]
async fn a_receive_that_is_dropped_keeps_what_came() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let bodies: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    bench.publish(bodies.iter().map(String::as_str)).await;
    let consumer = bench.consumer(bench.source(), 50).await;
    let mut seen = Vec::new();
    let begun = Instant::now();
    let mut micros = 1;
    while seen.len() < 50 {
        assert!(begun.elapsed() < DEADLINE, "{} came", seen.len());
        let mut out = Vec::new();
        let wait = Duration::from_micros(micros);
        let _ = timeout(wait, consumer.receive(&mut out, 3)).await;
        micros = (micros * 2).min(20_000);
        for event in out {
            if let Event::Message(received) = event {
                assert_eq!(received.deliveries, 1);
                seen.push(body(&received).parse::<u32>().unwrap());
                ack(&*consumer, received.token).await.unwrap();
            }
        }
    }
    assert!(seen.is_sorted());
}
