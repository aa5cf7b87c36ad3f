//! Whoever waits wakes for everything that it may have, and a wait that is dropped loses nothing.

use std::sync::Arc;

use longshore_core::{Broker, Consumer, Settlement};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::kit::*;

/// A receiver that is already waiting.
async fn waiting(consumer: Box<dyn Consumer>) -> (Arc<dyn Consumer>, JoinHandle<String>) {
    let consumer: Arc<dyn Consumer> = consumer.into();
    let reader = consumer.clone();
    let task = tokio::spawn(async move { id(&one(&*reader).await) });
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    (consumer, task)
}

#[tokio::test(start_paused = true)]
async fn by_a_publish_and_an_injected_message() {
    let memory = broker("memory://").await;
    let start = Instant::now();
    let (_a, task) = waiting(open(&memory, main_of("billing"), 1).await).await;
    publish(&memory, &["a"]).await;
    assert_eq!(task.await.unwrap(), "a");
    let (_b, task) = waiting(open(&memory, main_of("billing"), 1).await).await;
    memory.inject(&topic(), "b", vec![]).unwrap();
    assert_eq!(task.await.unwrap(), "2");
    assert_eq!(start.elapsed(), seconds(0), "by the message, not by a clock");
}

#[tokio::test(start_paused = true)]
async fn by_a_due_retry_that_another_ordered_while_it_waited() {
    let memory = broker("memory://").await;
    let other = open(&memory, main_of("billing"), 1).await;
    publish(&memory, &["a"]).await;
    let a = one(&*other).await;
    let (_waiter, task) = waiting(open(&memory, main_of("billing"), 1).await).await;
    let start = Instant::now();
    settle(&*other, retry(&a, seconds(3))).await.unwrap();
    assert_eq!(task.await.unwrap(), "a");
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn by_a_lost_lease_a_release_a_close_and_a_drop() {
    let memory = broker("memory://").await;
    publish(&memory, &["a"]).await;
    let holder = open(&memory, main_of("billing"), 1).await;
    one(&*holder).await;
    let start = Instant::now();
    let (second, task) = waiting(open(&memory, main_of("billing"), 1).await).await;
    assert_eq!(task.await.unwrap(), "a");
    assert_eq!(start.elapsed().as_secs(), LEASE.as_secs());

    let now = Instant::now();
    let (third, task) = waiting(open(&memory, main_of("billing"), 1).await).await;
    second.close().await.unwrap();
    assert_eq!(task.await.unwrap(), "a");
    let (_fourth, task) = waiting(open(&memory, main_of("billing"), 1).await).await;
    drop(third);
    assert_eq!(task.await.unwrap(), "a");

    let fifth = open(&memory, main_of("billing"), 1).await;
    publish(&memory, &["b"]).await;
    let b = one(&*fifth).await;
    let (_sixth, task) = waiting(open(&memory, main_of("billing"), 1).await).await;
    settle(&*fifth, release(&b)).await.unwrap();
    assert_eq!(task.await.unwrap(), "b");
    assert_eq!(now.elapsed(), seconds(0));
}

#[tokio::test(start_paused = true)]
async fn by_its_own_settlement_at_full_prefetch_and_by_a_letter() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 1).await;
    publish(&memory, &["a", "b"]).await;
    let a = one(&*consumer).await;
    let (consumer, task) = waiting(consumer).await;
    settle(&*consumer, Settlement::Ack(a.token)).await.unwrap();
    assert_eq!(task.await.unwrap(), "b");

    let (_dlq, task) = waiting(open(&memory, dead_of("billing"), 1).await).await;
    let (_lane, suspects) = waiting(open(&memory, suspects_of("billing"), 1).await).await;
    publish(&memory, &["c", "d"]).await;
    let other = open(&memory, main_of("billing"), 2).await;
    let got = receive(&*other, 2).await;
    settle(&*other, dead(&got[0])).await.unwrap();
    settle(&*other, suspect(&got[1])).await.unwrap();
    assert_eq!((task.await.unwrap(), suspects.await.unwrap()), ("c".to_owned(), "d".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receive_loses_nothing() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    for _ in 0..3 {
        nothing(&*consumer).await;
    }
    let mut out = Vec::new();
    {
        let mut pending = consumer.receive(&mut out, 10);
        assert!(futures::poll!(&mut pending).is_pending());
        publish(&memory, &["a"]).await;
        // Woken, and dropped before it looked.
    }
    assert!(out.is_empty());
    assert_eq!(counts(&memory, main_of("billing")).await, (1, 0, 0));
    assert_eq!(id(&one(&*consumer).await), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_consumers_and_publishers_lose_no_wake() {
    const EACH: usize = 500;
    let memory = broker("memory://?capacity=16&publish_timeout=30s").await;
    let (done, mut settled) = tokio::sync::mpsc::unbounded_channel();
    let mut readers = Vec::new();
    for _ in 0..4 {
        let (memory, done) = (memory.clone(), done.clone());
        readers.push(tokio::spawn(async move {
            let consumer = open(&memory, main_of("billing"), 3).await;
            let mut out = Vec::new();
            while consumer.receive(&mut out, 2).await.is_ok() {
                for event in out.drain(..) {
                    let longshore_core::Event::Message(received) = event else { continue };
                    ack(&*consumer, &received).await;
                    let _ = done.send(id(&received));
                }
            }
        }));
    }
    for writer in 0..4 {
        let memory = memory.clone();
        tokio::spawn(async move {
            let publisher = memory.publisher(&topic()).await.unwrap();
            for n in 0..EACH {
                let id = format!("{writer}-{n}");
                publish_by(&*publisher, &[&id]).await.remove(0).unwrap();
            }
        });
    }
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 4 * EACH {
        assert!(seen.insert(settled.recv().await.unwrap()), "handed over twice");
    }
    assert_eq!(memory.stored(&topic()).unwrap(), 0);
    memory.close().await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
}
