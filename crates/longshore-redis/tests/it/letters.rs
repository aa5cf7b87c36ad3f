//! The dead-letter queue.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Group, Page, Received, Record, Settlement, Topology};

use crate::support::{Bench, ack, command, eventually, group, is, next, quiet, server, settle};

async fn bury(bench: &Bench, body: &str) -> Received {
    let consumer = bench.consumer(bench.source()).await;
    bench.publish(body).await.unwrap();
    let received = next(&*consumer).await;
    let letter = Settlement::DeadLetter { token: received.token, letter: bench.letter(&received) };
    settle(&*consumer, letter).await.unwrap();
    consumer.close().await.unwrap();
    received
}

#[tokio::test]
async fn a_redrive_brings_the_message_back_to_its_group() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let received = bury(&bench, "m").await;
    let queue = bench.consumer(bench.letters()).await;
    let dead = next(&*queue).await;
    assert_eq!(dead.id, received.id);
    assert!(dead.letter.is_some());
    let record = Box::new(Record { redrives: 1, ..Record::default() });
    settle(&*queue, Settlement::Redrive { token: dead.token, record }).await.unwrap();
    let consumer = bench.consumer(bench.source()).await;
    let back = next(&*consumer).await;
    assert_eq!((back.id.clone(), &back.body[..]), (received.id, &b"m"[..]));
    assert_eq!((back.attempt(), back.record.as_ref().unwrap().redrives), (1, 1));
    assert!(back.letter.is_none());
    ack(&*consumer, back.token).await.unwrap();
    assert_eq!(bench.redis.stats(&bench.letters()).await.unwrap().ready, 0);
}

/// The move is one step, so the same order again after a lost answer finds it done.
#[tokio::test]
async fn a_dead_letter_that_is_ordered_twice_is_one() {
    let server = server().await;
    let proxy = crate::proxy::Proxy::new(server.address(), ":1\r\n").await;
    let bench = Bench::new(&proxy.url).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let letter =
        || Settlement::DeadLetter { token: received.token, letter: bench.letter(&received) };
    proxy.lose(1);
    settle(&*consumer, letter()).await.unwrap_err();
    settle(&*consumer, letter()).await.unwrap();
    assert_eq!(bench.redis.stats(&bench.letters()).await.unwrap().ready, 1);
    assert!(quiet(&*consumer, Duration::from_millis(500)).await);
}

/// Two readers see the same letter, and what both redrive goes back once.
#[tokio::test]
async fn two_redrives_of_one_letter_bring_it_back_once() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    bury(&bench, "m").await;
    for _ in 0..2 {
        let queues = [bench.consumer(bench.letters()).await, bench.consumer(bench.letters()).await];
        if bench.redis.stats(&bench.letters()).await.unwrap().ready == 0 {
            break;
        }
        let mut tokens = Vec::new();
        for queue in &queues {
            tokens.push(next(&**queue).await.token);
        }
        for (queue, token) in queues.iter().zip(tokens) {
            let record = Box::new(Record { redrives: 1, ..Record::default() });
            settle(&**queue, Settlement::Redrive { token, record }).await.unwrap();
        }
    }
    let consumer = bench.consumer(bench.source()).await;
    ack(&*consumer, next(&*consumer).await.token).await.unwrap();
    assert!(quiet(&*consumer, Duration::from_millis(500)).await);
}

#[tokio::test]
async fn letters_are_kept_for_as_long_as_the_group_says() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let short = Group {
        name: "short".try_into().unwrap(),
        dead_letters: Some(Duration::from_secs(2)),
        ..group("orders")
    };
    let name = short.name.clone();
    bench.redis.declare(&Topology::group(short)).await.unwrap();
    let bench = Bench { group: name, ..bench };
    bury(&bench, "m").await;
    assert_eq!(bench.redis.stats(&bench.letters()).await.unwrap().ready, 1);
    let _reader = bench.consumer(bench.source()).await;
    let dlq = "{orders}.short.dlq";
    eventually("the letter goes", async || bench.number(&["XLEN", dlq]).await == 0).await;
}

#[tokio::test]
async fn a_group_without_a_queue_has_none() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let bare = Group { name: "bare".try_into().unwrap(), dead_letters: None, ..group("orders") };
    let name = bare.name.clone();
    bench.redis.declare(&Topology::group(bare.clone())).await.unwrap();
    let bench = Bench { group: name, ..bench };
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let letter = Settlement::DeadLetter { token: received.token, letter: bench.letter(&received) };
    is(settle(&*consumer, letter).await, ErrorKind::Unsupported);
    ack(&*consumer, received.token).await.unwrap();
    let page = Page { after: None, limit: 1 };
    is(bench.redis.browse(&bench.letters(), &page).await, ErrorKind::NotFound);
    // Declared with one, it differs, and nothing is changed.
    let with = Group { dead_letters: Some(Duration::from_secs(60)), ..bare };
    is(bench.redis.declare(&Topology::group(with)).await, ErrorKind::AlreadyExists);
    let found = bench.ask(&command(&["HGET", "{orders}.bare.conf", "retention"])).await;
    assert_eq!(found, redis::Value::BulkString(Vec::new()));
}
