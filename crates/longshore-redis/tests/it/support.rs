//! What the tests have in common.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use longshore_core::{
    AckToken, Broker, Consumer, ConsumerSpec, ErrorKind, Event, Group, GroupName, InstanceId,
    Letter, Message, Position, Publisher, Receipt, Received, Record, Result, Settlement, Setup,
    Source, Start, TopicName, Topology, dead_letter_id, policy::Reason,
};
use longshore_redis::{Native, Redis, connect};
use longshore_testbed::{Options, Testbed};
use redis::{Cmd, Value};
use tokio::time::timeout;

pub(crate) const LEASE: Duration = Duration::from_secs(5);

pub(crate) struct Bench {
    pub(crate) redis: Redis,
    pub(crate) topic: TopicName,
    pub(crate) group: GroupName,
}

pub(crate) fn group(topic: &str) -> Group {
    Group {
        topic: topic.try_into().unwrap(),
        name: "billing".try_into().unwrap(),
        start: Start::Declared,
        lease: LEASE,
        dead_letters: Some(Duration::from_secs(86_400)),
        longest_delay: Duration::from_secs(60),
    }
}

impl Bench {
    /// A connection, the topic `orders` and its group `billing`.
    pub(crate) async fn new(url: &str) -> Self {
        Self::with(url, Setup::default()).await
    }

    pub(crate) async fn with(url: &str, setup: Setup) -> Self {
        let redis = connect(url, setup).await.unwrap();
        let group = group("orders");
        let (topic, name) = (group.topic.clone(), group.name.clone());
        redis.declare(&Topology::group(group)).await.unwrap();
        Self { redis, topic, group: name }
    }

    /// What the server answers to a client of its own.
    pub(crate) async fn ask(&self, command: &Cmd) -> Value {
        let native: &Native = self.redis.native().downcast_ref().unwrap();
        let mut connection = native.connection(&self.topic).await.unwrap();
        connection.send_packed_command(command).await.unwrap()
    }

    /// The same, for a number.
    pub(crate) async fn number(&self, words: &[&str]) -> i64 {
        match self.ask(&command(words)).await {
            Value::Int(number) => number,
            other => panic!("{words:?} is answered by {other:?}"),
        }
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

    pub(crate) async fn consumer(&self, source: Source) -> Box<dyn Consumer> {
        self.consumer_of(source, 16).await
    }

    pub(crate) async fn consumer_of(&self, source: Source, prefetch: u16) -> Box<dyn Consumer> {
        let instance = InstanceId::generate();
        let spec = ConsumerSpec { source, prefetch, lease: LEASE, instance };
        self.redis.consumer(&spec).await.unwrap()
    }

    /// Gives the group another lease; members hear of it when they open or look.
    pub(crate) async fn lease(&self, lease: Duration) {
        let group = Group { lease, ..group(self.topic.as_str()) };
        self.redis.declare(&Topology::group(group)).await.unwrap();
    }

    pub(crate) async fn publish(&self, body: &str) -> Result<Receipt> {
        let publisher = self.redis.publisher(&self.topic).await?;
        send(&*publisher, Message::new(body.to_owned())).await
    }

    /// The letter that the engine would write.
    pub(crate) fn letter(&self, received: &Received) -> Box<Letter> {
        let origin = received.position.to_text();
        let id = received.id.as_ref();
        let now = std::time::SystemTime::now();
        Box::new(Letter {
            id: dead_letter_id(&self.topic, &self.group, &origin, id, 0),
            reason: Reason::Permanent,
            reason_detail: None,
            cause: None,
            source: self.topic.as_str().into(),
            source_backend: "redis".into(),
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

pub(crate) async fn send(publisher: &dyn Publisher, message: Message) -> Result<Receipt> {
    publisher.publish(&mut vec![message]).await?.await.remove(0)
}

/// The next message; panics where none comes.
pub(crate) async fn next(consumer: &dyn Consumer) -> Received {
    match timeout(Duration::from_secs(30), maybe(consumer)).await {
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

/// The next `count` messages, in as large batches as they come.
pub(crate) async fn many(consumer: &dyn Consumer, count: usize) -> Vec<Received> {
    let mut received = Vec::new();
    let all = async {
        while received.len() < count {
            let mut out = Vec::new();
            consumer.receive(&mut out, count - received.len()).await.unwrap();
            received.extend(out.into_iter().filter_map(|event| match event {
                Event::Message(message) => Some(message),
                _ => None,
            }));
        }
    };
    assert!(timeout(Duration::from_secs(30), all).await.is_ok(), "too few messages came");
    received
}

/// Receives until the consumer ends.
pub(crate) async fn ended(consumer: &dyn Consumer) -> Result<()> {
    loop {
        consumer.receive(&mut Vec::new(), 16).await?;
    }
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
    record.origin = Some(received.position.to_text());
    record
}

pub(crate) fn entry(received: &Received) -> String {
    match &received.position {
        Position::Entry(id) => id.to_string(),
        _ => panic!("a message of Redis is an entry"),
    }
}

pub(crate) fn command(words: &[&str]) -> Cmd {
    let (name, arguments) = words.split_first().unwrap();
    let mut command = redis::cmd(name);
    arguments.iter().for_each(|argument| {
        command.arg(*argument);
    });
    command
}

/// The row that `LONGSHORE_REDIS` names, or the default one.
pub(crate) fn row() -> String {
    std::env::var("LONGSHORE_REDIS").unwrap_or_else(|_| "redis".to_owned())
}

pub(crate) async fn server() -> longshore_testbed::Broker {
    server_with(Options::default()).await
}

pub(crate) async fn server_with(options: Options) -> longshore_testbed::Broker {
    Testbed::start(&row(), options).await.unwrap()
}

/// Asks until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[track_caller]
pub(crate) fn is<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> longshore_core::Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    error
}
