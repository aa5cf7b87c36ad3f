//! A process killed at each step inside a move: duplicates with one id at worst, never a loss.

use std::time::{Duration, Instant};

use longshore_core::{Broker as _, Page, Record, Settlement};

use crate::child::{GAP, dies_at};
use crate::server::Server;
use crate::support::{Bench, LEASE, ack, is, next, quiet, settle};

async fn empty(bench: &Bench) {
    let stats = bench.nats.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
}

#[tokio::test]
async fn every_step_of_the_backend_has_a_test_here() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let killed = [
        "retry.recorded",
        "release.recorded",
        "retry.copied",
        "suspect.copied",
        "dead_letter.copied",
        "redrive.copied",
    ];
    assert_eq!(bench.nats.info().steps, killed);
}

/// The record stands and the NAK was never sent: the lease is over before the gap is.
#[tokio::test]
async fn a_retry_that_was_recorded_and_not_ordered_is_not_early() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let id = bench.publish("m").await.unwrap().id;
    let begun = Instant::now();
    dies_at("retry.recorded", &server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    assert!(begun.elapsed() >= GAP, "early: {:?}", begun.elapsed());
    assert_eq!((received.id, received.record.as_ref().unwrap().failures), (Some(id), 1));
    assert_eq!((received.deliveries, received.record.as_ref().unwrap().explained), (3, 1));
    ack(&*consumer, received.token).await.unwrap();
    empty(&bench).await;
}

#[tokio::test]
async fn a_release_that_was_recorded_is_no_crash() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    bench.publish("m").await.unwrap();
    dies_at("release.recorded", &server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    assert_eq!((received.attempt(), received.deliveries, received.unexplained()), (1, 2, 0));
    ack(&*consumer, received.token).await.unwrap();
    empty(&bench).await;
}

#[tokio::test]
async fn a_move_into_the_suspect_lane_leaves_the_original_or_both() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let id = bench.publish("m").await.unwrap().id;
    dies_at("suspect.copied", &server.url()).await;
    let lane = bench.consumer(bench.suspects()).await;
    let suspect = next(&*lane).await;
    assert_eq!(suspect.id.as_ref(), Some(&id));
    assert!(suspect.record.as_ref().unwrap().suspect);
    ack(&*lane, suspect.token).await.unwrap();
    let consumer = bench.consumer(bench.source()).await;
    let original = next(&*consumer).await;
    assert_eq!((original.id, original.deliveries), (Some(id), 2));
    ack(&*consumer, original.token).await.unwrap();
    empty(&bench).await;
}

#[tokio::test]
async fn a_retry_out_of_the_suspect_lane_leaves_the_original_or_both() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let id = bench.publish("m").await.unwrap().id;
    let consumer = bench.consumer(bench.source()).await;
    let first = next(&*consumer).await;
    let record = Record { deliveries: 1, explained: 1, suspect: true, ..Record::default() };
    let record = Box::new(record);
    settle(&*consumer, Settlement::Suspect { token: first.token, record }).await.unwrap();
    let begun = Instant::now();
    dies_at("retry.copied", &server.url()).await;
    let copy = next(&*consumer).await;
    assert!(begun.elapsed() >= GAP, "early: {:?}", begun.elapsed());
    assert_eq!((copy.id.as_ref(), copy.attempt()), (Some(&id), 2));
    ack(&*consumer, copy.token).await.unwrap();
    let lane = bench.consumer(bench.suspects()).await;
    let original = next(&*lane).await;
    assert_eq!((original.id.clone(), original.attempt()), (Some(id), 1));
    ack(&*lane, original.token).await.unwrap();
    empty(&bench).await;
}

/// Inside the window the second copy is known again; behind it there are two, of one letter's id.
#[tokio::test]
async fn a_dead_letter_that_was_copied_and_not_settled_is_one_letter_or_two_of_one_id() {
    let server = Server::start().await;
    for (window, letters) in [("2m", 1), ("1s", 2)] {
        let bench = Bench::new(&server.url()).await;
        for stream in ["orders", "longshore=ledger=orders", "orders=billing=dlq"] {
            bench.native().delete_stream(stream).await.unwrap();
        }
        let url = format!("{}?duplicate_window={window}", server.url());
        let bench = Bench::new(&url).await;
        let id = bench.publish("m").await.unwrap().id;
        dies_at("dead_letter.copied", &url).await;
        let consumer = bench.consumer(bench.source()).await;
        let again = next(&*consumer).await;
        assert_eq!((again.id.as_ref(), again.deliveries), (Some(&id), 2));
        let (token, letter) = (again.token, bench.letter(&again));
        settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
        let page = Page { after: None, limit: 10 };
        let dead = bench.nats.browse(&bench.letters(), &page).await.unwrap();
        assert_eq!(dead.len(), letters, "window {window}");
        assert!(dead.iter().all(|one| one.id.as_ref() == Some(&id)));
        let mut ids: Vec<_> = dead.iter().map(|one| &one.letter.as_ref().unwrap().id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1);
        empty(&bench).await;
    }
}

#[tokio::test]
async fn a_redrive_that_was_copied_and_not_deleted_is_stored_once() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let id = bench.publish("m").await.unwrap().id;
    let consumer = bench.consumer(bench.source()).await;
    let first = next(&*consumer).await;
    let (token, letter) = (first.token, bench.letter(&first));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    dies_at("redrive.copied", &server.url()).await;
    assert_eq!(bench.nats.stats(&bench.letters()).await.unwrap().ready, 1, "the letter stands");
    // Somebody takes the redrive up again.
    let queue = bench.consumer(bench.letters()).await;
    let dead = next(&*queue).await;
    let record = Box::new(Record { redrives: 1, origin: Some("1".into()), ..Record::default() });
    settle(&*queue, Settlement::Redrive { token: dead.token, record }).await.unwrap();
    assert_eq!(bench.nats.stats(&bench.letters()).await.unwrap().ready, 0);
    let back = next(&*consumer).await;
    assert_eq!((back.id.clone(), back.record.as_ref().unwrap().redrives), (Some(id), 1));
    ack(&*consumer, back.token).await.unwrap();
    assert!(quiet(&*consumer, LEASE + Duration::from_secs(1)).await, "redriven once");
    empty(&bench).await;
    is(ack(&*queue, dead.token).await, longshore_core::ErrorKind::LeaseLost);
}
