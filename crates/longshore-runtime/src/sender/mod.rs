//! The outgoing side.

mod pending;

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_core::{
    Confirms, Error, ErrorKind, HeaderName, Message, MessageId, Outcome, Publisher, Receipt,
    Result, TopicName,
};
use tokio::sync::Semaphore;
use tracing::Span;

pub use pending::Pending;
use pending::{Chunk, Slot};

use crate::client::ClientOptions;
use crate::observe::{self, Alarm, AlarmKind, Bell, SenderMeters};

/// The outgoing side of one topic. Cheap to clone: clones share the window and the order.
///
/// A message is confirmed or it is an error; there is no third. Every message has an id: assigned
/// if absent (time-ordered), kept if given.
#[derive(Clone)]
pub struct Sender(Arc<Inner>);

struct Inner {
    publisher: Box<dyn Publisher>,
    topic: TopicName,
    backend: &'static str,
    max_body: usize,
    window: Semaphore,
    size: u32,
    patience: Duration,
    meters: SenderMeters,
    bell: Bell,
    /// The alarm that stands, by its place among all, from 1: it rings when it begins, not for each
    /// message.
    standing: AtomicU8,
    /// The list of a batch of one, for the next one.
    spare: Mutex<Vec<Message>>,
}

impl Sender {
    pub(crate) fn new(
        publisher: Box<dyn Publisher>,
        topic: TopicName,
        backend: &'static str,
        options: &ClientOptions,
        bell: Bell,
    ) -> Self {
        let meters = SenderMeters::new(backend, topic.as_str());
        Self(Arc::new(Inner {
            publisher,
            topic,
            backend,
            max_body: options.max_body,
            window: Semaphore::new(options.window as usize),
            size: options.window,
            patience: options.publish_timeout,
            meters,
            bell,
            standing: AtomicU8::new(0),
            spare: Mutex::default(),
        }))
    }

    /// Sends one message and waits until it is confirmed.
    ///
    /// # Errors
    /// [`Error::outcome`] says what is known of the message: `NotSent`, `Refused`, or `Unknown`.
    /// After `Unknown`, send it again **with the same id** ([`Message::id`]), so that a copy is
    /// recognisable.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the message may or may not be sent, never in part; the sender
    /// stays usable.
    pub async fn send(&self, message: impl Into<Message>) -> Result<Receipt> {
        self.queue(message).await.await
    }

    /// Puts one message on its way and returns once it has its place in the order: await the
    /// [`Pending`] later for its receipt. Waits while the window is full.
    ///
    /// # Cancel safety
    /// As [`Sender::send`].
    pub async fn queue(&self, message: impl Into<Message>) -> Pending {
        let span = observe::send(self.0.backend, self.0.topic.as_str(), 1);
        match self.take(message.into(), &span).await {
            Ok((confirms, slot)) => Pending::sent(confirms, slot, span),
            Err(error) => {
                let outcome = Err(error.clone());
                self.0.heard(&outcome, None);
                observe::sent(&span, &outcome);
                Pending::failed(error)
            }
        }
    }

    /// Sends many, pipelined: one outcome each, in order.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, a prefix may be sent.
    pub async fn send_all<M: Into<Message>>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Vec<Result<Receipt>> {
        let mut outcomes = Vec::new();
        let mut messages = messages.into_iter().map(Into::into).peekable();
        // A chunk is on its way while the next is made ready: half a window each.
        let size = (self.0.size as usize / 2).max(1);
        let mut before: Option<Chunk> = None;
        while messages.peek().is_some() {
            let (mut next, batch) = self.chunk(messages.by_ref().take(size));
            if self.0.window.available_permits() < batch.len() {
                // Never holds a part of the window while it waits for more: two that did, on clones
                // of one sender, would wait for each other.
                if let Some(chunk) = before.take() {
                    chunk.finish(&self.0, &mut outcomes).await;
                }
            }
            if !batch.is_empty() {
                next.sent = self.send_batch(batch).await.map(Some);
            }
            if let Some(chunk) = before.replace(next) {
                chunk.finish(&self.0, &mut outcomes).await;
            }
        }
        if let Some(chunk) = before {
            chunk.finish(&self.0, &mut outcomes).await;
        }
        outcomes
    }

    /// Waits for what is in flight, then closes. Idempotent; later sends get `Closed`.
    ///
    /// # Errors
    /// Whatever the backend meets; what was confirmed stays confirmed.
    pub async fn close(&self) -> Result<()> {
        self.0.publisher.close().await
    }

