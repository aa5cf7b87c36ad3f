//! The dead-letter queue.

use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Page, Record, Settlement};

use crate::server::Server;
use crate::support::{Bench, ack, is, next, quiet, settle};

#[tokio::test]
async fn a_redrive_inside_the_window_loses_nothing() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let (token, letter) = (received.token, bench.letter(&received));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    let queue = bench.consumer(bench.letters()).await;
    let dead = next(&*queue).await;
    assert_eq!(dead.id, received.id);
    assert!(dead.letter.is_some());
    let record = Box::new(Record { redrives: 1, origin: Some("1".into()), ..Record::default() });
    settle(&*queue, Settlement::Redrive { token: dead.token, record }).await.unwrap();
    let back = next(&*consumer).await;
    assert_eq!((back.id.clone(), &back.body[..]), (received.id, &b"m"[..]));
    assert_eq!((back.attempt(), back.record.as_ref().unwrap().redrives), (1, 1));
    ack(&*consumer, back.token).await.unwrap();
    assert_eq!(bench.nats.stats(&bench.letters()).await.unwrap().ready, 0);
}

#[tokio::test]
async fn two_foreign_messages_without_an_id_are_two_letters() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    for _ in 0..2 {
        bench.native().publish("orders", "same".into()).await.unwrap().await.unwrap();
        let received = next(&*consumer).await;
        let (token, letter) = (received.token, bench.letter(&received));
        settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    }
    let page = Page { after: None, limit: 10 };
    let dead = bench.nats.browse(&bench.letters(), &page).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert_ne!(dead[0].id, dead[1].id);
    let page = Page { after: Some(dead[0].position.clone()), limit: 10 };
    assert_eq!(bench.nats.browse(&bench.letters(), &page).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_released_letter_stays_and_is_not_seen_again_here() {
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let (token, letter) = (received.token, bench.letter(&received));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    let queue = bench.consumer(bench.letters()).await;
    let dead = next(&*queue).await;
    settle(&*queue, Settlement::Release { token: dead.token, record: None }).await.unwrap();
    assert!(quiet(&*queue, Duration::from_secs(1)).await);
    let other = bench.consumer(bench.letters()).await;
    let dead = next(&*other).await;
    ack(&*other, dead.token).await.unwrap();
    assert_eq!(bench.nats.stats(&bench.letters()).await.unwrap().ready, 0);
    is(ack(&*other, dead.token).await, ErrorKind::LeaseLost);
}

#[tokio::test]
async fn a_letter_of_a_message_that_fills_the_limit_is_written_all_the_same() {
    let server = Server::with("max_payload: 65536").await;
    let bench = Bench::new(&server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let body = vec![b'x'; 65_536];
    bench.native().publish("orders", body.clone().into()).await.unwrap().await.unwrap();
    let received = next(&*consumer).await;
    let (token, letter) = (received.token, bench.letter(&received));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    let page = Page { after: None, limit: 10 };
    let dead = bench.nats.browse(&bench.letters(), &page).await.unwrap();
    assert_eq!(dead.len(), 2, "the original, and its metadata behind it");
    assert_eq!(dead[0].body, body);
    assert!(dead[1].letter.is_some());
}
