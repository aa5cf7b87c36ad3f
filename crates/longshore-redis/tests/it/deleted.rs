//! What other programs delete.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Event, Settlement};

use crate::support::{Bench, ack, entry, failed, is, next, quiet, server, settle};

async fn recovers(delete: &[&str]) {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("before").await.unwrap();
    let held = next(&*consumer).await;
    bench.ask(&crate::support::command(delete)).await;
    // It hears that what it held is nobody's.
    let mut out = Vec::new();
    while !out.iter().any(|event| matches!(event, Event::Lost { .. })) {
        let heard = consumer.receive(&mut out, 4);
        tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap().unwrap();
    }
    is(ack(&*consumer, held.token).await, ErrorKind::LeaseLost);
    bench.publish("after").await.unwrap();
    loop {
        let received = next(&*consumer).await;
        ack(&*consumer, received.token).await.unwrap();
        if received.body == "after" {
            break;
        }
    }
    // Retries, letters and suspects work again, too.
    bench.publish("retried").await.unwrap();
    let received = next(&*consumer).await;
    let after = Duration::from_millis(50);
    let retry = Settlement::Retry { token: received.token, after, record: failed(&received) };
    settle(&*consumer, retry).await.unwrap();
    let again = next(&*consumer).await;
    assert_eq!(again.attempt(), 2);
    let letter = Settlement::DeadLetter { token: again.token, letter: bench.letter(&again) };
    settle(&*consumer, letter).await.unwrap();
    assert_eq!(bench.redis.stats(&bench.letters()).await.unwrap().ready, 1);
}

/// Pitfall 25.
#[tokio::test]
async fn a_flush_of_everything_is_recovered_from() {
    recovers(&["FLUSHALL"]).await;
}

/// Pitfall 25.
#[tokio::test]
async fn a_deleted_topic_is_recovered_from() {
    recovers(&["DEL", "orders"]).await;
}

#[tokio::test]
async fn a_destroyed_group_is_recovered_from() {
    recovers(&["XGROUP", "DESTROY", "orders", "billing"]).await;
}

/// Pitfall 25: a group made anew reads from the start.
#[tokio::test]
async fn a_group_made_anew_reads_what_it_had_not_settled() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer_of(bench.source(), 1).await;
    for body in ["a", "b", "c"] {
        bench.publish(body).await.unwrap();
    }
    next(&*consumer).await;
    assert_eq!(bench.number(&["XGROUP", "DESTROY", "orders", "billing"]).await, 1);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let received = next(&*consumer).await;
        ack(&*consumer, received.token).await.unwrap();
        seen.push(String::from_utf8_lossy(&received.body).into_owned());
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

/// Pitfall 27: a pending entry that is removed is settled, and never comes again.
#[tokio::test]
async fn a_removed_entry_is_settled_and_does_not_loop() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    // Held while it is removed, and parked while it is removed.
    bench.publish("held").await.unwrap();
    let held = next(&*consumer).await;
    bench.publish("parked").await.unwrap();
    let parked = next(&*consumer).await;
    let after = Duration::from_millis(300);
    let retry = Settlement::Retry { token: parked.token, after, record: failed(&parked) };
    settle(&*consumer, retry).await.unwrap();
    for received in [&held, &parked] {
        assert_eq!(bench.number(&["XDEL", "orders", &entry(received)]).await, 1);
    }
    ack(&*consumer, held.token).await.unwrap();
    assert!(quiet(&*consumer, Duration::from_secs(2)).await);
    let stats = bench.redis.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
    assert_eq!(bench.number(&["HLEN", "{orders}.billing.record"]).await, 0);
}

/// Pitfall 27: its letter has the message all the same, since that is still here.
#[tokio::test]
async fn a_removed_entry_can_still_be_buried() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("held").await.unwrap();
    let held = next(&*consumer).await;
    assert_eq!(bench.number(&["XDEL", "orders", &entry(&held)]).await, 1);
    let letter = Settlement::DeadLetter { token: held.token, letter: bench.letter(&held) };
    settle(&*consumer, letter).await.unwrap();
    let page = longshore_core::Page { after: None, limit: 9 };
    let letters = bench.redis.browse(&bench.letters(), &page).await.unwrap();
    assert_eq!((letters.len(), &letters[0].body[..]), (1, &b"held"[..]));
}
