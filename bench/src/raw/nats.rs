//! NATS JetStream by async-nats: what a careful user of that crate would write.
//!
//! Streams and durables have the settings of longshore's own; see `docs/performance.md`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{Context, Message};
use async_nats::{Client, HeaderMap, Request, Subject, header};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, TryStreamExt as _};
use longshore::MessageId;

use crate::case::{CONCURRENCY, LATENCY_PACE, SLOW_SHARE, SLOW_WAIT, WINDOW, Work};
use crate::contender::{Contender, Job, Left, Tracker, in_tasks, in_window, now, number, paced};
use crate::meter::Sample;

const DURABLE: &str = "group";
/// The best of several that were tried: more gains nothing.
const BATCH: usize = 500;
/// longshore confirms the last ack of a batch, and its batches are of 64 at most when busy.
const CONFIRM_EACH: usize = 64;
/// And it has so many of them in flight.
const CONFIRMS: usize = 4;
/// Unconfirmed messages while a queue is filled, which nobody times.
const FILL: usize = 4096;

/// async-nats on a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Nats {
    client: Client,
    context: Context,
    /// Whether a message has an id, so that the server recognises a repeat.
    ids: bool,
}

/// The raw client as longshore publishes, and for information without an id.
pub(crate) async fn connect(url: String) -> Result<Vec<Arc<dyn Contender>>> {
    let mut contenders: Vec<Arc<dyn Contender>> = Vec::new();
    for ids in [true, false] {
        let client = async_nats::connect(&url).await.context("connecting the raw client")?;
        let context = async_nats::jetstream::new(client.clone());
        contenders.push(Arc::new(Nats { client, context, ids }));
    }
    Ok(contenders)
}

#[async_trait]
impl Contender for Nats {
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
        let subject = Subject::from(job.topic.as_str());
        self.make_stream(&job.topic).await?;
        match job.work {
            Work::Tasks(tasks) => {
                let meter = job.meter();
                let (this, body) = (Arc::new(self.clone()), job.body.clone());
                let send = move || {
                    let (this, subject, body) = (this.clone(), subject.clone(), body.clone());
                    async move { confirmed(this.publish(subject, body).await?).await }
                };
                in_tasks(tasks, job.messages, send).await?;
                Ok(meter.stop(job.messages))
            }
            Work::Window(window) => {
                let meter = job.meter();
                self.send(&subject, job, window).await?;
                Ok(meter.stop(job.messages))
            }
            Work::Consume => self.consume(job, &subject, None).await,
            Work::Slow => self.consume(job, &subject, Some(SLOW_WAIT)).await,
            Work::Both => self.both(job, &subject).await,
            Work::Latency => self.latency(job, subject).await,
            Work::DeadLetter | Work::Lateness => Err(anyhow!("the raw client has no retries")),
        }
    }

    async fn clean(&self, topic: &str, left: Left) -> Result<()> {
        let names: Vec<String> = self.context.stream_names().try_collect().await?;
        let (ledger, derived) = (format!("longshore=ledger={topic}"), format!("{topic}="));
        let of_topic = |name: &&String| {
            *name == topic || **name == ledger || name.starts_with(derived.as_str())
        };
        for name in names.iter().filter(of_topic) {
            let context = || format!("removing what is left in {name}");
            if left == Left::Everything {
                self.context.delete_stream(name).await.with_context(context)?;
            } else {
                let stream = self.context.get_stream_no_info(name).await.with_context(context)?;
                stream.purge().await.with_context(context)?;
            }
        }
        Ok(())
    }
}

async fn confirmed(ack: PublishAckFuture) -> Result<()> {
    ensure!(!ack.await?.duplicate, "a new message was taken for a duplicate");
    Ok(())
}

impl Nats {
    async fn make_stream(&self, topic: &str) -> Result<()> {
        let config = Config {
            name: topic.to_owned(),
            subjects: vec![topic.to_owned()],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            duplicate_window: Duration::from_secs(120),
            max_age: Duration::from_secs(7 * 86_400),
            ..Config::default()
        };
        self.context.create_stream(config).await.context("making a stream")?;
        Ok(())
    }

