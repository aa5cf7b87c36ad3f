//! Retries that wait on the server.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_core::{Broker as _, Consumer, ErrorKind, Event, Message, Received, Settlement};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::server::Server;
use crate::support::{Bench, ack, failed, is, next, settle};

/// A waiting retry counts as unsettled: with the server's default limit of 1,000 such messages, the
/// group would stand still.
#[tokio::test]
async fn two_thousand_that_wait_do_not_stop_what_is_new() {
    const PARKED: usize = 2_000;
    let gap = Duration::from_secs(20);
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer_of(bench.source(), 256).await;
    let publisher = bench.nats.publisher(&bench.topic).await.unwrap();
    for start in (0..PARKED).step_by(500) {
        let mut batch = (start..start + 500).map(|n| Message::new(n.to_string())).collect();
        for outcome in publisher.publish(&mut batch).await.unwrap().await {
            outcome.unwrap();
        }
    }
    let mut parked: HashMap<String, Instant> = HashMap::new();
    while parked.len() < PARKED {
        let order = |received: &Received| {
            let (token, record) = (received.token, failed(received));
            Settlement::Retry { token, after: gap, record }
        };
        let all = some(&*consumer).await;
        let orders: Vec<_> = all.iter().map(order).collect();
        let ordered = Instant::now();
        let mut out = Vec::new();
        consumer.settle(&orders, &mut out).await;
        for (received, outcome) in all.iter().zip(out) {
            outcome.unwrap();
            assert_eq!(received.attempt(), 1, "one came back while others were being parked");
            parked.insert(text(received), ordered);
        }
    }
    let stats = bench.nats.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, PARKED as u64));
    for n in 0..20 {
        let sent = Instant::now();
        bench.publish(&format!("new {n}")).await.unwrap();
        let received = next(&*consumer).await;
        assert_eq!(text(&received), format!("new {n}"));
        assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
        ack(&*consumer, received.token).await.unwrap();
    }
    while !parked.is_empty() {
        let all = some(&*consumer).await;
        let orders: Vec<_> = all.iter().map(|received| Settlement::Ack(received.token)).collect();
        for received in &all {
            let ordered = parked.remove(&text(received)).expect("each comes once");
            assert!(ordered.elapsed() >= gap, "early: {:?}", ordered.elapsed());
            assert_eq!((received.attempt(), received.unexplained()), (2, 0));
        }
        let mut out = Vec::new();
        consumer.settle(&orders, &mut out).await;
        out.into_iter().for_each(Result::unwrap);
    }
    let stats = bench.nats.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
}

fn text(received: &Received) -> String {
    String::from_utf8(received.body.to_vec()).unwrap()
}

async fn some(consumer: &dyn longshore_core::Consumer) -> Vec<Received> {
    let mut out = Vec::new();
    let came = tokio::time::timeout(Duration::from_secs(30), consumer.receive(&mut out, 256));
    came.await.expect("nothing came").unwrap();
    let message = |event| match event {
        Event::Message(received) => Some(received),
        _ => None,
    };
    out.into_iter().filter_map(message).collect()
}

/// A consumer with a back-off of its own would add it to each delay.
#[tokio::test]
async fn a_delay_is_what_was_ordered_each_time() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let mut received = next(&*consumer).await;
    for (attempt, millis) in [(2, 300), (3, 2_000), (4, 700), (5, 1_500)] {
        let after = Duration::from_millis(millis);
        let ordered = Instant::now();
        let retry = Settlement::Retry { token: received.token, after, record: failed(&received) };
        settle(&*consumer, retry).await.unwrap();
        received = next(&*consumer).await;
        let waited = ordered.elapsed();
        assert!(waited >= after, "{after:?}: early, {waited:?}");
        // The server's own resolution is a millisecond; the rest is a busy machine's.
        assert!(waited < after + Duration::from_millis(500), "{after:?}: late, {waited:?}");
        assert_eq!((received.attempt(), received.unexplained()), (attempt, 0));
    }
    ack(&*consumer, received.token).await.unwrap();
}

#[tokio::test]
async fn a_short_delay_behind_a_long_one_is_on_time() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    for body in ["long", "short"] {
        bench.publish(body).await.unwrap();
    }
    for seconds in [6, 1] {
        let received = next(&*consumer).await;
        let (token, record) = (received.token, failed(&received));
        let after = Duration::from_secs(seconds);
        settle(&*consumer, Settlement::Retry { token, after, record }).await.unwrap();
    }
    let ordered = Instant::now();
    for (body, latest) in [("short", 2), ("long", 7)] {
        let received = next(&*consumer).await;
        assert_eq!(text(&received), body);
        assert!(ordered.elapsed() < Duration::from_secs(latest), "{:?}", ordered.elapsed());
        ack(&*consumer, received.token).await.unwrap();
    }
}

