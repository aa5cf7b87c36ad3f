use std::sync::Arc;
use std::time::Duration;

use longshore_core::{
    AckToken, Error, GroupName, Headers, InstanceId, Position, Received, Settlement, Source,
    TopicName,
};

use super::{How, Ledger, Outcome};

fn source() -> Source {
    let (topic, group) = (TopicName::new("t").unwrap(), GroupName::new("g").unwrap());
    Source::Group { topic, group }
}

fn received(seq: u64) -> Received {
    Received {
        token: AckToken { epoch: 1, slot: 0, seq },
        topic: TopicName::new("t").unwrap(),
        body: format!("m{seq}").into(),
        key: None,
        id: None,
        message_type: None,
        content_type: None,
        headers: Headers::new(),
        published_at: None,
        lease: None,
        position: Position::None,
        deliveries: 1,
        record: None,
        letter: None,
    }
}

#[test]
fn every_hand_over_is_an_entry_of_its_own() {
    let (ledger, instance) = (Ledger::default(), InstanceId::generate());
    for consumer in [1, 1, 2] {
        ledger.delivered(consumer, &source(), &instance, &received(7));
    }
    ledger.read(|seen| {
        assert_eq!(seen.deliveries.len(), 3);
        assert_eq!(seen.of_body("m7").count(), 3);
    });
}

#[tokio::test(start_paused = true)]
async fn an_end_belongs_to_its_consumer_and_the_first_that_held_stands() {
    let (ledger, instance) = (Ledger::default(), InstanceId::generate());
    ledger.delivered(1, &source(), &instance, &received(7));
    ledger.delivered(2, &source(), &instance, &received(7));
    let (token, now) = (received(7).token, tokio::time::Instant::now());
    let settle = |settlement, result| ledger.settled(2, now, &settlement, &result);
    settle(Settlement::Ack(token), Err(Error::lease_lost()));
    assert_eq!(ledger.read(|seen| seen.settled(|_| true)), 0);
    settle(Settlement::Release { token, record: None }, Ok(()));
    settle(Settlement::Ack(token), Ok(()));
    ledger.read(|seen| {
        assert!(seen.deliveries[0].end.is_none());
        assert_eq!(seen.deliveries[1].end.as_ref().map(|end| end.how), Some(How::Release));
    });
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_was_cancelled() {
    let (ledger, instance) = (Arc::new(Ledger::default()), InstanceId::generate());
    let run = ledger.started(source(), instance.clone(), received(1), 1);
    assert_eq!(ledger.read(super::Records::running), 1);
    drop(run);
    ledger.started(source(), instance, received(1), 2).end(Outcome::Ok);
    ledger.read(|seen| {
        assert_eq!((seen.ended(Outcome::Dropped), seen.ended(Outcome::Ok)), (1, 1));
        assert_eq!(seen.attempts("m1"), [1, 2]);
    });
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_entry_and_not_before_its_deadline_without() {
    let (ledger, instance) = (Arc::new(Ledger::default()), InstanceId::generate());
    let writer = ledger.clone();
    let writing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        writer.delivered(1, &source(), &instance, &received(1));
    });
    let began = tokio::time::Instant::now();
    ledger.wait("one", Duration::from_secs(5), |seen| seen.deliveries.len() == 1).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    writing.await.unwrap();
    let error = ledger.wait("two", Duration::from_secs(5), |seen| seen.deliveries.len() == 2).await;
    let error = error.unwrap_err();
    assert!(
        error.contains("two") && error.contains("m1") && error.contains("unsettled"),
        "{error}"
    );
    assert_eq!(began.elapsed(), Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_window_closes_early_only_where_it_is_broken() {
    let (ledger, instance) = (Arc::new(Ledger::default()), InstanceId::generate());
    let window = Duration::from_secs(3);
    let none = |seen: &super::Records| seen.deliveries.is_empty();
    let began = tokio::time::Instant::now();
    ledger.stays("nothing", window, none).await.unwrap();
    assert_eq!(began.elapsed(), window);
    ledger.delivered(1, &source(), &instance, &received(1));
    assert!(ledger.stays("nothing", window, none).await.is_err());
    assert_eq!(began.elapsed(), window);
}
