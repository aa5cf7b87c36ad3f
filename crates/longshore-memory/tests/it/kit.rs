//! A broker, a topic and a group, and short words for what tests do to them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use longshore_core::{
    AckToken, Broker, Cause, Consumer, ConsumerSpec, ErrorKind, Event, Group, GroupName,
    InstanceId, Letter, Message, MessageId, Page, Position, Publisher, Reason, Receipt, Received,
    Record, Result, Settlement, Setup, Source, Start, Stats, TopicName, Topology,
};
use longshore_memory::{Memory, connect};

pub(crate) const LEASE: Duration = Duration::from_secs(10);
pub(crate) const KEPT: Duration = Duration::from_secs(3600);

pub(crate) fn topic() -> TopicName {
    TopicName::new("orders").unwrap()
}

pub(crate) fn group(name: &str) -> Group {
    Group {
        topic: topic(),
        name: GroupName::new(name).unwrap(),
        start: Start::Declared,
        lease: LEASE,
        dead_letters: Some(KEPT),
        longest_delay: Duration::ZERO,
    }
}

pub(crate) fn main_of(name: &str) -> Source {
    Source::Group { topic: topic(), group: GroupName::new(name).unwrap() }
}

pub(crate) fn suspects_of(name: &str) -> Source {
    Source::Suspects { topic: topic(), group: GroupName::new(name).unwrap() }
}

pub(crate) fn dead_of(name: &str) -> Source {
    Source::DeadLetters { topic: topic(), group: GroupName::new(name).unwrap() }
}

/// A broker by `url`, with the group `billing`.
pub(crate) async fn broker(url: &str) -> Memory {
    let memory = connect(url, Setup::default()).await.unwrap();
    memory.declare(&Topology::group(group("billing"))).await.unwrap();
    memory
}

pub(crate) async fn open(memory: &Memory, source: Source, prefetch: u16) -> Box<dyn Consumer> {
    open_as(memory, source, prefetch, InstanceId::generate()).await
}

pub(crate) async fn open_as(
    memory: &Memory,
    source: Source,
    prefetch: u16,
    instance: InstanceId,
) -> Box<dyn Consumer> {
    memory.consumer(&ConsumerSpec { source, prefetch, lease: LEASE, instance }).await.unwrap()
}

pub(crate) fn message(id: &str) -> Message {
    Message::new(id.to_owned()).id(MessageId::new(id).unwrap())
}

pub(crate) async fn publish(memory: &Memory, ids: &[&str]) -> Vec<Result<Receipt>> {
    let publisher = memory.publisher(&topic()).await.unwrap();
    publish_by(&*publisher, ids).await
}

pub(crate) async fn publish_by(publisher: &dyn Publisher, ids: &[&str]) -> Vec<Result<Receipt>> {
    let mut batch = ids.iter().map(|id| message(id)).collect();
    let outcomes = publisher.publish(&mut batch).await.unwrap().await;
    assert!(batch.is_empty());
    outcomes
}

/// One receive of at most `limit`.
pub(crate) async fn receive(consumer: &dyn Consumer, limit: usize) -> Vec<Received> {
    let mut out = Vec::new();
    consumer.receive(&mut out, limit).await.unwrap();
    assert!(!out.is_empty() && out.len() <= limit);
    out.into_iter()
        .map(|event| match event {
            Event::Message(received) => received,
            other => panic!("{other:?}"),
        })
        .collect()
}

pub(crate) async fn one(consumer: &dyn Consumer) -> Received {
    receive(consumer, 1).await.remove(0)
}

/// That there is nothing to receive now, without letting the clock run.
pub(crate) async fn nothing(consumer: &dyn Consumer) {
    let mut out = Vec::new();
    let mut pending = consumer.receive(&mut out, 10);
    assert!(futures::poll!(&mut pending).is_pending(), "there was something");
}

pub(crate) async fn settle(consumer: &dyn Consumer, settlement: Settlement) -> Result<()> {
    let mut out = Vec::new();
    consumer.settle(&[settlement], &mut out).await;
    assert_eq!(out.len(), 1);
    out.remove(0)
}

