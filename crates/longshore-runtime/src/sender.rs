use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use longshore_core::{
    Confirms, Error, ErrorKind, HeaderName, Message, MessageId, Outcome, Publisher, Receipt,
    Result, TopicName,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::client::ClientOptions;

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
    window: Arc<Semaphore>,
    size: u32,
    patience: Duration,
}

impl Sender {
    pub(crate) fn new(
        publisher: Box<dyn Publisher>,
        topic: TopicName,
        backend: &'static str,
        options: &ClientOptions,
    ) -> Self {
        Self(Arc::new(Inner {
            publisher,
            topic,
            backend,
            max_body: options.max_body,
            window: Arc::new(Semaphore::new(options.window as usize)),
            size: options.window,
            patience: options.publish_timeout,
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
        match self.take(message.into()).await {
            Ok((confirms, permit)) => Pending(State::Sent { confirms, permit: Some(permit) }),
            Err(error) => Pending(State::Failed(Some(error))),
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
                    chunk.finish(&mut outcomes).await;
                }
            }
            if !batch.is_empty() {
                next.sent = self.send_batch(batch).await.map(Some);
            }
            if let Some(chunk) = before.replace(next) {
                chunk.finish(&mut outcomes).await;
            }
        }
        if let Some(chunk) = before {
            chunk.finish(&mut outcomes).await;
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

    async fn take(&self, message: Message) -> Result<(Confirms, OwnedSemaphorePermit)> {
        let message = self.prepare(message)?;
        let permit = self.permits(1).await?;
        let confirms = self.publish(&mut vec![message]).await?;
        Ok((confirms, permit))
    }

    fn chunk(&self, messages: impl Iterator<Item = Message>) -> (Chunk, Vec<Message>) {
        let mut chunk = Chunk { failed: Vec::new(), taken: 0, sent: Ok(None) };
        let mut batch = Vec::new();
        for (place, message) in messages.enumerate() {
            chunk.taken += 1;
            match self.prepare(message) {
                Ok(message) => batch.push(message),
                Err(error) => chunk.failed.push((place, error)),
            }
        }
        (chunk, batch)
    }

    async fn send_batch(
        &self,
        mut batch: Vec<Message>,
    ) -> Result<(Confirms, OwnedSemaphorePermit)> {
        let count = u32::try_from(batch.len()).expect("a chunk is at most a window");
        let permit = self.permits(count).await?;
        Ok((self.publish(&mut batch).await?, permit))
    }

    /// Puts facts where they are missing and strips what is not the user's to set.
    fn prepare(&self, mut message: Message) -> Result<Message> {
        message.headers.retain(|name: &HeaderName| !name.is_reserved());
        message.check(self.0.max_body).map_err(|error| self.told(error))?;
        message.id.get_or_insert_with(MessageId::generate);
        Ok(message)
    }

    async fn permits(&self, count: u32) -> Result<OwnedSemaphorePermit> {
        // The usual case costs no timer.
        if let Ok(permit) = self.0.window.clone().try_acquire_many_owned(count) {
            return Ok(permit);
        }
        let wait = self.0.window.clone().acquire_many_owned(count);
        match tokio::time::timeout(self.0.patience, wait).await {
            Ok(permit) => permit.map_err(|_| self.told(Error::closed("sender"))),
            Err(_) => Err(self.told(Error::new(
                ErrorKind::Backpressure,
                format!("the window of {} unconfirmed messages stayed full", self.0.size),
            ))),
        }
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

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("topic", &self.0.topic)
            .field("backend", &self.0.backend)
            .finish_non_exhaustive()
    }
}

/// Part of a `send_all`: what was refused here, and what is on its way.
struct Chunk {
    failed: Vec<(usize, Error)>,
    taken: usize,
    sent: Result<Option<(Confirms, OwnedSemaphorePermit)>>,
}

impl Chunk {
    async fn finish(self, outcomes: &mut Vec<Result<Receipt>>) {
        let mut failed = self.failed.into_iter().peekable();
        let (mut confirmed, error) = match self.sent {
            Ok(Some((confirms, _permit))) => (confirms.await.into_iter(), None),
            Ok(None) => (Vec::new().into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        for place in 0..self.taken {
            let outcome = match failed.next_if(|(at, _)| *at == place) {
                Some((_, refused)) => Err(refused),
                None => confirmed
                    .next()
                    .unwrap_or_else(|| Err(error.clone().unwrap_or_else(|| missing("send_all")))),
            };
            outcomes.push(outcome);
        }
    }
}

/// A message on its way: resolves to its receipt. Dropping it does not take the message back.
#[derive(Debug)]
#[must_use = "a receipt that nobody awaits is a message that may be lost unnoticed"]
pub struct Pending(State);

#[derive(Debug)]
enum State {
    Sent { confirms: Confirms, permit: Option<OwnedSemaphorePermit> },
    Failed(Option<Error>),
}

impl Future for Pending {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Sent { confirms, permit } => confirms.poll_one(cx).map(|outcome| {
                permit.take();
                outcome.unwrap_or_else(|| Err(missing("send")))
            }),
            State::Failed(error) => {
                Poll::Ready(Err(error.take().unwrap_or_else(|| missing("send"))))
            }
        }
    }
}

/// A backend gave fewer outcomes than messages, which its contract forbids.
fn missing(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, "the backend gave no outcome for this message")
        .with_operation(operation)
        .with_outcome(Outcome::Unknown)
}
