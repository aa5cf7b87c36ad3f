//! `RabbitMQ` by lapin: what a careful user of that crate would write.
//!
//! Queues have the type and the durability of longshore's own; see `docs/performance.md`.

mod read;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind,
    ExchangeKind,
};
use longshore::MessageId;

use crate::case::{SLOW_WAIT, Work};
use crate::contender::{Contender, Job, Left, in_tasks, in_window};
use crate::meter::Sample;

/// What a queue that is not there answers, where that is an error.
const NOT_FOUND: u16 = 404;
/// Of a message that survives a restart.
const PERSISTENT: u8 = 2;
/// longshore's, which never fires in normal life.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// The kind of the queues that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueType {
    Quorum,
    Classic,
}

/// lapin on two connections: RabbitMQ stops reading one whose publishes it cannot bear, and acks on
/// it would wait too.
pub(crate) struct Rabbit {
    publishing: Connection,
    consuming: Connection,
    queue_type: QueueType,
    /// Whether a message has an id.
    ids: bool,
}

impl std::fmt::Debug for Rabbit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rabbit").field("type", &self.queue_type).field("ids", &self.ids).finish()
    }
}

/// The raw client as longshore publishes, and for information without an id.
pub(crate) async fn connect(url: String, of: QueueType) -> Result<Vec<Arc<dyn Contender>>> {
    let mut contenders: Vec<Arc<dyn Contender>> = Vec::new();
    for ids in [true, false] {
        let open = || async {
            let opened = Connection::connect(&url, ConnectionProperties::default()).await;
            opened.context("connecting the raw client")
        };
        let (publishing, consuming) = (open().await?, open().await?);
        contenders.push(Arc::new(Rabbit { publishing, consuming, queue_type: of, ids }));
    }
    Ok(contenders)
}

#[async_trait]
impl Contender for Rabbit {
    fn name(&self) -> &'static str {
        if self.ids { "raw" } else { "raw without ids" }
    }

    fn does(&self, work: Work) -> bool {
        match work {
            Work::Tasks(_) | Work::Window(_) => true,
            Work::Consume | Work::Slow | Work::Both | Work::Latency => self.ids,
            Work::DeadLetter | Work::Lateness => false,
        }
    }

    async fn run(&self, job: &Job) -> Result<Sample> {
        self.make_queue(&job.topic).await?;
        let outgoing = self.outgoing(&job.topic).await?;
        match job.work {
            Work::Tasks(tasks) => {
                let meter = job.meter();
                let (to, body) = (outgoing.clone(), job.body.clone());
                let send = move || {
                    let (outgoing, body) = (to.clone(), body.clone());
                    async move { outgoing.publish(body).await.await }
                };
                in_tasks(tasks, job.messages, send).await?;
                Ok(meter.stop(job.messages))
            }
            Work::Window(window) => {
                let meter = job.meter();
                outgoing.send(job, window).await?;
                Ok(meter.stop(job.messages))
            }
            Work::Consume => self.consume(job, outgoing, None).await,
            Work::Slow => self.consume(job, outgoing, Some(SLOW_WAIT)).await,
            Work::Both => self.both(job, outgoing).await,
            Work::Latency => self.latency(job, outgoing).await,
            Work::DeadLetter | Work::Lateness => Err(anyhow!("the raw client has no retries")),
        }
    }

    async fn clean(&self, topic: &str, left: Left) -> Result<()> {
        // Whoever ran: longshore's group has three queues.
        let group = queue(topic);
        for name in [format!("{group}.suspect"), format!("{group}.dlq"), group] {
            let channel = self.publishing.create_channel().await?;
            if left == Left::Everything {
                // One that is not there is no error.
                let delete = QueueDeleteOptions::default();
                channel.queue_delete(name.into(), delete).await.context("removing a queue")?;
                continue;
            }
            let purge = QueuePurgeOptions::default();
            match channel.queue_purge(name.as_str().into(), purge).await {
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("emptying {name}")),
            }
        }
        if left == Left::Everything {
            let channel = self.publishing.create_channel().await?;
            let delete = ExchangeDeleteOptions::default();
            let deleted = channel.exchange_delete(topic.into(), delete).await;
            deleted.context("removing an exchange")?;
        }
        Ok(())
    }
}

