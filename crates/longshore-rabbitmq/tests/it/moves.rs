//! Settlements and moves, and what is on the wire after them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lapin::options::{BasicGetOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use longshore_core::{Broker as _, ErrorKind, Event, Page, Record, Settlement};
use tokio::time::timeout;

use crate::hand::{ack, body, failed, many, next, quiet, retry, settle};
use crate::server::shared;
use crate::support::{Bench, DEADLINE, is};

const SOON: Duration = Duration::from_millis(500);

/// Pitfall 10: a short delay is not kept waiting by a long one, none is early, and on an idle
/// broker none is later than its rounding and a second.
#[tokio::test]
async fn mixed_delays_end_each_at_its_own_time() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let delays = [6000u64, 100, 3000, 150, 700, 100, 1500, 0, 4100, 260].map(Duration::from_millis);
    let bodies: Vec<String> = (0..delays.len()).map(|n| n.to_string()).collect();
    bench.publish(bodies.iter().map(String::as_str)).await;
    let consumer = bench.consumer(bench.source(), 64).await;
    let mut ordered = BTreeMap::new();
    for received in many(&*consumer, delays.len()).await {
        let place: usize = body(&received).parse().unwrap();
        ordered.insert(place, Instant::now());
        settle(&*consumer, retry(&received, delays[place])).await.unwrap();
    }
    for _ in 0..delays.len() {
        let received = next(&*consumer).await;
        let place: usize = body(&received).parse().unwrap();
        let (took, wanted) = (ordered[&place].elapsed(), delays[place]);
        assert!(took >= wanted, "{wanted:?} was over after {took:?}");
        let latest = wanted.max(Duration::from_millis(100)).mul_f64(1.125) + Duration::from_secs(1);
        assert!(took <= latest, "{wanted:?} took {took:?}");
        assert_eq!((received.attempt(), received.deliveries, received.unexplained()), (2, 2, 0));
        ack(&*consumer, received.token).await.unwrap();
    }
    assert!(quiet(&*consumer, SOON).await);
    consumer.close().await.unwrap();
}

/// Pitfall 11: a copy carries nothing that the broker wrote, so that none of ten trips through the
/// levels is taken for a cycle.
#[tokio::test]
async fn ten_retries_leave_a_message_as_it_was() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let theirs = [
        ("colour", AMQPValue::LongString("blue".into())),
        ("weight", AMQPValue::LongInt(7)),
        ("x-death", AMQPValue::LongString("forged".into())),
        ("x-first-death-queue", AMQPValue::LongString("forged".into())),
    ];
    bench.foreign("m", &theirs).await;
    let consumer = bench.consumer(bench.source(), 1).await;
    for attempt in 1..=10 {
        let received = next(&*consumer).await;
        assert_eq!((received.attempt(), received.deliveries), (attempt, attempt));
        settle(&*consumer, retry(&received, Duration::from_millis(100))).await.unwrap();
    }
    consumer.close().await.unwrap();
    bench.has_ready(1).await;
    let channel = bench.native().await;
    let got = channel.basic_get(bench.queue().into(), BasicGetOptions::default()).await.unwrap();
    let table = got.unwrap().delivery.properties.headers().clone().unwrap();
    let names: Vec<_> = table.inner().keys().map(|name| name.as_str().to_owned()).collect();
    // What the last trip wrote, and no more of it than one trip writes.
    let of_the_broker = ["x-death", "x-delivery-count"];
    let kept: Vec<_> = names
        .iter()
        .filter(|name| !of_the_broker.contains(&name.as_str()))
        .filter(|name| !name.starts_with("x-first-death-") && !name.starts_with("x-last-death-"))
        .collect();
    assert_eq!(kept, ["colour", "longshore-retry", "weight"]);
    assert_eq!(table.inner()["weight"], AMQPValue::LongInt(7));
    if let Some(AMQPValue::FieldArray(deaths)) = table.inner().get("x-death") {
        assert!(deaths.as_slice().len() <= 4, "one trip has four hops at most: {deaths:?}");
    }
}

/// Settled in one batch, in any order: each settles itself and no other.
#[tokio::test]
async fn a_later_ack_covers_no_earlier_delivery() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let bodies: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    bench.publish(bodies.iter().map(String::as_str)).await;
    let consumer = bench.consumer(bench.source(), 32).await;
    let received = many(&*consumer, 20).await;
    let odd: Vec<_> = received.iter().skip(1).step_by(2).collect();
    let acks: Vec<_> = odd.iter().rev().map(|one| Settlement::Ack(one.token)).collect();
    let mut results = Vec::new();
    consumer.settle(&acks, &mut results).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    // A second ack settles nobody else either.
    is(ack(&*consumer, odd[0].token).await, ErrorKind::LeaseLost);
    consumer.close().await.unwrap();
    let consumer = bench.consumer(bench.source(), 32).await;
    let rest = many(&*consumer, 10).await;
    let left: Vec<_> = rest.iter().map(|one| body(one).parse::<u32>().unwrap()).collect();
    assert_eq!(left, (0..20).step_by(2).collect::<Vec<_>>());
    assert!(quiet(&*consumer, SOON).await);
}

