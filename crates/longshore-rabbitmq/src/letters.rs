//! The reader of a dead-letter queue.
//!
//! It asks for each letter by itself: a letter that is passed over must stay out of its own sight
//! and is held for that, and a prefetch that is full of held letters would end the reading. Held
//! letters cost a tag each. Beyond a bound they are copied to the queue's end (confirmed) and
//! acked: order moves, nothing is lost.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::BasicGetOptions;
use longshore_core::{
    AckToken, Consumer, ConsumerSpec, Error, Event, Link, Result, Retryability, Settlement,
};
use longshore_driver::Backoff;
use tokio::time::{Instant, sleep_until, timeout};

use crate::consumer::finish;
use crate::deliver;
use crate::error;
use crate::moves::fingerprint;
use crate::names::short;
use crate::reading::Reading;
use crate::settle;
use crate::shared::Shared;

/// How often an empty queue is looked at.
const POLL: Duration = Duration::from_millis(250);
const INTAKE: Duration = Duration::from_secs(1);

type Answer = lapin::Result<Option<BasicGetMessage>>;

/// What is under way, kept over a `receive` that was dropped.
#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Opening(BoxFuture<'static, Result<Channel>>),
    Asking {
        answer: BoxFuture<'static, Answer>,
        by: Instant,
    },
}

struct Reader {
    stage: Stage,
    events: VecDeque<Event>,
    up: bool,
    backoff: Backoff,
    /// No new look before.
    pause: Option<Instant>,
}

pub(crate) struct LetterConsumer {
    reading: Arc<Reading>,
    reader: tokio::sync::Mutex<Reader>,
}

impl LetterConsumer {
    /// # Errors
    /// `NotFound` where the group has no dead-letter queue.
    pub(crate) async fn open(shared: Arc<Shared>, spec: &ConsumerSpec) -> Result<Self> {
        let reading = Arc::new(Reading::new(shared, &spec.source, spec.prefetch));
        reading.exists().await?;
        let reader = Reader {
            stage: Stage::Idle,
            events: VecDeque::new(),
            up: true,
            backoff: Backoff::new(longshore_driver::BackoffConfig::default()),
            pause: None,
        };
        Ok(Self { reading, reader: tokio::sync::Mutex::new(reader) })
    }
}

impl Reader {
    async fn receive(
        &mut self,
        reading: &Arc<Reading>,
        out: &mut Vec<Event>,
        limit: usize,
    ) -> Result<()> {
        let before = out.len();
        loop {
            reading.check()?;
            let lost = reading.flight().take_lost();
            self.events.extend(lost.into_iter().map(|(epoch, why)| Event::Lost { epoch, why }));
            let count = self.events.len().min(limit - (out.len() - before));
            out.extend(self.events.drain(..count));
            if out.len() - before >= limit {
                return Ok(());
            }
            match self.pause {
                // Nothing there now: what was read is not kept waiting.
                Some(_) if out.len() > before => return Ok(()),
                Some(until) => {
                    tokio::select! {
                        () = reading.wake.notified() => {}
                        () = sleep_until(until) => self.pause = None,
                    }
                    continue;
                }
                None => {}
            }
            if matches!(self.stage, Stage::Idle) && reading.flight().room() == 0 {
                if out.len() > before {
                    return Ok(());
                }
                reading.wake.notified().await;
                continue;
            }
            self.step(reading, out).await?;
        }
    }

