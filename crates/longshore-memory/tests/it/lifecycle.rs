//! Closing, dropping, and what becomes of what was held.

use longshore_core::{Broker, ConsumerSpec, ErrorKind, InstanceId, Setup};
use longshore_memory::connect;

use crate::kit::*;

#[tokio::test(start_paused = true)]
async fn a_closed_consumer_gives_back_uncounted() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b"]).await;
    let got = receive(&*consumer, 10).await;
    consumer.close().await.unwrap();
    consumer.close().await.unwrap();
    assert_kind(consumer.receive(&mut Vec::new(), 1).await, ErrorKind::Closed);
    assert_kind(settle(&*consumer, release(&got[0])).await, ErrorKind::LeaseLost);
    let other = open(&memory, main_of("billing"), 10).await;
    let again = receive(&*other, 10).await;
    assert_eq!(ids(&again), ["a", "b"]);
    assert_eq!((again[0].deliveries, again[1].deliveries), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_consumer_gives_back_counted() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a"]).await;
    one(&*consumer).await;
    drop(consumer);
    let other = open(&memory, main_of("billing"), 10).await;
    assert_eq!(one(&*other).await.deliveries, 2);
}

#[tokio::test(start_paused = true)]
async fn closing_a_client_closes_its_own_and_leaves_the_others() {
    let first = broker("memory://closing").await;
    let second = connect("memory://closing", Setup::default()).await.unwrap();
    let mine = open(&first, main_of("billing"), 10).await;
    let theirs = open(&second, main_of("billing"), 10).await;
    let publisher = second.publisher(&topic()).await.unwrap();
    publish_by(&*publisher, &["a"]).await;
    let a = one(&*mine).await;
    let mut out = Vec::new();
    let (ended, closed) = tokio::join!(mine.receive(&mut out, 1), first.close());
    closed.unwrap();
    assert_kind(ended, ErrorKind::Closed);
    assert_kind(settle(&*mine, release(&a)).await, ErrorKind::LeaseLost);
    first.close().await.unwrap();
    let spec = ConsumerSpec {
        source: main_of("billing"),
        prefetch: 1,
        lease: LEASE,
        instance: InstanceId::generate(),
    };
    assert_kind(first.consumer(&spec).await, ErrorKind::Closed);
    assert_kind(first.publisher(&topic()).await, ErrorKind::Closed);
    assert_kind(first.stats(&main_of("billing")).await, ErrorKind::Closed);
    assert_eq!(one(&*theirs).await.deliveries, 1);
    publish_by(&*publisher, &["b"]).await.remove(0).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_a_connections_instance_takes_all_its_consumers() {
    let setup = Setup::default();
    let instance = setup.instance.clone();
    let memory = connect("memory://crashing", setup).await.unwrap();
    let other = broker("memory://crashing").await;
    let consumer = open(&memory, main_of("billing"), 1).await;
    let survivor = open(&other, main_of("billing"), 1).await;
    other.crash(&instance);
    assert_kind(consumer.receive(&mut Vec::new(), 1).await, ErrorKind::Closed);
    publish(&other, &["a"]).await;
    assert_eq!(id(&one(&*survivor).await), "a");
}
