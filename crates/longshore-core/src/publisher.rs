use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::{Message, MessageId, Result};

/// The outgoing side of one topic.
///
/// # Promises of every implementation
/// 1. Phase one, [`publish`](Self::publish), takes messages in order, and calls in the order of
///    their first poll. A refused message is an outcome of its own, never an error of the call.
/// 2. An `Err` of the call means that nothing was taken: the batch is as it was.
/// 3. Dropped at an await, what is left in the batch was not sent; the rest is `Unknown`.
/// 4. Phase two, [`Confirms`], gives one outcome each, in order: `Ok` only after the broker's
///    strongest configured confirmation, and only when the message was routed into storage.
/// 5. Waiting is bounded on both phases: a blocked or full broker gives `Backpressure`, a silent
///    one `Timeout`.
#[async_trait]
pub trait Publisher: Debug + Send + Sync + 'static {
    /// Takes the batch and empties it. Every message has an id.
    async fn publish(&self, batch: &mut Vec<Message>) -> Result<Confirms>;

    /// Waits for what is in flight, then closes. Idempotent; later publishes get `Closed`.
    async fn close(&self) -> Result<()>;
}

/// That a message is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id, given or assigned.
    pub id: MessageId,
    /// The broker had it already: this id was stored inside its window, and not again.
    pub duplicate: bool,
}

/// The outcomes of one batch, in order. Makes progress whether polled or not; may be dropped.
#[must_use = "a confirmation that nobody awaits is a message that may be lost unnoticed"]
pub struct Confirms(Inner);

enum Inner {
    /// Of a batch of one, which is most: no list for it.
    One(Option<Result<Receipt>>),
    Ready(Vec<Result<Receipt>>),
    Later(BoxFuture<'static, Vec<Result<Receipt>>>),
}

impl Confirms {
    /// Outcomes that are known already.
    pub fn ready(outcomes: Vec<Result<Receipt>>) -> Self {
        Self(Inner::Ready(outcomes))
    }

    /// The outcome of a batch of one, known already.
    pub fn one(outcome: Result<Receipt>) -> Self {
        Self(Inner::One(Some(outcome)))
    }

    /// Polls for the outcome of a batch of one, without making a list of it. `None` where there is
    /// no outcome: the backend gave none, or it was taken before.
    pub fn poll_one(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Receipt>>> {
        match &mut self.0 {
            Inner::One(outcome) => Poll::Ready(outcome.take()),
            Inner::Ready(outcomes) => Poll::Ready(outcomes.pop()),
            Inner::Later(future) => future.as_mut().poll(cx).map(|mut outcomes| outcomes.pop()),
        }
    }

    /// Outcomes to come. The future must not need to be polled for the messages to be sent.
    pub fn later(outcomes: impl Future<Output = Vec<Result<Receipt>>> + Send + 'static) -> Self {
        Self(Inner::Later(Box::pin(outcomes)))
    }
}

impl Future for Confirms {
    type Output = Vec<Result<Receipt>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::One(outcome) => Poll::Ready(outcome.take().into_iter().collect()),
            Inner::Ready(outcomes) => Poll::Ready(std::mem::take(outcomes)),
            Inner::Later(future) => future.as_mut().poll(cx),
        }
    }
}

impl Debug for Confirms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::One(outcome) => f.debug_tuple("Confirms::One").field(outcome).finish(),
            Inner::Ready(outcomes) => f.debug_tuple("Confirms::Ready").field(outcomes).finish(),
            Inner::Later(_) => f.write_str("Confirms::Later"),
        }
    }
}