    async fn make_consumer(&self, topic: &str) -> Result<PullConsumer> {
        let config = pull::Config {
            durable_name: Some(DURABLE.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(30),
            max_deliver: -1,
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        let made = self.context.create_consumer_on_stream(config, topic).await;
        made.context("making a consumer")
    }

    async fn publish(&self, subject: Subject, body: Bytes) -> Result<PublishAckFuture> {
        if !self.ids {
            return Ok(self.context.publish(subject, body).await?);
        }
        let mut headers = HeaderMap::new();
        let id = MessageId::generate().with_str(|id| header::HeaderValue::from(id));
        headers.insert(header::NATS_MESSAGE_ID, id);
        Ok(self.context.publish_with_headers(subject, headers, body).await?)
    }

    async fn send(&self, subject: &Subject, job: &Job, window: usize) -> Result<()> {
        let queue = || self.publish(subject.clone(), job.body.clone());
        in_window(window, job.messages, queue, confirmed).await
    }

    async fn consume(
        &self,
        job: &Job,
        subject: &Subject,
        wait: Option<Duration>,
    ) -> Result<Sample> {
        let consumer = self.make_consumer(&job.topic).await?;
        self.send(subject, job, FILL).await?;
        let tracker = Tracker::new(job, 1)?;
        self.read(&consumer, &tracker, job, wait, |_| Ok(())).await?;
        stop(&tracker, consumer).await
    }

    async fn both(&self, job: &Job, subject: &Subject) -> Result<Sample> {
        let consumer = self.make_consumer(&job.topic).await?;
        let tracker = Tracker::new(job, 1)?;
        tracker.begin();
        let (this, to, sent) = (self.clone(), subject.clone(), job.clone());
        let sending = tokio::spawn(async move { this.send(&to, &sent, WINDOW).await });
        self.read(&consumer, &tracker, job, None, |_| Ok(())).await?;
        sending.await??;
        stop(&tracker, consumer).await
    }

    async fn latency(&self, job: &Job, subject: Subject) -> Result<Sample> {
        let consumer = self.make_consumer(&job.topic).await?;
        let tracker = Tracker::new(job, 1)?;
        tracker.begin();
        let (this, sent) = (Arc::new(self.clone()), Arc::new(job.clone()));
        let sending = tokio::spawn(async move {
            paced(sent.messages, LATENCY_PACE, move |_| {
                let (this, job, subject) = (this.clone(), sent.clone(), subject.clone());
                async move { confirmed(this.publish(subject, job.numbered(now())).await?).await }
            })
            .await
        });
        let arrived = |message: &Message| {
            tracker.time(now().saturating_sub(number(&message.payload)?));
            Ok(())
        };
        self.read(&consumer, &tracker, job, None, arrived).await?;
        sending.await??;
        stop(&tracker, consumer).await
    }

    /// Handles and acks each message; the last ack and one in so many before is confirmed.
    async fn read(
        &self,
        consumer: &PullConsumer,
        tracker: &Tracker,
        job: &Job,
        wait: Option<Duration>,
        arrived: impl Fn(&Message) -> Result<()>,
    ) -> Result<()> {
        let messages = consumer.stream().max_messages_per_batch(BATCH);
        let messages = messages.heartbeat(Duration::from_secs(5)).messages().await?;
        let handled = messages.map_err(anyhow::Error::from).and_then(|message| {
            let checked = arrived(&message);
            std::future::ready(checked.map(|()| (tracker.run(), message)))
        });
        let mut acks = Acks { client: self.client.clone(), confirming: FuturesUnordered::new() };
        let mut done = 0;
        if let Some(wait) = wait {
            let slow = handled.map_ok(|(number, message)| async move {
                if number.is_multiple_of(SLOW_SHARE) {
                    tokio::time::sleep(wait).await;
                }
                anyhow::Ok(message)
            });
            let mut slow = std::pin::pin!(slow.try_buffer_unordered(CONCURRENCY));
            while done < job.messages {
                let message = slow.try_next().await?.context("the stream of messages ended")?;
                done += 1;
                acks.ack(&message, done, job.messages).await?;
            }
        } else {
            let mut handled = std::pin::pin!(handled);
            while done < job.messages {
                let (_, message) =
                    handled.try_next().await?.context("the stream of messages ended")?;
                done += 1;
                acks.ack(&message, done, job.messages).await?;
            }
        }
        acks.confirming.try_for_each(|()| async { Ok(()) }).await
    }
}

struct Acks<F> {
    client: Client,
    confirming: FuturesUnordered<F>,
}

type Confirming = futures::future::BoxFuture<'static, Result<()>>;

impl Acks<Confirming> {
    async fn ack(&mut self, message: &Message, number: usize, last: usize) -> Result<()> {
        if !number.is_multiple_of(CONFIRM_EACH) && number != last {
            return message.ack().await.map_err(|error| anyhow!(error));
        }
        let reply = message.reply.clone().context("a message without a place to ack to")?;
        let client = self.client.clone();
        self.confirming.push(Box::pin(async move {
            let request = Request::new().payload(Bytes::from_static(b"+ACK"));
            client.send_request(reply, request).await?;
            Ok(())
        }));
        while self.confirming.len() > CONFIRMS {
            self.confirming.try_next().await?;
        }
        Ok(())
    }
}

/// Stops the clock, and asks the server whether anything is left.
async fn stop(tracker: &Tracker, mut consumer: PullConsumer) -> Result<Sample> {
    let sample = tracker.stop()?;
    let info = consumer.info().await?;
    let left = info.num_pending + info.num_ack_pending as u64;
    ensure!(left == 0, "{left} messages are left");
    Ok(sample)
}
