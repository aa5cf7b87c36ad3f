//! The incoming side, as the tests use it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, SystemTime};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use longshore_core::{
    AckToken, Broker as _, Consumer, ConsumerSpec, Event, InstanceId, Letter, Message, Received,
    Record, Result, Settlement, Source, dead_letter_id, policy::Reason,
};
use longshore_rabbitmq::Connections;
use tokio::time::timeout;

use crate::support::{Bench, DEADLINE, send};

impl Bench {
    pub(crate) async fn consumer(&self, source: Source, prefetch: u16) -> Box<dyn Consumer> {
        let (instance, lease) = (InstanceId::generate(), Duration::from_secs(30));
        let spec = ConsumerSpec { source, prefetch, lease, instance };
        self.rabbit.consumer(&spec).await.unwrap()
    }

    pub(crate) async fn publish(&self, bodies: impl IntoIterator<Item = &str>) {
        let publisher = self.publisher().await;
        for body in bodies {
            send(&*publisher, Message::new(body.to_owned())).await.unwrap();
        }
    }

    /// A channel of the client library's own, in confirm mode.
    pub(crate) async fn native(&self) -> Channel {
        let native: &Connections = self.rabbit.native().downcast_ref().unwrap();
        let channel = native.outgoing().unwrap().create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel
    }

    /// Publishes as a program without longshore does.
    pub(crate) async fn foreign(&self, body: &str, headers: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        let properties = BasicProperties::default().with_delivery_mode(2).with_headers(table);
        let (channel, options) = (self.native().await, BasicPublishOptions::default());
        let exchange = self.topic.as_str().into();
        let sent = channel.basic_publish(exchange, "".into(), options, body.as_bytes(), properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    }

    pub(crate) async fn waiting_letters(&self) -> u64 {
        self.rabbit.stats(&self.letters()).await.unwrap().ready
    }

    /// The letter that the engine would write.
    pub(crate) fn letter(&self, received: &Received) -> Box<Letter> {
        let (now, id) = (SystemTime::now(), received.id.as_ref());
        Box::new(Letter {
            id: dead_letter_id(&self.topic, &self.group, "", id, 0),
            reason: Reason::Permanent,
            reason_detail: None,
            cause: None,
            source: self.topic.as_str().into(),
            source_backend: "rabbitmq".into(),
            source_group: self.group.as_str().into(),
            position: received.position.clone(),
            original_id: id.map(|id| id.to_string()).unwrap_or_default().into(),
            original_published_at: received.published_at,
            attempts: 1,
            deliveries: received.deliveries,
            delayed_retries: 0,
            first_failed_at: now,
            last_failed_at: now,
            dead_lettered_at: now,
            history: Vec::new(),
            handler: "h".into(),
            message_type: None,
            instance: "i".into(),
            lib_version: "0".into(),
            policy: "p".into(),
            redrive_count: 0,
            redrive_of: None,
            payload_sha256: Letter::payload_sha256(&received.body),
        })
    }
}

/// The next event; panics where none comes.
pub(crate) async fn event(consumer: &dyn Consumer) -> Event {
    let mut out = Vec::new();
    match timeout(DEADLINE, consumer.receive(&mut out, 1)).await {
        Ok(received) => received.unwrap(),
        Err(_) => panic!("nothing came"),
    }
    out.remove(0)
}

/// The next message; panics where none comes.
pub(crate) async fn next(consumer: &dyn Consumer) -> Received {
    match timeout(DEADLINE, maybe(consumer)).await {
        Ok(received) => received,
        Err(_) => panic!("no message came"),
    }
}

async fn maybe(consumer: &dyn Consumer) -> Received {
    loop {
        let mut out = Vec::new();
        consumer.receive(&mut out, 1).await.unwrap();
        for event in out {
            if let Event::Message(received) = event {
                return received;
            }
        }
    }
}

/// The next `count` messages.
pub(crate) async fn many(consumer: &dyn Consumer, count: usize) -> Vec<Received> {
    let mut received = Vec::new();
    while received.len() < count {
        received.push(next(consumer).await);
    }
    received
}

/// Whether nothing comes for so long.
pub(crate) async fn quiet(consumer: &dyn Consumer, time: Duration) -> bool {
    timeout(time, maybe(consumer)).await.is_err()
}

pub(crate) async fn settle(consumer: &dyn Consumer, settlement: Settlement) -> Result<()> {
    let mut out = Vec::new();
    consumer.settle(&[settlement], &mut out).await;
    out.remove(0)
}

pub(crate) async fn ack(consumer: &dyn Consumer, token: AckToken) -> Result<()> {
    settle(consumer, Settlement::Ack(token)).await
}

/// The record of one more failure, as the engine makes it.
pub(crate) fn failed(received: &Received) -> Box<Record> {
    let mut record = Box::new(received.record.as_deref().cloned().unwrap_or_default());
    record.failures += 1;
    record.delayed += 1;
    record.deliveries = received.deliveries;
    record.not_before = None;
    record
}

pub(crate) fn retry(received: &Received, after: Duration) -> Settlement {
    Settlement::Retry { token: received.token, after, record: failed(received) }
}

pub(crate) fn body(received: &Received) -> &str {
    std::str::from_utf8(&received.body).unwrap()
}
