//! What waits, and what of it somebody else broke.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::{Duration, Instant};

use longshore_core::{Broker as _, Settlement};

use crate::support::{Bench, ack, entry, failed, next, quiet, server, settle};

async fn park(bench: &Bench, after: Duration) -> String {
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("parked").await.unwrap();
    let received = next(&*consumer).await;
    let retry = Settlement::Retry { token: received.token, after, record: failed(&received) };
    settle(&*consumer, retry).await.unwrap();
    consumer.close().await.unwrap();
    entry(&received)
}

/// Pitfall 22: whoever looks for lost leases leaves alone what waits for longer than a lease.
#[tokio::test]
async fn what_waits_for_longer_than_a_lease_is_never_early() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    bench.lease(Duration::from_millis(500)).await;
    let began = Instant::now();
    let after = Duration::from_secs(3);
    park(&bench, after).await;
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    let took = began.elapsed();
    assert!(took >= after && took < after + Duration::from_secs(1), "{took:?}");
    assert_eq!((received.attempt(), received.unexplained()), (2, 0));
    ack(&*consumer, received.token).await.unwrap();
}

/// A short delay behind a long one.
#[tokio::test]
async fn a_short_wait_behind_a_long_one_ends_on_time() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    park(&bench, Duration::from_secs(50)).await;
    park(&bench, Duration::from_millis(500)).await;
    let consumer = bench.consumer(bench.source()).await;
    let began = Instant::now();
    let received = next(&*consumer).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    ack(&*consumer, received.token).await.unwrap();
    let stats = bench.redis.stats(&bench.source()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 1));
}

/// Pitfall 22: parked, and its due time is gone: it is due now.
#[tokio::test]
async fn what_is_parked_without_a_due_time_comes_back() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    park(&bench, Duration::from_secs(50)).await;
    assert_eq!(bench.number(&["DEL", "{orders}.billing.due"]).await, 1);
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    assert_eq!(received.attempt(), 2);
    ack(&*consumer, received.token).await.unwrap();
}

/// Pitfall 22: a due time, and nobody parked: nothing is taken from whoever has it.
#[tokio::test]
async fn a_due_time_without_a_park_takes_nothing() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("held").await.unwrap();
    let held = next(&*consumer).await;
    let due = "{orders}.billing.due";
    assert_eq!(bench.number(&["ZADD", due, "1", &entry(&held)]).await, 1);
    let other = bench.consumer(bench.source()).await;
    assert!(quiet(&*other, Duration::from_secs(1)).await);
    assert_eq!(bench.number(&["ZCARD", due]).await, 0);
    ack(&*consumer, held.token).await.unwrap();
}

/// The row "instances with different leases": the group's is the one that counts.
#[tokio::test]
async fn the_lease_is_the_groups_and_not_the_members() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("held").await.unwrap();
    let held = next(&*consumer).await;
    // A member that was built with a short lease reads the group's long one.
    let spec = longshore_core::ConsumerSpec {
        source: bench.source(),
        prefetch: 4,
        lease: Duration::from_millis(100),
        instance: longshore_core::InstanceId::generate(),
    };
    let other = bench.redis.consumer(&spec).await.unwrap();
    assert!(quiet(&*other, Duration::from_secs(2)).await);
    ack(&*consumer, held.token).await.unwrap();
}

/// The row "`nack` re-sent", as after a lost answer: the same order again is done, or the lease is
/// lost, and it waits once.
#[tokio::test]
async fn a_retry_that_is_ordered_twice_waits_once() {
    let server = server().await;
    let proxy = crate::proxy::Proxy::new(server.address(), ":1\r\n").await;
    let bench = Bench::new(&proxy.url).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("parked").await.unwrap();
    let received = next(&*consumer).await;
    let after = Duration::from_secs(1);
    let retry = || Settlement::Retry { token: received.token, after, record: failed(&received) };
    // The answer of the script is a one.
    proxy.lose(1);
    let lost = settle(&*consumer, retry()).await.unwrap_err();
    assert_eq!(lost.retryability(), longshore_core::Retryability::Transient, "{lost:?}");
    settle(&*consumer, retry()).await.unwrap();
    let again = next(&*consumer).await;
    assert_eq!((again.attempt(), again.deliveries), (2, 2));
    ack(&*consumer, again.token).await.unwrap();
    assert!(quiet(&*consumer, Duration::from_millis(500)).await);
}
