//! What is on its way: a message, or a part of a batch.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use longshore_core::{Confirms, Error, ErrorKind, Outcome, Receipt, Result};
use tracing::Span;

use super::Inner;
use crate::observe;

/// Places in the window, given back when it is dropped.
pub(super) struct Slot {
    inner: Arc<Inner>,
    count: u32,
    since: Instant,
}

impl Slot {
    /// For places that were taken out of the window.
    pub(super) fn new(inner: Arc<Inner>, count: u32) -> Self {
        inner.meters.taken(count);
        Self { inner, count, since: Instant::now() }
    }

    pub(super) fn heard(&self, outcome: &Result<Receipt>) {
        self.inner.heard(outcome, Some(self.took()));
    }

    fn took(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner.window.add_permits(self.count as usize);
        self.inner.meters.gone(self.count);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("count", &self.count).finish_non_exhaustive()
    }
}

/// A message on its way: resolves to its receipt. Dropping it does not take the message back.
#[derive(Debug)]
#[must_use = "a receipt that nobody awaits is a message that may be lost unnoticed"]
pub struct Pending(State);

#[derive(Debug)]
enum State {
    Sent { confirms: Confirms, slot: Option<Slot>, span: Span },
    Failed(Option<Error>),
}

impl Pending {
    pub(super) fn sent(confirms: Confirms, slot: Slot, span: Span) -> Self {
        Self(State::Sent { confirms, slot: Some(slot), span })
    }

    pub(super) fn failed(error: Error) -> Self {
        Self(State::Failed(Some(error)))
    }
}

impl Future for Pending {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Sent { confirms, slot, span } => {
                let Poll::Ready(outcome) = confirms.poll_one(cx) else {
                    return Poll::Pending;
                };
                let outcome = outcome.unwrap_or_else(|| Err(missing("send")));
                if let Some(slot) = slot.take() {
                    slot.heard(&outcome);
                }
                observe::sent(span, &outcome);
                Poll::Ready(outcome)
            }
            State::Failed(error) => {
                Poll::Ready(Err(error.take().unwrap_or_else(|| missing("send"))))
            }
        }
    }
}

/// Part of a `send_all`: what was refused here, and what is on its way.
pub(super) struct Chunk {
    pub(super) failed: Vec<(usize, Error)>,
    pub(super) taken: usize,
    pub(super) sent: Result<Option<(Confirms, Slot)>>,
    pub(super) span: Span,
}

impl Chunk {
    pub(super) async fn finish(self, inner: &Inner, outcomes: &mut Vec<Result<Receipt>>) {
        let mut failed = self.failed.into_iter().peekable();
        let (mut confirmed, slot, error) = match self.sent {
            Ok(Some((confirms, slot))) => (confirms.await.into_iter(), Some(slot), None),
            Ok(None) => (Vec::new().into_iter(), None, None),
            Err(error) => (Vec::new().into_iter(), None, Some(error)),
        };
        // One look at the clock for all that were heard of together.
        let took = slot.as_ref().map(Slot::took);
        for place in 0..self.taken {
            let (outcome, took) = match failed.next_if(|(at, _)| *at == place) {
                Some((_, refused)) => (Err(refused), None),
                None => {
                    let missing = || Err(error.clone().unwrap_or_else(|| missing("send_all")));
                    (confirmed.next().unwrap_or_else(missing), took)
                }
            };
            inner.heard(&outcome, took);
            if outcome.is_err() {
                observe::sent(&self.span, &outcome);
            }
            outcomes.push(outcome);
        }
    }
}

/// A backend gave fewer outcomes than messages, which its contract forbids.
fn missing(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, "the backend gave no outcome for this message")
        .with_operation(operation)
        .with_outcome(Outcome::Unknown)
}