    /// Goes one step on: a channel, or one letter.
    ///
    /// # Cancel safety
    /// The step that is under way goes on with the next call.
    async fn step(&mut self, reading: &Arc<Reading>, out: &mut Vec<Event>) -> Result<()> {
        if matches!(self.stage, Stage::Idle) {
            let channel = reading.flight().channel().cloned();
            self.stage = match channel {
                Some(channel) => ask(reading, channel)?,
                None => Stage::Opening(open(reading.clone()).boxed()),
            };
        }
        match &mut self.stage {
            Stage::Idle => {}
            Stage::Opening(channel) => {
                let channel = channel.await;
                self.stage = Stage::Idle;
                match channel {
                    Ok(channel) => {
                        reading.flight().attach(channel);
                        self.backoff = Backoff::new(longshore_driver::BackoffConfig::default());
                        if !std::mem::replace(&mut self.up, true) {
                            self.events.push_back(Event::State(Link::Up));
                        }
                    }
                    Err(why) if why.retryability() == Retryability::Permanent => return Err(why),
                    Err(why) => self.lose(reading, &why),
                }
            }
            Stage::Asking { answer, by } => {
                let answer = tokio::time::timeout_at(*by, answer).await;
                self.stage = Stage::Idle;
                match answer {
                    Ok(Ok(Some(letter))) => self.read(reading, letter, out),
                    Ok(Ok(None)) => self.pause = Some(Instant::now() + POLL),
                    Ok(Err(native)) => {
                        let why = error::native(native);
                        if why.kind() == longshore_core::ErrorKind::NotFound {
                            return Err(error::no_group(
                                &reading.names.topic,
                                &reading.names.group,
                            )
                            .with_source(why));
                        }
                        self.lose(reading, &why);
                    }
                    // A queue that elects its leader was seen to leave a question without answer.
                    Err(_) => self.lose(reading, &error::timeout()),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, reading: &Arc<Reading>, letter: BasicGetMessage, out: &mut Vec<Event>) {
        let delivery = letter.delivery;
        if !delivery.acker.usable() {
            return;
        }
        let mut flight = reading.flight();
        flight.delivered(delivery.delivery_tag);
        if flight.was_passed_over(fingerprint(&delivery.properties, &delivery.data)) {
            return;
        }
        let (mut received, held) = deliver::read(reading, delivery);
        if let Some(token) = flight.insert(held) {
            received.token = token;
            out.push(Event::Message(received));
        }
    }

    fn lose(&mut self, reading: &Reading, why: &Error) {
        tracing::debug!(queue = reading.queue(), error = %why, "the dead-letter queue cannot be read now");
        reading.flight().detach(why);
        self.pause = Some(Instant::now() + self.backoff.delay(fastrand::f64()));
        self.backoff.failed();
        if std::mem::replace(&mut self.up, false) {
            self.events.push_back(Event::State(Link::Down { why: why.clone() }));
        }
    }
}

async fn open(reading: Arc<Reading>) -> Result<Channel> {
    let open = async { reading.shared.incoming.session(reading.by()).await?.channel().await };
    timeout(reading.shared.patience(), open).await.unwrap_or_else(|_| Err(error::timeout()))
}

fn ask(reading: &Reading, channel: Channel) -> Result<Stage> {
    let queue = short(reading.queue())?;
    let answer = async move { channel.basic_get(queue, BasicGetOptions::default()).await };
    Ok(Stage::Asking { answer: answer.boxed(), by: reading.by() })
}

#[async_trait]
impl Consumer for LetterConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        self.reader.lock().await.receive(&self.reading, out, limit.max(1)).await
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        settle::settle(&self.reading, batch, out).await;
    }

    async fn extend(&self, tokens: &[AckToken], _by: Duration, out: &mut Vec<Result<()>>) {
        let mut flight = self.reading.flight();
        out.extend(tokens.iter().map(|token| flight.get(*token).map(drop)));
    }

    async fn set_prefetch(&self, prefetch: u16) {
        // Nothing is underway: letters are asked for one by one.
        self.reading.flight().set_prefetch(usize::from(prefetch).min(self.reading.prefetch));
        self.reading.wake.notify_one();
    }

    async fn close(&self) -> Result<()> {
        if !self.reading.close() {
            return Ok(());
        }
        if let Ok(mut reader) = timeout(INTAKE, self.reader.lock()).await {
            reader.stage = Stage::Idle;
        }
        finish(&self.reading).await;
        Ok(())
    }
}

impl fmt::Debug for LetterConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LetterConsumer")
            .field("queue", &self.reading.queue())
            .finish_non_exhaustive()
    }
}