/// Without a gap, a message comes again before the server has confirmed that it
/// will: it must not be taken for one that is still in hand, or nobody has it until its lease is over.
#[tokio::test]
async fn a_retry_that_comes_before_its_own_confirmation_is_handed_over() {
    const MESSAGES: usize = 200;
    const ROUNDS: u32 = 10;
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer_of(bench.source(), 256).await;
    let publisher = bench.nats.publisher(&bench.topic).await.unwrap();
    let mut batch = (0..MESSAGES).map(|n| Message::new(n.to_string())).collect();
    for outcome in publisher.publish(&mut batch).await.unwrap().await {
        outcome.unwrap();
    }
    // Both at once, as the runtime does: what comes is taken while a batch is being settled.
    let (handed, mut received) = mpsc::unbounded_channel();
    let consumer = &*consumer;
    let read = async move {
        for _ in 0..MESSAGES * ROUNDS as usize {
            handed.send(next(consumer).await).unwrap();
        }
    };
    let settle = async {
        let mut all = Vec::new();
        while received.recv_many(&mut all, 64).await > 0 {
            let orders: Vec<_> = all.drain(..).map(|received| again(&received, ROUNDS)).collect();
            let mut out = Vec::new();
            consumer.settle(&orders, &mut out).await;
            out.into_iter().for_each(|outcome| outcome.unwrap());
        }
    };
    tokio::join!(read, settle);
    let stats = bench.nats.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
}

/// Retries at once until the last round.
fn again(received: &Received, rounds: u32) -> Settlement {
    // What waited for its lease was counted once more.
    assert_eq!(received.unexplained(), 0, "{received:?}");
    assert_eq!(received.deliveries, received.attempt());
    let token = received.token;
    if received.attempt() == rounds {
        return Settlement::Ack(token);
    }
    Settlement::Retry { token, after: Duration::ZERO, record: failed(received) }
}

/// The second waits for its burst, and is settled all the same.
#[tokio::test]
async fn a_retry_that_waits_for_its_burst_cannot_be_settled_again() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let after = Duration::from_millis(500);
    let mut held = Vec::new();
    for n in 0..2 {
        bench.publish(&n.to_string()).await.unwrap();
        held.push(next(&*consumer).await);
    }
    for received in &held {
        let (token, record) = (received.token, failed(received));
        settle(&*consumer, Settlement::Retry { token, after, record }).await.unwrap();
    }
    is(ack(&*consumer, held[1].token).await, ErrorKind::LeaseLost);
    for _ in 0..2 {
        let again = next(&*consumer).await;
        assert_eq!(again.attempt(), 2);
        ack(&*consumer, again.token).await.unwrap();
    }
}

/// The server looks at its delays only ten milliseconds after the last delayed NAK: NAKed more
/// often than that, it would hand over no retry until the failures end. (A machine that stalls makes
/// such pauses by itself: then this finds nothing.)
#[tokio::test]
async fn retries_come_while_others_fail_without_a_pause() {
    const FAILURES: usize = 1_500;
    let after = Duration::from_millis(300);
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    bench.lease(Duration::from_secs(120)).await;
    let consumer: Arc<dyn Consumer> = bench.consumer_of(bench.source(), 4_000).await.into();
    let publisher = bench.nats.publisher(&bench.topic).await.unwrap();
    let mut batch = (0..FAILURES).map(|n| Message::new(n.to_string())).collect();
    for outcome in publisher.publish(&mut batch).await.unwrap().await {
        outcome.unwrap();
    }
    let mut waiting = Vec::new();
    while waiting.len() < FAILURES {
        waiting.extend(some(&*consumer).await);
    }
    let reader = consumer.clone();
    let (heard, mut news) = mpsc::unbounded_channel();
    let reading = tokio::spawn(async move {
        loop {
            some(&*reader).await.into_iter().for_each(|received| heard.send(received).unwrap());
        }
    });
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    let mut ordered: HashMap<String, Instant> = HashMap::new();
    let mut settling = JoinSet::new();
    for received in waiting {
        pace.tick().await;
        ordered.insert(text(&received), Instant::now());
        let (token, record) = (received.token, failed(&received));
        let consumer = consumer.clone();
        settling.spawn(async move {
            settle(&*consumer, Settlement::Retry { token, after, record }).await.unwrap();
        });
    }
    let mut came = Vec::new();
    while let Ok(received) = news.try_recv() {
        came.push(received);
    }
    let meanwhile = came.len();
    let due = ordered.values().filter(|ordered| ordered.elapsed() >= after * 2).count();
    settling.join_all().await;
    reading.abort();
    assert!(meanwhile * 2 > due, "{meanwhile} came of {due} that were due for long");
    // What came after the count, or while the reader ended.
    while let Ok(received) = news.try_recv() {
        came.push(received);
    }
    for received in &came {
        ack(&*consumer, received.token).await.unwrap();
    }
    // Those that wait for their burst leave with the consumer, and none of them comes early.
    consumer.close().await.unwrap();
    let consumer = bench.consumer_of(bench.source(), 4_000).await;
    while came.len() < FAILURES {
        let received = next(&*consumer).await;
        assert!(ordered[&text(&received)].elapsed() >= after);
        ack(&*consumer, received.token).await.unwrap();
        came.push(received);
    }
    let ids: HashSet<_> = came.iter().map(text).collect();
    assert_eq!((ids.len(), came.iter().all(|received| received.attempt() == 2)), (FAILURES, true));
}
