//! The outgoing side.
//!
//! One task for each publisher writes: what has come together meanwhile goes out in one round trip,
//! and the next is on its way while that is answered.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::{FutureExt as _, poll};
use longshore_core::{
    Confirms, Error, ErrorKind, Message, MessageId, Outcome, Publisher, Receipt, Result, TopicName,
};
use redis::{Pipeline, RedisError, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::codec;
use crate::error::{self, BACKEND, closed, no_topic};
use crate::line::Line;
use crate::reply;
use crate::shared::{Purpose, Shared};

/// More in one round trip was not faster.
const TOGETHER: usize = 128;
/// Round trips under way.
const ROUNDS: usize = 8;
/// Batches that wait for their turn.
const WAITING: usize = 1024;

/// A batch on its way.
struct Job {
    entries: Vec<Result<Prepared>>,
    answer: oneshot::Sender<Vec<Result<Receipt>>>,
    deadline: Instant,
}

struct Prepared {
    id: MessageId,
    fields: Vec<(Bytes, Bytes)>,
}

pub(crate) struct RedisPublisher {
    shared: Arc<Shared>,
    topic: TopicName,
    jobs: mpsc::Sender<Job>,
    closed: AtomicBool,
}

impl RedisPublisher {
    pub(crate) async fn open(shared: Arc<Shared>, topic: &TopicName) -> Result<Self> {
        shared.check_topic(topic).await?;
        let (jobs, waiting) = mpsc::channel(WAITING);
        let writer = Writer {
            line: shared.line(Purpose::Publish, Some(topic)),
            wait: shared.config.wait,
            wait_ms: crate::settings::ms(shared.config.publish_timeout / 2).max(1),
            topic: topic.clone(),
        };
        // It ends when the publisher is gone, and what is under way is answered.
        tokio::spawn(writer.run(waiting));
        Ok(Self { shared, topic: topic.clone(), jobs, closed: AtomicBool::new(false) })
    }

    fn check_open(&self) -> Result<()> {
        self.shared.end.check().map_err(|error| error.with_outcome(Outcome::NotSent))?;
        if self.closed.load(Ordering::Acquire) { Err(closed("publisher")) } else { Ok(()) }
    }

    fn prepare(&self, message: &Message) -> Result<Prepared> {
        let checked = message.check(self.shared.config.max_body);
        checked.map_err(|why| why.with_backend(BACKEND).with_outcome(Outcome::Refused))?;
        let id = message.id.clone().unwrap_or_else(MessageId::generate);
        let fields = codec::outgoing(message, &id, self.shared.config.plain);
        Ok(Prepared { id, fields })
    }

    /// A job is sent before this, or after everything.
    async fn flush(&self) {
        let (answer, done) = oneshot::channel();
        let deadline = Instant::now() + self.shared.config.publish_timeout;
        let job = Job { entries: Vec::new(), answer, deadline };
        if let Ok(Ok(())) = timeout_at(deadline, self.jobs.send(job)).await {
            let _ = timeout_at(deadline, done).await;
        }
    }
}

#[async_trait]
impl Publisher for RedisPublisher {
    async fn publish(&self, batch: &mut Vec<Message>) -> Result<Confirms> {
        self.check_open()?;
        let deadline = Instant::now() + self.shared.config.publish_timeout;
        // Dropped here, nothing was taken.
        let place = match timeout_at(deadline, self.jobs.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(closed("publisher")),
            Err(_) => {
                let why = error::error(ErrorKind::Backpressure, "the server takes no more for now");
                return Err(why.with_outcome(Outcome::NotSent));
            }
        };
        let entries = batch.drain(..).map(|message| self.prepare(&message)).collect::<Vec<_>>();
        let count = entries.len();
        let (answer, outcomes) = oneshot::channel();
        place.send(Job { entries, answer, deadline });
        let topic = self.topic.clone();
        Ok(Confirms::later(async move {
            outcomes.await.unwrap_or_else(|_| {
                let gone = || closed("connection").with_context("topic", topic.as_str());
                (0..count).map(|_| Err(gone().with_outcome(Outcome::Unknown))).collect()
            })
        }))
    }

    async fn close(&self) -> Result<()> {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.flush().await;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPublisher").field("topic", &self.topic).finish_non_exhaustive()
    }
}

struct Writer {
    line: Arc<Line>,
    topic: TopicName,
    wait: u64,
    wait_ms: u64,
}

impl Writer {
    async fn run(self, mut waiting: mpsc::Receiver<Job>) {
        let mut rounds: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut jobs = Vec::new();
        loop {
            let (any, room) = (!rounds.is_empty(), rounds.len() < ROUNDS);
            let more = tokio::select! {
                biased;
                Some(()) = rounds.next(), if any => continue,
                more = waiting.recv_many(&mut jobs, TOGETHER), if room => more,
            };
            if more == 0 {
                break;
            }
            // A batch is not taken apart, so that its order is the one of one round trip.
            while !jobs.is_empty() {
                let mut size = 0;
                let fits = jobs.iter().take_while(|job: &&Job| {
                    size += job.entries.len();
                    size <= TOGETHER
                });
                let fits = fits.count().max(1);
                let mut round = self.round(jobs.drain(..fits).collect()).boxed();
                // Polled once, so that it is written before the next.
                if poll!(&mut round).is_pending() {
                    rounds.push(round);
                }
            }
        }
        while rounds.next().await.is_some() {}
    }

    /// Writes these, and answers each.
    async fn round(&self, jobs: Vec<Job>) {
        let count: usize = jobs.iter().map(|job| job.entries.len()).sum();
        let mut pipeline = Pipeline::with_capacity(count + 1);
        for prepared in jobs.iter().flat_map(|job| job.entries.iter().flatten()) {
            let command = pipeline.cmd("XADD");
            command.arg(self.topic.as_str()).arg("NOMKSTREAM").arg("*");
            for (name, value) in &prepared.fields {
                command.arg(&name[..]).arg(&value[..]);
            }
        }
        let sent = pipeline.len();
        if self.wait > 0 && sent > 0 {
            pipeline.cmd("WAIT").arg(self.wait).arg(self.wait_ms);
        }
        let deadline = jobs.first().map_or_else(Instant::now, |job| job.deadline);
        let answers = match sent {
            0 => Ok(Vec::new()),
            _ => self.send(&pipeline, deadline).await,
        };
        let mut answers = answers.map(Vec::into_iter);
        // Behind the last message's answer stands that of WAIT.
        let copied = match &mut answers {
            Ok(all) if self.wait > 0 && sent > 0 => {
                all.next_back().map(|last| last.map(|it| reply::number(&it)))
            }
            _ => None,
        };
        for job in jobs {
            let outcomes = job.entries.into_iter().map(|entry| {
                let id = entry?.id;
                let answer = match &mut answers {
                    Ok(all) => all.next().unwrap_or(Ok(Value::Nil)),
                    Err(why) => return Err(why.clone()),
                };
                self.outcome(answer, id, copied.as_ref())
            });
            let outcomes = outcomes.collect();
            // Who does not wait for the outcome does not mind.
            let _ = job.answer.send(outcomes);
        }
    }

    fn outcome(
        &self,
        answer: Result<Value, RedisError>,
        id: MessageId,
        copied: Option<&Result<Option<i64>, RedisError>>,
    ) -> Result<Receipt> {
        match answer {
            Err(native) => return Err(error::publish(&self.topic, native)),
            // The key is not there, and XADD was told not to make it.
            Ok(Value::Nil) => return Err(no_topic(&self.topic).with_outcome(Outcome::Refused)),
            Ok(_) => {}
        }
        let enough = match copied {
            None => true,
            Some(Ok(count)) => count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0) >= self.wait,
            Some(Err(_)) => false,
        };
        if enough {
            return Ok(Receipt { id, duplicate: false });
        }
        let text = "the message is stored, and fewer replicas have it than `wait` asks for";
        let why = error::error(ErrorKind::Timeout, text).with_outcome(Outcome::Unknown);
        Err(why.with_context("topic", self.topic.as_str()))
    }

    /// One answer for each command; an error where nobody knows, or nothing was sent.
    async fn send(
        &self,
        pipeline: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Result<Value, RedisError>>, Error> {
        let wire = self.line.wire(deadline).await;
        let mut wire = wire.map_err(|why| why.with_outcome(Outcome::NotSent))?;
        let sent = wire.opened.connection.send_packed_commands(pipeline, 0, pipeline.len());
        let why = match timeout_at(deadline, sent).await {
            Ok(Ok(answers)) => {
                let answers: Vec<_> = answers
                    .into_iter()
                    .map(|answer| match answer {
                        Value::ServerError(native) => Err(RedisError::from(native)),
                        answer => Ok(answer),
                    })
                    .collect();
                if answers.iter().any(|it| it.as_ref().is_err_and(error::is_elsewhere)) {
                    self.line.broke(&wire).await;
                }
                return Ok(answers);
            }
            Ok(Err(native)) => error::publish(&self.topic, native),
            Err(_) => error::timeout().with_outcome(Outcome::Unknown),
        };
        self.line.broke(&wire).await;
        Err(why)
    }
}