/// The name of a group's queue.
fn queue(topic: &str) -> String {
    format!("{topic}.group")
}

fn is_missing(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == NOT_FOUND)
}

impl Rabbit {
    /// An exchange for the topic and the one queue that is bound to it.
    async fn make_queue(&self, topic: &str) -> Result<()> {
        let channel = self.publishing.create_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default;
        let made =
            channel.exchange_declare(topic.into(), ExchangeKind::Fanout, durable, none()).await;
        made.context("making an exchange")?;
        let mut arguments = FieldTable::default();
        let text = |text: &str| AMQPValue::LongString(text.into());
        arguments.insert("x-overflow".into(), text("reject-publish"));
        let kind = match self.queue_type {
            QueueType::Quorum => {
                let limit = AMQPValue::LongLongInt(DELIVERY_LIMIT);
                arguments.insert("x-delivery-limit".into(), limit);
                "quorum"
            }
            QueueType::Classic => "classic",
        };
        arguments.insert("x-queue-type".into(), text(kind));
        let (name, durable) =
            (queue(topic), QueueDeclareOptions { durable: true, ..Default::default() });
        let made = channel.queue_declare(name.as_str().into(), durable, arguments).await;
        made.context("making a queue")?;
        let bind = QueueBindOptions::default();
        let bound = channel.queue_bind(name.into(), topic.into(), "".into(), bind, none()).await;
        bound.context("binding a queue")
    }

    async fn outgoing(&self, topic: &str) -> Result<Arc<Outgoing>> {
        let channel = self.publishing.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .context("asking to confirm")?;
        let exchange = topic.into();
        Ok(Arc::new(Outgoing { channel, exchange, ids: self.ids, turn: Mutex::default() }))
    }
}

/// One channel in confirm mode, for all tasks.
struct Outgoing {
    channel: Channel,
    exchange: ShortString,
    ids: bool,
    /// Who publishes. lapin numbers a message under one lock and queues its frames under another:
    /// two tasks without a lock of their own around both get each other's confirmations.
    turn: Mutex<()>,
}

impl Outgoing {
    /// Puts a message on its way; the confirmation is what is returned.
    ///
    /// The first poll queues the frames. What is awaited then is that they are written and
    /// confirmed: to await the first of the two for each message, one after another, costs a switch
    /// of threads each.
    async fn publish(self: &Arc<Self>, body: Bytes) -> BoxFuture<'static, Result<()>> {
        let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        if self.ids {
            let id = MessageId::generate().with_str(|id| ShortString::from(id));
            properties = properties.with_message_id(id);
        }
        let this = self.clone();
        let mut publish: BoxFuture<'static, Result<()>> = Box::pin(async move {
            let (exchange, options) = (this.exchange.clone(), BasicPublishOptions::default());
            let publish =
                this.channel.basic_publish(exchange, "".into(), options, &body, properties);
            match publish.await?.await? {
                Confirmation::Ack(None) => Ok(()),
                other => bail!("a message was not stored: {other:?}"),
            }
        });
        let first = poll_fn(|context| {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            Poll::Ready(Pin::as_mut(&mut publish).poll(context))
        });
        match first.await {
            Poll::Ready(outcome) => Box::pin(std::future::ready(outcome)),
            Poll::Pending => publish,
        }
    }

    async fn send(self: &Arc<Self>, job: &Job, window: usize) -> Result<()> {
        let queue = || async { Ok(self.publish(job.body.clone()).await) };
        in_window(window, job.messages, queue, |confirmation| confirmation).await
    }
}

/// Holds that nothing is left of a queue that was not handled. An ack is answered by nobody, and a
/// quorum queue may still have some to write when their channel closes: such a message is there
/// again, marked as redelivered.
async fn ensure_handled(connection: &Connection, topic: &str) -> Result<()> {
    let channel = connection.create_channel().await?;
    loop {
        let next = channel.basic_get(queue(topic).into(), BasicGetOptions { no_ack: true }).await?;
        let Some(message) = next else { return Ok(()) };
        ensure!(message.redelivered, "a message is left that nobody handled");
    }
}