/// Crash window: a copy that came back is not written. The original stays, its token valid.
#[tokio::test]
async fn a_copy_without_a_queue_leaves_the_original() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    bench.publish(["m"]).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let received = next(&*consumer).await;
    let channel = bench.native().await;
    let dlq = format!("{}.dlq", bench.queue());
    let options = QueueDeleteOptions::default();
    channel.queue_delete(dlq.clone().into(), options).await.unwrap();
    let dead = || Settlement::DeadLetter { token: received.token, letter: bench.letter(&received) };
    is(settle(&*consumer, dead()).await, ErrorKind::Unsupported);
    is(settle(&*consumer, dead()).await, ErrorKind::Unsupported);
    // A suspect lane that is not bound: the copy is not parked in its place either.
    let (suspect, direct) = (format!("{}.suspect", bench.queue()), "longshore.direct");
    let (key, table) = (suspect.clone(), FieldTable::default());
    channel.queue_unbind(suspect.into(), direct.into(), key.into(), table).await.unwrap();
    let record =
        Box::new(Record { deliveries: 1, explained: 1, suspect: true, ..Record::default() });
    let suspect = Settlement::Suspect { token: received.token, record };
    is(settle(&*consumer, suspect).await, ErrorKind::NotFound);
    ack(&*consumer, received.token).await.unwrap();
    consumer.close().await.unwrap();
    assert_eq!(bench.ready().await, 0);
}

#[tokio::test]
async fn a_release_with_a_record_is_a_copy_and_one_without_is_a_return() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    bench.publish(["m"]).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let first = next(&*consumer).await;
    let release = |token, record| Settlement::Release { token, record };
    settle(&*consumer, release(first.token, None)).await.unwrap();
    let second = next(&*consumer).await;
    assert_eq!((second.deliveries, second.unexplained()), (2, 1));
    let mut record = failed(&second);
    (record.delayed, record.explained) = (0, 1);
    settle(&*consumer, release(second.token, Some(record))).await.unwrap();
    let third = next(&*consumer).await;
    assert_eq!((third.deliveries, third.unexplained(), third.attempt()), (3, 1, 2));
    assert_eq!(third.id, first.id);
    ack(&*consumer, third.token).await.unwrap();
    assert!(quiet(&*consumer, SOON).await);
}

/// Pitfall 9: what a publisher says of deliveries is not counted, and our limit is never reached.
#[tokio::test]
async fn counts_are_the_brokers_own_and_have_no_end() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    for name in ["x-delivery-count", "x-acquired-count"] {
        bench.foreign("m", &[(name, AMQPValue::LongInt(9))]).await;
    }
    for round in 1..=26 {
        let consumer = bench.consumer(bench.source(), 4).await;
        for received in many(&*consumer, 2).await {
            assert_eq!(received.deliveries, round, "round {round}");
        }
        // No settlement: as when the process ends.
        drop(consumer);
    }
    bench.has_ready(2).await;
}

#[tokio::test]
async fn a_suspect_runs_alone_in_its_group() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    bench.publish(["a", "b"]).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    for received in many(&*consumer, 2).await {
        let record = Record { deliveries: 1, explained: 1, suspect: true, ..Record::default() };
        let (token, record) = (received.token, Box::new(record));
        settle(&*consumer, Settlement::Suspect { token, record }).await.unwrap();
    }
    let (one, other) =
        (bench.consumer(bench.suspects(), 8).await, bench.consumer(bench.suspects(), 8).await);
    let first = next(&*one).await;
    assert_eq!((body(&first), first.deliveries, first.unexplained()), ("a", 2, 0));
    assert!(quiet(&*one, SOON).await, "one at a time");
    assert!(quiet(&*other, SOON).await, "one member");
    // A breaker that opens leaves the lane to the other, once what runs has ended.
    one.set_prefetch(0).await;
    assert!(quiet(&*other, SOON).await, "a suspect still runs");
    settle(&*one, retry(&first, Duration::from_millis(100))).await.unwrap();
    let waits = tokio::spawn(async move {
        let _ = tokio::time::timeout(Duration::from_secs(10), next(&*one)).await;
        one
    });
    let second = next(&*other).await;
    assert_eq!(body(&second), "b");
    ack(&*other, second.token).await.unwrap();
    waits.abort();
    // It failed there, and is tried like any other.
    let again = next(&*consumer).await;
    assert_eq!((body(&again), again.attempt()), ("a", 2));
    ack(&*consumer, again.token).await.unwrap();
}

