//! Hand-overs, leases and the count of deliveries.

use longshore_core::{AckToken, Broker, ErrorKind, InstanceId, Settlement, Topology};
use tokio::time::{Instant, advance};

use crate::kit::*;

#[tokio::test(start_paused = true)]
async fn a_message_is_handed_over_once_and_gone_when_acked() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b"]).await;
    let got = receive(&*consumer, 10).await;
    assert_eq!(ids(&got), ["a", "b"]);
    assert_eq!((got[0].deliveries, got[0].attempt(), got[0].record.is_none()), (1, 1, true));
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 2, 0));
    ack(&*consumer, &got[1]).await;
    ack(&*consumer, &got[0]).await;
    advance(LEASE * 2).await;
    nothing(&*consumer).await;
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 0, 0));
    assert_eq!(memory.stored(&topic()).unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_group_gets_everything_and_its_members_compete() {
    let memory = broker("memory://").await;
    memory.declare(&Topology::group(group("audit"))).await.unwrap();
    publish(&memory, &["a", "b"]).await;
    let audit = open(&memory, main_of("audit"), 10).await;
    let first = open(&memory, main_of("billing"), 1).await;
    let second = open(&memory, main_of("billing"), 10).await;
    let a = one(&*first).await;
    let b = one(&*second).await;
    assert_eq!((id(&a), id(&b)), ("a".to_owned(), "b".to_owned()));
    let both = receive(&*audit, 10).await;
    assert_eq!(ids(&both), ["a", "b"]);
    ack(&*first, &a).await;
    assert_eq!(memory.stored(&topic()).unwrap(), 2, "the other group has it still");
    ack(&*audit, &both[0]).await;
    assert_eq!(memory.stored(&topic()).unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn prefetch_bounds_each_consumer() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 2).await;
    publish(&memory, &["a", "b", "c"]).await;
    let got = receive(&*consumer, 10).await;
    assert_eq!(ids(&got), ["a", "b"]);
    nothing(&*consumer).await;
    ack(&*consumer, &got[0]).await;
    assert_eq!(ids(&receive(&*consumer, 10).await), ["c"]);
    nothing(&*consumer).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_by_the_clock_and_fences_the_late() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a"]).await;
    let first = one(&*consumer).await;
    advance(LEASE - seconds(1)).await;
    extend(&*consumer, first.token, LEASE).await.unwrap();
    advance(LEASE - seconds(1)).await;
    assert_eq!(counts(&memory, main_of("billing")).await, (0, 1, 0), "extended");
    advance(seconds(1)).await;
    // Nobody has looked yet, and it is lost all the same.
    assert_kind(settle(&*consumer, Settlement::Ack(first.token)).await, ErrorKind::LeaseLost);
    assert_kind(extend(&*consumer, first.token, LEASE).await, ErrorKind::LeaseLost);
    let again = one(&*consumer).await;
    assert_eq!((id(&again), again.deliveries, again.attempt()), ("a".to_owned(), 2, 1));
    assert_eq!(again.unexplained(), 1);
    assert_kind(settle(&*consumer, release(&first)).await, ErrorKind::LeaseLost);
    ack(&*consumer, &again).await;
}

#[tokio::test(start_paused = true)]
async fn a_shorter_extension_counts_from_now() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a"]).await;
    let first = one(&*consumer).await;
    extend(&*consumer, first.token, seconds(1)).await.unwrap();
    let start = Instant::now();
    assert_eq!(one(&*consumer).await.deliveries, 2);
    assert!(start.elapsed() >= seconds(1) && start.elapsed() < seconds(2));
}

#[tokio::test(start_paused = true)]
async fn a_token_settles_once_and_only_its_own() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    let other = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a"]).await;
    let a = one(&*consumer).await;
    assert_kind(settle(&*other, Settlement::Ack(a.token)).await, ErrorKind::LeaseLost);
    ack(&*consumer, &a).await;
    publish(&memory, &["b"]).await;
    let b = one(&*consumer).await;
    assert_eq!(a.token.slot, b.token.slot, "the slot is used again");
    for stale in [a.token, AckToken { epoch: 0, slot: 0, seq: 0 }, AckToken { seq: 99, ..b.token }]
    {
        assert_kind(settle(&*consumer, Settlement::Ack(stale)).await, ErrorKind::LeaseLost);
    }
    let mut out = Vec::new();
    let twice = [Settlement::Ack(b.token), Settlement::Ack(b.token)];
    consumer.settle(&twice, &mut out).await;
    assert!(out[0].is_ok());
    assert_kind(out.remove(1), ErrorKind::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn a_release_returns_to_the_front_in_order_and_uncounted() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b", "c", "d"]).await;
    let got = receive(&*consumer, 3).await;
    let mut out = Vec::new();
    let batch: Vec<_> = got.iter().map(release).collect();
    consumer.settle(&batch, &mut out).await;
    assert!(out.iter().all(Result::is_ok));
    let again = receive(&*consumer, 10).await;
    assert_eq!(ids(&again), ["a", "b", "c", "d"]);
    assert!(again.iter().all(|received| received.deliveries == 1));
}

