//! What the tests have in common.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use longshore_core::{
    Broker as _, ErrorKind, Group, GroupName, Message, Publisher, Receipt, Result, Setup, Source,
    Start, TopicName, Topology,
};
use longshore_rabbitmq::{RabbitMq, connect};
use longshore_testbed::Broker;

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A topic that no other test has.
pub(crate) fn topic() -> TopicName {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    TopicName::new(format!("orders-{}-{number}", std::process::id())).unwrap()
}

pub(crate) fn group(topic: &TopicName, name: &str) -> Group {
    Group {
        topic: topic.clone(),
        name: name.try_into().unwrap(),
        start: Start::Declared,
        lease: Duration::from_secs(30),
        dead_letters: Some(Duration::from_secs(86_400)),
        longest_delay: Duration::from_secs(60),
    }
}

/// A client, a topic of its own and its group `billing`.
pub(crate) struct Bench {
    pub(crate) rabbit: RabbitMq,
    pub(crate) topic: TopicName,
    pub(crate) group: GroupName,
}

impl Bench {
    pub(crate) async fn new(broker: &Broker) -> Self {
        Self::with(broker, "").await
    }

    /// With these options in the URL: `?queue_type=classic`.
    pub(crate) async fn with(broker: &Broker, options: &str) -> Self {
        let rabbit = client(broker, options).await;
        let group = group(&topic(), "billing");
        let (topic, name) = (group.topic.clone(), group.name.clone());
        rabbit.declare(&Topology::group(group)).await.unwrap();
        Self { rabbit, topic, group: name }
    }

    pub(crate) fn queue(&self) -> String {
        format!("{}.{}", self.topic, self.group)
    }

    pub(crate) fn source(&self) -> Source {
        Source::Group { topic: self.topic.clone(), group: self.group.clone() }
    }

    pub(crate) fn suspects(&self) -> Source {
        Source::Suspects { topic: self.topic.clone(), group: self.group.clone() }
    }

    pub(crate) fn letters(&self) -> Source {
        Source::DeadLetters { topic: self.topic.clone(), group: self.group.clone() }
    }

    pub(crate) async fn publisher(&self) -> Box<dyn Publisher> {
        self.rabbit.publisher(&self.topic).await.unwrap()
    }

    /// How many messages wait in the group's queue, by the server's own count.
    pub(crate) async fn ready(&self) -> u64 {
        self.rabbit.stats(&self.source()).await.unwrap().ready
    }

    /// Waits until so many messages wait in the group's queue.
    pub(crate) async fn has_ready(&self, count: u64) {
        eventually("messages in the queue", || async { self.ready().await == count }).await;
    }
}

pub(crate) async fn client(broker: &Broker, options: &str) -> RabbitMq {
    connect(&format!("{}{options}", broker.url()), Setup::default()).await.unwrap()
}

/// Asks until it is so; panics where it does not become so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn send(publisher: &dyn Publisher, message: Message) -> Result<Receipt> {
    publisher.publish(&mut vec![message]).await?.await.remove(0)
}

#[track_caller]
pub(crate) fn is<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> longshore_core::Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    error
}

/// A connection by the bare client library, as other programs have one.
pub(crate) async fn raw(broker: &Broker) -> lapin::Connection {
    let properties = lapin::ConnectionProperties::default();
    lapin::Connection::connect(&format!("{}/%2f", broker.url()), properties).await.unwrap()
}

/// Declares a durable queue by the bare client library, with these arguments.
pub(crate) async fn raw_queue(
    channel: &lapin::Channel,
    name: &str,
    arguments: impl IntoIterator<Item = (&'static str, lapin::types::AMQPValue)>,
) {
    let mut table = lapin::types::FieldTable::default();
    for (name, value) in arguments {
        table.insert(name.into(), value);
    }
    let options = lapin::options::QueueDeclareOptions::durable();
    channel.queue_declare(name.into(), options, table).await.unwrap();
}

pub(crate) fn text(text: &str) -> lapin::types::AMQPValue {
    lapin::types::AMQPValue::LongString(text.into())
}

/// Takes the next message of a queue away; waits for it.
pub(crate) async fn take(channel: &lapin::Channel, queue: &str) -> lapin::message::Delivery {
    let begun = Instant::now();
    loop {
        let options = lapin::options::BasicGetOptions { no_ack: true };
        if let Some(found) = channel.basic_get(queue.into(), options).await.unwrap() {
            return found.delivery;
        }
        assert!(begun.elapsed() < DEADLINE, "nothing comes to `{queue}`");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many messages wait in a queue.
pub(crate) async fn depth(channel: &lapin::Channel, queue: &str) -> u32 {
    let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
    let table = lapin::types::FieldTable::default();
    channel.queue_declare(queue.into(), options, table).await.unwrap().message_count()
}
