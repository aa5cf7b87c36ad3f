//! A shard runs its share of the lane's handlers on one task, so that a slow or blocking handler
//! stalls no more than its share.

use std::sync::Arc;
use std::task::{self, Poll, Waker};

use futures::{FutureExt, StreamExt};
use futures_buffered::FuturesUnorderedBounded;
use tokio_util::sync::CancellationToken;

use super::run::Run;
use super::shared::Shared;
use crate::context::{Context, Shared as Facts};
use crate::engine::Input;
use crate::handler::AnyHandler;
use crate::observe;

/// Ends are handed to the engine in batches: one lock for many messages.
const BATCH: usize = 64;

/// Runs handlers until `closed`, which comes only when the lane holds nothing.
pub(super) async fn run(
    lane: Arc<Shared>,
    index: usize,
    share: usize,
    handler: AnyHandler,
    facts: Arc<Facts>,
    closed: CancellationToken,
) {
    let mut running = FuturesUnorderedBounded::new(share);
    let mut starts = Vec::with_capacity(share);
    let mut ended = Vec::with_capacity(BATCH + share);
    loop {
        lane.take_starts(share - running.len(), &mut starts);
        for (start, cell, turn) in starts.drain(..) {
            let (attempt, deliveries) = (start.attempt, start.received.deliveries);
            let context = Context::new(facts.clone(), cell.clone(), turn, attempt, deliveries);
            let backend = facts.client.info().name;
            let span = observe::process(backend, facts.group.as_str(), &start.received, attempt);
            let run = (start.key, cell, turn);
            let mut run = Run::new(run, &handler, start.received, context, span);
            // A handler that never waits needs no place among those that do. The others are polled
            // again there, with a waker that wakes.
            match run.poll_unpin(&mut task::Context::from_waker(Waker::noop())) {
                Poll::Ready((key, end)) => ended.push(Input::Ended { key, ended: end }),
                Poll::Pending => running.push(run),
            }
        }
        while ended.len() < BATCH
            && let Some(Some((key, end))) = running.next().now_or_never()
        {
            ended.push(Input::Ended { key, ended: end });
        }
        if !ended.is_empty() {
            lane.step(ended.drain(..));
            // Handlers that never wait would otherwise keep the thread from the lane's loop.
            tokio::task::consume_budget().await;
            continue;
        }
        tokio::select! {
            Some((key, end)) = running.next(), if !running.is_empty() => {
                ended.push(Input::Ended { key, ended: end });
            }
            () = lane.shards[index].notified() => {}
            () = closed.cancelled() => return,
        }
    }
}
