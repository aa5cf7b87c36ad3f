//! A process killed at each step inside a move: the copy is confirmed and the original not acked.
//! Both are there, with one id, and never neither.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Instant;

use longshore_core::{Broker as _, MessageId, Page, Received, Record, Settlement};

use crate::child::{GAP, dies_at};
use crate::hand::{ack, many, next, settle};
use crate::server::shared;
use crate::support::{Bench, eventually, send};

async fn sent(bench: &Bench) -> MessageId {
    send(&*bench.publisher().await, longshore_core::Message::new("m")).await.unwrap().id
}

/// The copy among two: the one with a record.
fn apart(mut two: Vec<Received>) -> (Received, Received) {
    two.sort_by_key(|one| one.record.is_some());
    let copy = two.pop().unwrap();
    (two.pop().unwrap(), copy)
}

#[tokio::test]
async fn every_step_of_the_backend_has_a_test_here() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let killed = [
        "retry.copied",
        "release.copied",
        "suspect.copied",
        "dead_letter.copied",
        "redrive.copied",
    ];
    assert_eq!(bench.rabbit.info().steps, killed);
}

#[tokio::test]
async fn a_retry_that_was_copied_and_not_settled_is_there_twice_and_not_early() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let id = sent(&bench).await;
    let begun = Instant::now();
    dies_at("retry.copied", &broker, &bench).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let original = next(&*consumer).await;
    assert_eq!((original.id.as_ref(), original.attempt(), original.deliveries), (Some(&id), 1, 2));
    ack(&*consumer, original.token).await.unwrap();
    let copy = next(&*consumer).await;
    assert!(begun.elapsed() >= GAP, "early: {:?}", begun.elapsed());
    assert_eq!((copy.id.as_ref(), copy.attempt(), copy.deliveries), (Some(&id), 2, 2));
    ack(&*consumer, copy.token).await.unwrap();
    consumer.close().await.unwrap();
    assert_eq!(bench.ready().await, 0);
}

#[tokio::test]
async fn a_release_that_was_copied_and_not_settled_is_there_twice() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let id = sent(&bench).await;
    dies_at("release.copied", &broker, &bench).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let (original, copy) = apart(many(&*consumer, 2).await);
    assert_eq!((original.id.as_ref(), original.deliveries), (Some(&id), 2));
    assert_eq!((copy.id.as_ref(), copy.deliveries, copy.unexplained()), (Some(&id), 2, 0));
    for received in [original, copy] {
        ack(&*consumer, received.token).await.unwrap();
    }
}

#[tokio::test]
async fn a_suspect_that_was_copied_and_not_settled_is_in_both_lanes() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let id = sent(&bench).await;
    dies_at("suspect.copied", &broker, &bench).await;
    let lane = bench.consumer(bench.suspects(), 4).await;
    let suspect = next(&*lane).await;
    assert_eq!((suspect.id.as_ref(), suspect.unexplained()), (Some(&id), 0));
    assert!(suspect.record.as_ref().unwrap().suspect);
    ack(&*lane, suspect.token).await.unwrap();
    let consumer = bench.consumer(bench.source(), 4).await;
    let original = next(&*consumer).await;
    assert_eq!((original.id.as_ref(), original.deliveries), (Some(&id), 2));
    ack(&*consumer, original.token).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_that_was_copied_and_not_settled_is_two_letters_of_one_id() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let id = sent(&bench).await;
    dies_at("dead_letter.copied", &broker, &bench).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let again = next(&*consumer).await;
    assert_eq!((again.id.as_ref(), again.deliveries), (Some(&id), 2));
    let (token, letter) = (again.token, bench.letter(&again));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    let page = Page { after: None, limit: 10 };
    let dead = bench.rabbit.browse(&bench.letters(), &page).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert!(dead.iter().all(|one| one.id.as_ref() == Some(&id)));
    let mut ids: Vec<_> = dead.iter().map(|one| &one.letter.as_ref().unwrap().id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_redrive_that_was_copied_and_not_settled_leaves_the_letter_too() {
    let broker = shared().await;
    let bench = Bench::new(&broker).await;
    let id = sent(&bench).await;
    let consumer = bench.consumer(bench.source(), 4).await;
    let first = next(&*consumer).await;
    let (token, letter) = (first.token, bench.letter(&first));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    dies_at("redrive.copied", &broker, &bench).await;
    let back = next(&*consumer).await;
    assert_eq!((back.id.as_ref(), back.record.as_ref().unwrap().redrives), (Some(&id), 1));
    ack(&*consumer, back.token).await.unwrap();
    eventually("the letter stands", || async { bench.waiting_letters().await == 1 }).await;
    // Somebody takes the redrive up again.
    let queue = bench.consumer(bench.letters(), 4).await;
    let dead = next(&*queue).await;
    let record = Box::new(Record { redrives: 1, ..Record::default() });
    settle(&*queue, Settlement::Redrive { token: dead.token, record }).await.unwrap();
    let again = next(&*consumer).await;
    assert_eq!(again.id, Some(id));
    ack(&*consumer, again.token).await.unwrap();
    eventually("no letter is left", || async { bench.waiting_letters().await == 0 }).await;
}
