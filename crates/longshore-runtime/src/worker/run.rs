//! One handler run as a future: panics caught, cancellable, never lost.

use std::any::Any;
use std::future::{Future, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures::future::BoxFuture;
use longshore_core::{Failure, Received};
use tracing::Span;

use crate::context::{Cell, Context};
use crate::engine::{Ended, Key};
use crate::handler::{AnyHandler, Handled};
use crate::observe;

/// Resolves to how the run ended, whatever the handler does.
pub(super) struct Run {
    key: Key,
    cell: Arc<Cell>,
    turn: u64,
    handled: Option<BoxFuture<'static, Handled>>,
    span: Span,
}

impl Run {
    pub(super) fn new(
        (key, cell, turn): (Key, Arc<Cell>, u64),
        handler: &AnyHandler,
        received: Received,
        context: Context,
        span: Span,
    ) -> Self {
        let entered = span.enter();
        // A closure may panic before it has made its future.
        let call = AssertUnwindSafe(|| handler.call(received, context));
        let handled = catch_unwind(call)
            .unwrap_or_else(|panic| Box::pin(ready(Err(Failure::panicked(text(&*panic))))));
        drop(entered);
        Self { key, cell, turn, handled: Some(handled), span }
    }

    fn advance(&mut self, cx: &mut TaskContext<'_>) -> Poll<Handled> {
        match &mut self.handled {
            Some(handled) => handled.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Drops the handler's future, whose destructors may panic too.
    fn discard(&mut self) {
        let handled = self.handled.take();
        if catch_unwind(AssertUnwindSafe(|| drop(handled))).is_err() {
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
        let span = this.span.clone();
        let _entered = span.enter();
        let ended = match catch_unwind(AssertUnwindSafe(|| this.advance(cx))) {
            Ok(Poll::Ready(Ok(()))) => Ended::Ok,
            Ok(Poll::Ready(Err(failure))) => Ended::Failed(failure),
            // The handler saw its cancelled context in this poll and did not end.
            Ok(Poll::Pending) if cancelled => Ended::Cancelled,
            Ok(Poll::Pending) => return Poll::Pending,
            Err(panic) => Ended::Failed(Failure::panicked(text(&*panic))),
        };
        this.discard();
        observe::ended(&span, &ended);
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
