//! The suspect lane.

use longshore_core::{Broker, ErrorKind, Event, InstanceId, Settlement};
use tokio::time::Instant;

use crate::kit::*;

#[tokio::test(start_paused = true)]
async fn one_member_reads_one_message_at_a_time() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b"]).await;
    for received in receive(&*consumer, 10).await {
        settle(&*consumer, suspect(&received)).await.unwrap();
    }
    assert_eq!(counts(&memory, suspects_of("billing")).await, (2, 0, 0));
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 0, 0));
    assert_eq!(ids(&browse(&memory, suspects_of("billing"), None).await), ["a", "b"]);
    nothing(&*consumer).await;

    let first = open(&memory, suspects_of("billing"), 5).await;
    let second = open(&memory, suspects_of("billing"), 5).await;
    let a = receive(&*first, 10).await;
    assert_eq!(ids(&a), ["a"]);
    assert!(a[0].record.as_ref().unwrap().suspect);
    nothing(&*first).await;
    nothing(&*second).await;
    settle(&*first, Settlement::Ack(a[0].token)).await.unwrap();
    nothing(&*second).await;
    let b = one(&*first).await;
    settle(&*first, release(&b)).await.unwrap();
    nothing(&*second).await;
    // The next member takes over when the one before is gone.
    first.close().await.unwrap();
    let b = one(&*second).await;
    assert_eq!((id(&b), b.deliveries), ("b".to_owned(), 2));
}

#[tokio::test(start_paused = true)]
async fn who_wants_nothing_leaves_the_lane_to_others() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b"]).await;
    for received in receive(&*consumer, 10).await {
        settle(&*consumer, suspect(&received)).await.unwrap();
    }
    let first = open(&memory, suspects_of("billing"), 1).await;
    let second = open(&memory, suspects_of("billing"), 1).await;
    let a = one(&*first).await;
    first.set_prefetch(0).await;
    nothing(&*second).await;
    settle(&*first, Settlement::Ack(a.token)).await.unwrap();
    nothing(&*first).await;
    let b = one(&*second).await;
    first.set_prefetch(1).await;
    nothing(&*first).await;
    settle(&*second, Settlement::Ack(b.token)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_reader_keeps_the_lane_for_a_lease() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b"]).await;
    for received in receive(&*consumer, 10).await {
        settle(&*consumer, suspect(&received)).await.unwrap();
    }
    let instance = InstanceId::generate();
    let first = open_as(&memory, suspects_of("billing"), 1, instance.clone()).await;
    let second = open(&memory, suspects_of("billing"), 1).await;
    assert_eq!(one(&*first).await.unexplained(), 0, "the move explains what was before");
    memory.crash(&instance);
    let start = Instant::now();
    let a = one(&*second).await;
    assert!(start.elapsed() >= LEASE);
    assert_eq!((id(&a), a.deliveries, a.unexplained()), ("a".to_owned(), 3, 1));
    settle(&*second, dead(&a)).await.unwrap();
    assert_eq!(counts(&memory, dead_of("billing")).await, (1, 0, 0));
    assert_eq!(id(&one(&*second).await), "b");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_dies_idle_gives_the_lane_up() {
    let memory = broker("memory://").await;
    let instance = InstanceId::generate();
    let first = open_as(&memory, suspects_of("billing"), 1, instance.clone()).await;
    let second = open(&memory, suspects_of("billing"), 1).await;
    nothing(&*first).await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    memory.crash(&instance);
    publish(&memory, &["a"]).await;
    let a = one(&*consumer).await;
    settle(&*consumer, suspect(&a)).await.unwrap();
    let mut out: Vec<Event> = Vec::new();
    assert_kind(first.receive(&mut out, 1).await, ErrorKind::Closed);
    assert_eq!(id(&one(&*second).await), "a");
}

#[tokio::test(start_paused = true)]
async fn what_fails_there_waits_in_the_groups_retry_lane() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    let lane = open(&memory, suspects_of("billing"), 1).await;
    publish(&memory, &["a"]).await;
    let a = one(&*consumer).await;
    settle(&*consumer, suspect(&a)).await.unwrap();
    let a = one(&*lane).await;
    settle(&*lane, retry(&a, seconds(5))).await.unwrap();
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 0, 1));
    let a = one(&*consumer).await;
    assert_eq!((a.deliveries, a.attempt()), (3, 2));
    assert!(a.record.as_ref().unwrap().suspect);
    memory.close().await.unwrap();
}
