//! Publishing: outcomes, the window of ids, and back-pressure.

use std::time::Duration;

use longshore_core::{
    Broker, ErrorKind, HeaderName, Message, MessageId, Outcome, Publisher, Result, Settlement,
    Setup, TopicName, Topology,
};
use longshore_memory::connect;
use tokio::time::{Instant, advance};

use crate::kit::*;

fn shape<T>(outcomes: &[Result<T>]) -> Vec<Option<(ErrorKind, Option<Outcome>)>> {
    outcomes
        .iter()
        .map(|outcome| outcome.as_ref().err().map(|error| (error.kind(), error.outcome())))
        .collect()
}

const FULL: Option<(ErrorKind, Option<Outcome>)> =
    Some((ErrorKind::Backpressure, Some(Outcome::NotSent)));

#[tokio::test(start_paused = true)]
async fn a_missing_topic_is_not_found_and_nothing_is_made() {
    let memory = connect("memory://", Setup::default()).await.unwrap();
    assert_kind(memory.publisher(&topic()).await, ErrorKind::NotFound);
    assert_kind(memory.publisher(&topic()).await, ErrorKind::NotFound);
    assert_kind(memory.inject(&topic(), "x", vec![]), ErrorKind::NotFound);
    assert_kind(memory.stored(&topic()), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_one_outcome_each_in_order() {
    let memory = broker("memory://?max_body=1KiB").await;
    let publisher = memory.publisher(&topic()).await.unwrap();
    let large = Message::new(vec![0; 1025]).id(MessageId::new("large").unwrap());
    let padded = message("padded").header(HeaderName::from_static("x"), vec![0; 17 * 1024]);
    let mut batch = vec![message("a"), large, message("a"), padded, message("b")];
    let outcomes = publisher.publish(&mut batch).await.unwrap().await;
    assert!(batch.is_empty());
    let refused = Some((ErrorKind::TooLarge, Some(Outcome::Refused)));
    assert_eq!(shape(&outcomes), [None, refused, None, refused, None]);
    let receipts: Vec<_> = outcomes.into_iter().flatten().collect();
    let duplicates: Vec<_> = receipts.iter().map(|receipt| receipt.duplicate).collect();
    assert_eq!(duplicates, [false, true, false]);
    let consumer = open(&memory, main_of("billing"), 10).await;
    assert_eq!(ids(&receive(&*consumer, 10).await), ["a", "b"]);
    assert_eq!(publish_by(&*publisher, &["c"]).await.len(), 1, "usable after a refusal");
}

#[tokio::test(start_paused = true)]
async fn an_id_is_known_again_inside_the_window_of_its_topic() {
    let memory = broker("memory://?dedup=10s").await;
    let other = TopicName::new("other").unwrap();
    memory.declare(&Topology::topic(other.clone())).await.unwrap();
    let duplicate = async |ids: &[&str]| publish(&memory, ids).await.remove(0).unwrap().duplicate;
    assert!(!duplicate(&["a"]).await);
    advance(seconds(9)).await;
    assert!(duplicate(&["a"]).await);
    let elsewhere = memory.publisher(&other).await.unwrap();
    assert!(!publish_by(&*elsewhere, &["a"]).await.remove(0).unwrap().duplicate);
    advance(seconds(1)).await;
    assert!(!duplicate(&["a"]).await, "a repeat does not renew the window");
    let consumer = open(&memory, main_of("billing"), 10).await;
    assert_eq!(ids(&receive(&*consumer, 10).await), ["a", "a"]);

    let off = broker("memory://?dedup=0s").await;
    publish(&off, &["a"]).await;
    assert!(!publish(&off, &["a"]).await.remove(0).unwrap().duplicate);
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_a_group_retains() {
    let memory =
        connect("memory://?capacity=2&publish_timeout=1s", Setup::default()).await.unwrap();
    memory.declare(&Topology::topic(topic())).await.unwrap();
    let outcomes = publish(&memory, &["a", "b", "c"]).await;
    assert_eq!(shape(&outcomes), [None, None, FULL]);
    advance(seconds(1_000_000)).await;
    assert_eq!(memory.stored(&topic()).unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_broker_waits_a_bounded_time_and_refuses_the_rest_in_order() {
    let memory = broker("memory://?capacity=3&publish_timeout=5s").await;
    let start = Instant::now();
    let outcomes = publish(&memory, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(shape(&outcomes), [None, None, None, FULL, FULL]);
    assert!(start.elapsed() >= seconds(5) && start.elapsed() < seconds(6));
    // What was refused was not sent: its id is not known.
    let consumer = open(&memory, main_of("billing"), 10).await;
    for received in receive(&*consumer, 10).await {
        ack(&*consumer, &received).await;
    }
    assert!(!publish(&memory, &["d"]).await.remove(0).unwrap().duplicate);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_room_are_taken_in_order() {
    let memory = broker("memory://?capacity=1&publish_timeout=60s").await;
    let consumer = open(&memory, main_of("billing"), 1).await;
    let publisher = memory.publisher(&topic()).await.unwrap();
    let publish = |ids: &'static [&'static str]| publish_by(&*publisher, ids);
    let reader = async {
        let mut seen = Vec::new();
        while seen.len() < 6 {
            let got = one(&*consumer).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            seen.push(id(&got));
            ack(&*consumer, &got).await;
        }
        seen
    };
    let (first, second, third, seen) = tokio::join!(biased; publish(&["a", "b", "c"]), publish(&["d"]), publish(&["e", "f"]), reader);
    assert_eq!(seen, ["a", "b", "c", "d", "e", "f"]);
    assert!([first, second, third].iter().flatten().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_publish_dropped_while_it_waits_leaves_the_rest_in_the_batch() {
    let memory = broker("memory://?capacity=2").await;
    let publisher = memory.publisher(&topic()).await.unwrap();
    let mut batch: Vec<_> = ["a", "b", "c", "d"].map(message).into();
    assert!(futures::poll!(publisher.publish(&mut batch)).is_pending());
    let left: Vec<_> =
        batch.iter().map(|message| message.id.clone().unwrap().to_string()).collect();
    assert_eq!(left, ["c", "d"]);
    let consumer = open(&memory, main_of("billing"), 10).await;
    let got = receive(&*consumer, 10).await;
    assert_eq!(ids(&got), ["a", "b"]);
    for received in &got {
        settle(&*consumer, Settlement::Ack(received.token)).await.unwrap();
    }
    assert!(publish_by(&*publisher, &["c", "d"]).await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_closed_publisher_takes_nothing() {
    let memory = broker("memory://?capacity=1").await;
    let publisher = memory.publisher(&topic()).await.unwrap();
    let other = memory.publisher(&topic()).await.unwrap();
    let mut batch: Vec<_> = ["a", "b"].map(message).into();
    let (outcomes, ()) =
        tokio::join!(async { publisher.publish(&mut batch).await.unwrap().await }, async {
            publisher.close().await.unwrap()
        },);
    assert_eq!(shape(&outcomes), [None, Some((ErrorKind::Closed, Some(Outcome::NotSent)))]);
    publisher.close().await.unwrap();
    let mut batch = vec![message("c")];
    assert_kind(publisher.publish(&mut batch).await, ErrorKind::Closed);
    assert_eq!(batch.len(), 1);
    memory.close().await.unwrap();
    assert_kind(other.publish(&mut batch).await, ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_id_gets_one() {
    let memory = broker("memory://").await;
    let publisher: Box<dyn Publisher> = memory.publisher(&topic()).await.unwrap();
    let mut batch = vec![Message::new("x")];
    let receipt = publisher.publish(&mut batch).await.unwrap().await.remove(0).unwrap();
    let consumer = open(&memory, main_of("billing"), 1).await;
    assert_eq!(one(&*consumer).await.id, Some(receipt.id));
}