    /// The topic, with the client's tenant.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.0.topic
    }

    async fn take(&self, message: Message, span: &Span) -> Result<(Confirms, Slot)> {
        let message = self.prepare(message, span)?;
        let slot = self.slot(1).await?;
        let mut batch = self.0.spare();
        batch.push(message);
        let confirms = self.publish(&mut batch).await;
        // What a refused call left in it is not sent later.
        batch.clear();
        self.0.keep(batch);
        Ok((confirms?, slot))
    }

    fn chunk(&self, messages: impl Iterator<Item = Message>) -> (Chunk, Vec<Message>) {
        let count = messages.size_hint().1.unwrap_or_default();
        let span = observe::send(self.0.backend, self.0.topic.as_str(), count);
        let mut chunk = Chunk { failed: Vec::new(), taken: 0, sent: Ok(None), span };
        let mut batch = Vec::new();
        for (place, message) in messages.enumerate() {
            chunk.taken += 1;
            match self.prepare(message, &chunk.span) {
                Ok(message) => batch.push(message),
                Err(error) => chunk.failed.push((place, error)),
            }
        }
        (chunk, batch)
    }

    async fn send_batch(&self, mut batch: Vec<Message>) -> Result<(Confirms, Slot)> {
        let count = u32::try_from(batch.len()).expect("a chunk is at most a window");
        let slot = self.slot(count).await?;
        Ok((self.publish(&mut batch).await?, slot))
    }

    /// Puts facts where they are missing and strips what is not the user's to set.
    fn prepare(&self, mut message: Message, span: &Span) -> Result<Message> {
        message.headers.retain(|name: &HeaderName| !name.is_reserved());
        message.check(self.0.max_body).map_err(|error| self.told(error))?;
        let id = message.id.get_or_insert_with(MessageId::generate);
        observe::name(span, id);
        observe::inject(span, &mut message);
        Ok(message)
    }

    async fn slot(&self, count: u32) -> Result<Slot> {
        // The usual case costs no timer.
        match self.0.window.try_acquire_many(count) {
            Ok(permit) => permit.forget(),
            Err(_) => {
                let wait = self.0.window.acquire_many(count);
                match tokio::time::timeout(self.0.patience, wait).await {
                    Ok(Ok(permit)) => permit.forget(),
                    Ok(Err(_)) => return Err(self.told(Error::closed("sender"))),
                    Err(_) => return Err(self.told(self.0.full())),
                }
            }
        }
        Ok(Slot::new(self.0.clone(), count))
    }

    async fn publish(&self, batch: &mut Vec<Message>) -> Result<Confirms> {
        self.0.publisher.publish(batch).await.map_err(|error| self.told(error))
    }

    fn told(&self, error: Error) -> Error {
        // An error of the call, not of a message: nothing was taken.
        let outcome = error.outcome().unwrap_or(Outcome::NotSent);
        error
            .with_backend(self.0.backend)
            .with_operation("sender.send")
            .with_context("topic", self.0.topic.as_str())
            .with_outcome(outcome)
    }
}

impl Inner {
    /// An empty list. Nobody waits for the one that is kept: another is made instead.
    fn spare(&self) -> Vec<Message> {
        self.spare.try_lock().map(|mut spare| std::mem::take(&mut *spare)).unwrap_or_default()
    }

    fn keep(&self, list: Vec<Message>) {
        if let Ok(mut spare) = self.spare.try_lock() {
            *spare = list;
        }
    }

    fn full(&self) -> Error {
        let message = format!("the window of {} unconfirmed messages stayed full", self.size);
        Error::new(ErrorKind::Backpressure, message)
    }

    /// Counts an outcome as its sender hears it, and rings where something begins.
    fn heard(&self, outcome: &Result<Receipt>, took: Option<Duration>) {
        self.meters.outcome(outcome, took);
        let kind = match outcome {
            Ok(_) => None,
            Err(error) => match error.kind() {
                ErrorKind::Backpressure => Some(AlarmKind::Blocked),
                ErrorKind::Unroutable => Some(AlarmKind::Unrouted),
                ErrorKind::Unauthenticated => Some(AlarmKind::CredentialsRefused),
                // Of one message: says nothing of the others.
                _ => return,
            },
        };
        let now = kind.map_or(0, |kind| kind as u8 + 1);
        // Looked at first: a store for each message would be paid by every thread.
        if self.standing.load(Ordering::Relaxed) == now
            || self.standing.swap(now, Ordering::Relaxed) == now
        {
            return;
        }
        if let (Some(kind), Err(error)) = (kind, outcome) {
            tracing::warn!(
                backend = self.backend, topic = %self.topic, %error, alarm = kind.as_str(),
                "messages cannot be sent (said once, until one is confirmed)"
            );
            self.bell.ring(Alarm {
                kind,
                backend: self.backend,
                topic: self.topic.clone(),
                group: None,
                message: "messages cannot be sent".to_owned(),
                error: Some(error.clone()),
            });
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("topic", &self.0.topic)
            .field("backend", &self.0.backend)
            .finish_non_exhaustive()
    }
}
