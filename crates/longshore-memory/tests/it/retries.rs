//! The retry lane.

use std::time::Duration;

use bytes::Bytes;
use longshore_core::{RETRY_HEADER, Record};
use tokio::time::{Instant, advance};

use crate::kit::*;

#[tokio::test(start_paused = true)]
async fn a_retry_is_never_early_and_holds_nothing() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 1).await;
    publish(&memory, &["a", "b"]).await;
    let a = one(&*consumer).await;
    let start = Instant::now();
    settle(&*consumer, retry(&a, seconds(30))).await.unwrap();
    let b = one(&*consumer).await;
    assert_eq!(id(&b), "b", "others flow while one waits, at prefetch 1");
    ack(&*consumer, &b).await;
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 0, 1));
    advance(seconds(30) - Duration::from_millis(1)).await;
    nothing(&*consumer).await;
    let again = one(&*consumer).await;
    assert!(start.elapsed() >= seconds(30) && start.elapsed() <= seconds(30) + LEASE / 100);
    assert_eq!((again.attempt(), again.deliveries, again.unexplained()), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_short_delay_behind_a_long_one_fires_on_time() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["long", "short", "middle"]).await;
    let got = receive(&*consumer, 10).await;
    for (received, delay) in got.iter().zip([60, 5, 20]) {
        settle(&*consumer, retry(received, seconds(delay))).await.unwrap();
    }
    let start = Instant::now();
    for (wanted, at) in [("short", 5), ("middle", 20), ("long", 60)] {
        let got = one(&*consumer).await;
        assert_eq!((id(&got).as_str(), start.elapsed().as_secs()), (wanted, at));
        ack(&*consumer, &got).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_delay_is_at_once_and_the_longest_is_kept() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a"]).await;
    let a = one(&*consumer).await;
    settle(&*consumer, retry(&a, Duration::ZERO)).await.unwrap();
    let a = one(&*consumer).await;
    assert_eq!(a.deliveries, 2);
    settle(&*consumer, retry(&a, Duration::MAX)).await.unwrap();
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_exact_over_retries_releases_and_lost_leases() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a"]).await;
    let mut wanted = 0;
    for round in 0..12 {
        let got = one(&*consumer).await;
        wanted += 1;
        assert_eq!(got.deliveries, wanted, "round {round}");
        match round % 4 {
            0 => settle(&*consumer, retry(&got, seconds(1))).await.unwrap(),
            1 => {
                settle(&*consumer, release(&got)).await.unwrap();
                wanted -= 1;
            }
            2 => advance(LEASE).await,
            _ => settle(&*consumer, suspect(&got)).await.unwrap(),
        }
        if round % 4 == 3 {
            let lane = open(&memory, suspects_of("billing"), 1).await;
            let got = one(&*lane).await;
            wanted += 1;
            assert_eq!((got.deliveries, got.unexplained()), (wanted, 0));
            settle(&*lane, retry(&got, seconds(1))).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_message_is_known_by_its_position_and_a_record_on_it_counts() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    let record = Record { failures: 3, deliveries: 4, ..Record::default() }.encode();
    let raw = |name: &str, value: &[u8]| (name.to_owned(), Bytes::copy_from_slice(value));
    memory.inject(&topic(), "plain", vec![]).unwrap();
    let headers = vec![
        raw("a", b"\xff"),
        raw("not a name", b"x"),
        raw("longshore-dl-id", b"forged"),
        raw(RETRY_HEADER, record.as_bytes()),
    ];
    memory.inject(&topic(), "forged", headers).unwrap();
    memory.inject(&topic(), "broken", vec![raw(RETRY_HEADER, &vec![b'9'; 1 << 20])]).unwrap();
    let got = receive(&*consumer, 10).await;
    assert_eq!(ids(&got), ["1", "2", "3"]);
    assert_eq!((got[0].attempt(), got[0].deliveries), (1, 1));
    assert_eq!((got[1].attempt(), got[1].deliveries), (4, 5));
    assert_eq!((got[1].headers.len(), got[1].letter.is_none()), (1, true));
    assert_eq!((got[2].attempt(), got[2].headers.is_empty()), (1, true));
    settle(&*consumer, retry(&got[1], seconds(1))).await.unwrap();
    let again = one(&*consumer).await;
    assert_eq!((id(&again), again.attempt(), again.deliveries), ("2".to_owned(), 5, 6));
}
