//! One handler run as a future: panics caught, cancellable, never lost.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures::future::BoxFuture;
use longshore_core::{Failure, Received};

use crate::context::{Cell, Context};
use crate::engine::{Ended, Key};
use crate::handler::{AnyHandler, Handled};

/// Resolves to how the run ended, whatever the handler does.
pub(super) struct Run {
    key: Key,
    cell: Arc<Cell>,
    turn: u64,
    stage: Stage,
}

enum Stage {
    /// The handler is called at the first poll: a closure may panic before its first await.
    New(Option<(AnyHandler, Received, Context)>),
    Started(BoxFuture<'static, Handled>),
    Over,
}

impl Run {
    pub(super) fn new(
        key: Key,
        cell: Arc<Cell>,
        turn: u64,
        handler: AnyHandler,
        received: Received,
        context: Context,
    ) -> Self {
        Self { key, cell, turn, stage: Stage::New(Some((handler, received, context))) }
    }

    fn advance(&mut self, cx: &mut TaskContext<'_>) -> Poll<Handled> {
        if let Stage::New(arguments) = &mut self.stage
            && let Some((handler, received, context)) = arguments.take()
        {
            self.stage = Stage::Started(handler.call(received, context));
        }
        match &mut self.stage {
            Stage::Started(future) => future.as_mut().poll(cx),
            Stage::New(_) | Stage::Over => Poll::Pending,
        }
    }

    /// Drops the handler's future, whose destructors may panic too.
    fn discard(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if catch_unwind(AssertUnwindSafe(|| drop(stage))).is_err() {
            tracing::warn!("a handler panicked while it was dropped");
        }
    }
}

impl Future for Run {
    type Output = (Key, Ended);

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Before looking, so that a cancellation in between wakes us again.
        this.cell.register(cx.waker());
        let cancelled = this.cell.is_cancelled(this.turn);
        let ended = match catch_unwind(AssertUnwindSafe(|| this.advance(cx))) {
            Ok(Poll::Ready(Ok(()))) => Ended::Ok,
            Ok(Poll::Ready(Err(failure))) => Ended::Failed(failure),
            // The handler saw its cancelled context in this poll and did not end.
            Ok(Poll::Pending) if cancelled => Ended::Cancelled,
            Ok(Poll::Pending) => return Poll::Pending,
            Err(panic) => Ended::Failed(Failure::panicked(text(&*panic))),
        };
        this.discard();
        Poll::Ready((this.key, ended))
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