pub(crate) async fn ack(consumer: &dyn Consumer, received: &Received) {
    settle(consumer, Settlement::Ack(received.token)).await.unwrap();
}

pub(crate) async fn extend(consumer: &dyn Consumer, token: AckToken, by: Duration) -> Result<()> {
    let mut out = Vec::new();
    consumer.extend(&[token], by, &mut out).await;
    out.remove(0)
}

pub(crate) fn release(received: &Received) -> Settlement {
    Settlement::Release { token: received.token, record: None }
}

pub(crate) fn retry(received: &Received, after: Duration) -> Settlement {
    Settlement::Retry { token: received.token, after, record: Box::new(failed(received)) }
}

pub(crate) fn suspect(received: &Received) -> Settlement {
    let explained = received.deliveries;
    let record = Record { suspect: true, explained, ..next(received) };
    Settlement::Suspect { token: received.token, record: Box::new(record) }
}

pub(crate) fn dead(received: &Received) -> Settlement {
    Settlement::DeadLetter { token: received.token, letter: Box::new(letter(received)) }
}

pub(crate) fn redrive(received: &Received) -> Settlement {
    let record = Record {
        redrives: received.letter.as_ref().unwrap().redrive_count + 1,
        origin: Some("1".into()),
        ..Record::default()
    };
    Settlement::Redrive { token: received.token, record: Box::new(record) }
}

/// The record as the engine makes it: every hand-over so far.
pub(crate) fn next(received: &Received) -> Record {
    let before = received.record.as_deref().cloned().unwrap_or_default();
    Record { deliveries: received.deliveries, ..before }
}

pub(crate) fn failed(received: &Received) -> Record {
    let record = next(received);
    Record { failures: record.failures + 1, delayed: record.delayed + 1, ..record }
}

pub(crate) fn letter(received: &Received) -> Letter {
    let at = received.published_at.unwrap();
    let at = std::time::UNIX_EPOCH
        + Duration::from_secs(at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
    Letter {
        id: "0123".into(),
        reason: Reason::AttemptsExhausted,
        reason_detail: None,
        cause: Some(Cause {
            error_type: "Declined".into(),
            message: "card declined".into(),
            code: None,
            transient: false,
            chain: Vec::new(),
            backtrace: None,
        }),
        source: received.topic.as_str().into(),
        source_backend: "memory".into(),
        source_group: "billing".into(),
        position: received.position.clone(),
        original_id: received.id.as_ref().unwrap().to_string().into(),
        original_published_at: Some(at),
        attempts: received.attempt(),
        deliveries: received.deliveries,
        delayed_retries: 0,
        first_failed_at: at,
        last_failed_at: at,
        dead_lettered_at: at,
        history: Vec::new(),
        handler: "bill".into(),
        message_type: None,
        instance: "i".into(),
        lib_version: "0".into(),
        policy: "p".into(),
        redrive_count: received.record.as_ref().map_or(0, |record| record.redrives),
        redrive_of: None,
        payload_sha256: Letter::payload_sha256(&received.body),
    }
}

pub(crate) fn id(received: &Received) -> String {
    received.id.as_ref().unwrap().to_string()
}

pub(crate) fn ids(list: &[Received]) -> Vec<String> {
    list.iter().map(id).collect()
}

pub(crate) async fn stats(memory: &Memory, source: Source) -> Stats {
    memory.stats(&source).await.unwrap()
}

/// Ready, in flight, waiting.
pub(crate) async fn counts(memory: &Memory, source: Source) -> (u64, u64, u64) {
    let stats = stats(memory, source).await;
    (stats.ready, stats.in_flight, stats.waiting)
}

pub(crate) async fn browse(memory: &Memory, source: Source, after: Option<u64>) -> Vec<Received> {
    let page = Page { after: after.map(Position::Sequence), limit: 10 };
    memory.browse(&source, &page).await.unwrap()
}

#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    assert_eq!(result.unwrap_err().kind(), kind);
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
