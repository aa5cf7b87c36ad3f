//! The suspect lane.

use std::time::Duration;

use longshore_core::{Broker as _, Settlement};

use crate::support::{Bench, ack, failed, many, next, quiet, server, settle};

async fn suspect(bench: &Bench, bodies: &[&str]) {
    let consumer = bench.consumer(bench.source()).await;
    for body in bodies {
        bench.publish(body).await.unwrap();
    }
    for received in many(&*consumer, bodies.len()).await {
        let mut record = failed(&received);
        record.suspect = true;
        let order = Settlement::Suspect { token: received.token, record };
        settle(&*consumer, order).await.unwrap();
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn one_member_has_one_message_at_a_time() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    suspect(&bench, &["a", "b"]).await;
    let first = bench.consumer(bench.suspects()).await;
    let held = next(&*first).await;
    assert!(held.record.as_ref().unwrap().suspect);
    let second = bench.consumer(bench.suspects()).await;
    assert!(quiet(&*first, Duration::from_millis(600)).await);
    assert!(quiet(&*second, Duration::from_millis(600)).await);
    ack(&*first, held.token).await.unwrap();
    let held = next(&*first).await;
    assert_eq!(held.body, "b");
    // The holder leaves: the other has the lane, and what was given back was no hand-over.
    first.close().await.unwrap();
    let taken = next(&*second).await;
    assert_eq!((&taken.body, taken.deliveries), (&held.body, held.deliveries));
    ack(&*second, taken.token).await.unwrap();
}

#[tokio::test]
async fn a_holder_that_dies_is_followed_with_the_end_of_its_lease() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    bench.lease(Duration::from_secs(1)).await;
    suspect(&bench, &["a"]).await;
    let dies = bench.consumer(bench.suspects()).await;
    let held = next(&*dies).await;
    drop(dies);
    let other = bench.consumer(bench.suspects()).await;
    let taken = next(&*other).await;
    assert_eq!(taken.unexplained(), held.unexplained() + 1);
    ack(&*other, taken.token).await.unwrap();
}

#[tokio::test]
async fn a_retry_out_of_the_lane_waits_where_the_groups_retries_wait() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    suspect(&bench, &["a"]).await;
    let lane = bench.consumer(bench.suspects()).await;
    let held = next(&*lane).await;
    let after = Duration::from_millis(1500);
    let retry = Settlement::Retry { token: held.token, after, record: failed(&held) };
    let began = std::time::Instant::now();
    settle(&*lane, retry).await.unwrap();
    let consumer = bench.consumer(bench.source()).await;
    let received = next(&*consumer).await;
    assert!(began.elapsed() >= after, "early: {:?}", began.elapsed());
    assert!(began.elapsed() < after + Duration::from_secs(2), "late: {:?}", began.elapsed());
    assert_eq!((received.attempt(), received.id), (3, held.id));
    ack(&*consumer, received.token).await.unwrap();
    let stats = bench.redis.stats(&bench.suspects()).await.unwrap();
    assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0));
}