#[tokio::test(start_paused = true)]
async fn a_release_keeps_the_record_it_is_given() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a"]).await;
    for failures in 1..4 {
        let got = one(&*consumer).await;
        let record = longshore_core::Record { failures, ..next(&got) };
        let release =
            Settlement::Release { token: got.token, record: Some(Box::new(record.clone())) };
        settle(&*consumer, release).await.unwrap();
        let again = one(&*consumer).await;
        assert_eq!((again.attempt(), again.deliveries), (1 + failures, 1));
        settle(&*consumer, Settlement::Release { token: again.token, record: None }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_silence_until_the_leases_are_over() {
    let memory = broker("memory://").await;
    let (dead, live) = (InstanceId::generate(), InstanceId::generate());
    let crashed = open_as(&memory, main_of("billing"), 10, dead.clone()).await;
    let other = open_as(&memory, main_of("billing"), 10, live).await;
    publish(&memory, &["a"]).await;
    let a = one(&*crashed).await;
    memory.crash(&dead);
    assert_kind(crashed.receive(&mut Vec::new(), 1).await, ErrorKind::Closed);
    assert_kind(settle(&*crashed, Settlement::Ack(a.token)).await, ErrorKind::LeaseLost);
    assert_kind(extend(&*crashed, a.token, LEASE).await, ErrorKind::LeaseLost);
    // A dead process neither closes nor drops.
    crashed.close().await.unwrap();
    drop(crashed);
    nothing(&*other).await;
    let start = Instant::now();
    let again = one(&*other).await;
    assert!(start.elapsed() >= LEASE);
    assert_eq!((again.deliveries, again.attempt(), again.unexplained()), (2, 1, 1));
    let restarted = open_as(&memory, main_of("billing"), 10, dead).await;
    publish(&memory, &["b"]).await;
    assert_eq!(ids(&receive(&*restarted, 1).await), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn browse_pages_through_ready_and_waiting_and_settles_nothing() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b", "c", "d"]).await;
    let got = receive(&*consumer, 2).await;
    settle(&*consumer, retry(&got[0], seconds(60))).await.unwrap();
    let seen = browse(&memory, main_of("billing"), None).await;
    assert_eq!(ids(&seen), ["a", "c", "d"], "b is in flight");
    assert_eq!(seen[0].deliveries, 1, "a look is no delivery");
    assert_kind(settle(&*consumer, Settlement::Ack(seen[1].token)).await, ErrorKind::LeaseLost);
    assert_eq!(ids(&browse(&memory, main_of("billing"), Some(3)).await), ["d"]);
    assert_eq!(counts(&memory, main_of("billing")).await, (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn ages_are_those_of_the_oldest() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 10).await;
    publish(&memory, &["a", "b"]).await;
    advance(seconds(3)).await;
    publish(&memory, &["c"]).await;
    let a = one(&*consumer).await;
    settle(&*consumer, retry(&a, seconds(60))).await.unwrap();
    let b = one(&*consumer).await;
    advance(seconds(1)).await;
    let now = stats(&memory, main_of("billing")).await;
    assert_eq!((now.oldest_ready, now.oldest_waiting), (Some(seconds(1)), Some(seconds(4))));
    settle(&*consumer, release(&b)).await.unwrap();
    assert_eq!(stats(&memory, main_of("billing")).await.oldest_ready, Some(seconds(4)));
}

#[tokio::test(start_paused = true)]
async fn the_prefetch_can_be_lowered_and_raised_again() {
    let memory = broker("memory://").await;
    let consumer = open(&memory, main_of("billing"), 2).await;
    publish(&memory, &["a", "b", "c"]).await;
    let held = receive(&*consumer, 10).await;
    assert_eq!(ids(&held), ["a", "b"]);
    consumer.set_prefetch(0).await;
    ack(&*consumer, &held[0]).await;
    ack(&*consumer, &held[1]).await;
    nothing(&*consumer).await;
    consumer.set_prefetch(1).await;
    let c = one(&*consumer).await;
    publish(&memory, &["d", "e", "f"]).await;
    nothing(&*consumer).await;
    // Never more than it was opened with.
    consumer.set_prefetch(9).await;
    assert_eq!(ids(&receive(&*consumer, 10).await), ["d"]);
    nothing(&*consumer).await;
    ack(&*consumer, &c).await;
    assert_eq!(ids(&receive(&*consumer, 10).await), ["e"]);
}