/// A breaker: with no prefetch the broker has everything that was not handed over.
#[tokio::test]
async fn a_prefetch_of_none_gives_back_what_is_underway() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let bodies: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    bench.publish(bodies.iter().map(String::as_str)).await;
    let consumer = bench.consumer(bench.source(), 10).await;
    let first = next(&*consumer).await;
    consumer.set_prefetch(0).await;
    let other = bench.consumer(bench.source(), 16).await;
    let rest = many(&*other, 9).await;
    assert!(rest.iter().all(|one| one.unexplained() <= 1));
    assert!(quiet(&*consumer, SOON).await);
    for received in &rest {
        settle(&*other, Settlement::Release { token: received.token, record: None }).await.unwrap();
    }
    other.close().await.unwrap();
    // One more than it holds.
    consumer.set_prefetch(2).await;
    let second = next(&*consumer).await;
    assert!(quiet(&*consumer, SOON).await, "two are held");
    consumer.set_prefetch(10).await;
    let more = many(&*consumer, 8).await;
    for received in more.iter().chain([&first, &second]) {
        ack(&*consumer, received.token).await.unwrap();
    }
    consumer.close().await.unwrap();
    assert_eq!(bench.ready().await, 0);
}

#[tokio::test]
async fn letters_that_are_passed_over_stay_and_keep_their_order() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let bodies: Vec<String> = (0..6).map(|n| n.to_string()).collect();
    bench.publish(bodies.iter().map(String::as_str)).await;
    let consumer = bench.consumer(bench.source(), 8).await;
    for received in many(&*consumer, 6).await {
        let (token, letter) = (received.token, bench.letter(&received));
        settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    }
    let reader = bench.consumer(bench.letters(), 2).await;
    for n in 0..6 {
        let dead = next(&*reader).await;
        assert_eq!(body(&dead), n.to_string());
        let (token, record) = (dead.token, Record { redrives: 1, ..Record::default() });
        let settlement = match n {
            3 => Settlement::Redrive { token, record: Box::new(record) },
            _ => Settlement::Release { token, record: None },
        };
        settle(&*reader, settlement).await.unwrap();
    }
    assert!(quiet(&*reader, SOON).await, "none is seen twice");
    reader.close().await.unwrap();
    let back = next(&*consumer).await;
    assert_eq!((body(&back), back.attempt(), back.letter.is_some()), ("3", 1, false));
    assert_eq!(back.record.as_ref().unwrap().redrives, 1);
    let page = Page { after: None, limit: 3 };
    let first = bench.rabbit.browse(&bench.letters(), &page).await.unwrap();
    let after = first.last().map(|last| last.position.clone());
    let rest = bench.rabbit.browse(&bench.letters(), &Page { after, limit: 10 }).await.unwrap();
    let all: Vec<_> = first.iter().chain(&rest).map(body).collect();
    assert_eq!(all, ["0", "1", "2", "4", "5"]);
    assert_eq!(bench.waiting_letters().await, 5);
}

/// The client library drops what the broker sends while a consumer ends. A run that goes on keeps
/// the channel open all the while, and nothing may stay between two consumers of it.
#[tokio::test]
async fn a_prefetch_that_flaps_strands_nothing() {
    const MESSAGES: usize = 400;
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let bodies: Vec<String> = (0..MESSAGES).map(|n| n.to_string()).collect();
    bench.publish(bodies.iter().map(String::as_str)).await;
    let consumer = bench.consumer(bench.source(), 32).await;
    let runs_on = next(&*consumer).await;
    let mut seen = std::collections::BTreeSet::from([body(&runs_on).to_owned()]);
    let begun = Instant::now();
    let mut round = 0;
    while seen.len() < MESSAGES {
        assert!(begun.elapsed() < DEADLINE, "{} of {MESSAGES} came", seen.len());
        // Acks right before the end: the broker delivers what they made room for.
        let mut out = Vec::new();
        let _ = timeout(SOON, consumer.receive(&mut out, 16)).await;
        let mut acks = Vec::new();
        for event in out {
            if let Event::Message(received) = event {
                seen.insert(body(&received).to_owned());
                acks.push(Settlement::Ack(received.token));
            }
        }
        let mut results = Vec::new();
        consumer.settle(&acks, &mut results).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        round += 1;
        if round <= 20 {
            consumer.set_prefetch(1).await;
            consumer.set_prefetch(32).await;
        }
    }
    ack(&*consumer, runs_on.token).await.unwrap();
    consumer.close().await.unwrap();
    assert_eq!(bench.ready().await, 0);
}
