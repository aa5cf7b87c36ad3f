//! Settlements of a consumer that lost its lease.

use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Settlement};

use crate::support::{Bench, ack, failed, is, next, server, settle};

/// Pitfall 23, and the row "plain XACK after a pause longer than the lease": what comes late is
/// refused, here by the local clock.
#[tokio::test]
async fn a_late_settlement_is_refused() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    bench.lease(Duration::from_millis(500)).await;
    let slow = bench.consumer_of(bench.source(), 2).await;
    bench.publish("a").await.unwrap();
    let held = next(&*slow).await;
    let other = bench.consumer(bench.source()).await;
    let taken = next(&*other).await;
    assert_eq!((taken.deliveries, taken.unexplained()), (2, 1));
    is(ack(&*slow, held.token).await, ErrorKind::LeaseLost);
    let after = Duration::from_secs(1);
    let retry = Settlement::Retry { token: held.token, after, record: failed(&held) };
    is(settle(&*slow, retry).await, ErrorKind::LeaseLost);
    ack(&*other, taken.token).await.unwrap();
}

/// Pitfall 23: by the server, where the local clock knows nothing of it.
#[tokio::test]
async fn a_stale_owner_is_refused_by_the_server_too() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let slow = bench.consumer_of(bench.source(), 1).await;
    for body in ["a", "b"] {
        bench.publish(body).await.unwrap();
        let held = next(&*slow).await;
        let entry = crate::support::entry(&held);
        // Another program takes it over.
        let claim = ["XCLAIM", "orders", "billing", "thief", "0", &entry];
        bench.ask(&crate::support::command(&claim)).await;
        let mut out = Vec::new();
        slow.extend(&[held.token], Duration::from_secs(5), &mut out).await;
        is(out.remove(0), ErrorKind::LeaseLost);
        let letter = Settlement::DeadLetter { token: held.token, letter: bench.letter(&held) };
        is(settle(&*slow, letter).await, ErrorKind::LeaseLost);
        assert_eq!(bench.redis.stats(&bench.letters()).await.unwrap().ready, 0);
    }
}

/// While it is held and extended, nobody else gets it.
#[tokio::test]
async fn an_extended_lease_holds() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    bench.lease(Duration::from_secs(1)).await;
    let consumer = bench.consumer_of(bench.source(), 1).await;
    bench.publish("a").await.unwrap();
    let held = next(&*consumer).await;
    let other = bench.consumer(bench.source()).await;
    for _ in 0..6 {
        assert!(crate::support::quiet(&*other, Duration::from_millis(400)).await);
        let mut out = Vec::new();
        consumer.extend(&[held.token], Duration::from_secs(1), &mut out).await;
        out.remove(0).unwrap();
    }
    ack(&*consumer, held.token).await.unwrap();
}
