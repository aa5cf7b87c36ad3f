//! Delayed NAKs, in bursts.
//!
//! nats-server looks at the delays of a consumer ten milliseconds after its last delayed NAK
//! (`processNak` in its `server/consumer.go`). A group that fails more than a hundred messages a
//! second would get none of its retries, nor what a crash left, until it stops failing. So a NAK
//! that comes soon after another waits for the next burst.
//!
//! The settlement is answered before: the record in the ledger has the retry and its time. Where
//! this process dies with the NAK unsent, the lease brings the message back, and the record keeps
//! it until its time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use longshore_core::AckToken;
use tokio::time::{Instant, sleep_until};

use crate::ack::{self, Order};
use crate::consumer::Inner;

/// Between two bursts: the server's ten milliseconds, and time to send what is due.
const GAP: Duration = Duration::from_millis(25);
/// The shortest delay: none would be no delayed NAK.
const SHORTEST: Duration = Duration::from_millis(1);

/// What waits for the next burst of one consumer.
#[derive(Debug, Default)]
pub(crate) struct Naks {
    state: Mutex<State>,
    /// One burst at a time: the end of a consumer waits for the one that is under way.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    waiting: Vec<Waiting>,
    /// A task sends them.
    sending: bool,
}

/// A delivery that goes back to the group, and when its message is due.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    token: AckToken,
    due: Instant,
}

impl Naks {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether delayed NAKs may be sent now; then they are the burst.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        let quiet = state.last.is_none_or(|last| now.duration_since(last) >= GAP);
        let free = quiet && !state.sending;
        if free {
            state.last = Some(now);
        }
        free
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.state().waiting)
    }
}

/// Leaves them to the next burst.
pub(crate) fn later(inner: &Arc<Inner>, naks: impl IntoIterator<Item = (AckToken, Duration)>) {
    let now = Instant::now();
    let naks: Vec<_> =
        naks.into_iter().map(|(token, after)| Waiting { token, due: now + after }).collect();
    {
        let mut flight = inner.flight();
        naks.iter().for_each(|one| flight.wait(one.token));
    }
    let mut state = inner.naks.state();
    state.waiting.extend(naks);
    if !state.waiting.is_empty() && !std::mem::replace(&mut state.sending, true) {
        tokio::spawn(send_all(inner.clone()));
    }
}

async fn send_all(inner: Arc<Inner>) {
    loop {
        let next = inner.naks.state().last.map_or_else(Instant::now, |last| last + GAP);
        sleep_until(next).await;
        let _turn = inner.naks.turn.lock().await;
        let burst = {
            let mut state = inner.naks.state();
            if state.waiting.is_empty() {
                state.sending = false;
                return;
            }
            state.last = Some(Instant::now());
            std::mem::take(&mut state.waiting)
        };
        let unsent = send(&inner, burst).await;
        // Until the lease is over: then it is the server that gives it back.
        inner.naks.state().waiting.extend(unsent);
    }
}

/// Gives those that the server did not confirm.
async fn send(inner: &Inner, burst: Vec<Waiting>) -> Vec<Waiting> {
    let now = Instant::now();
    let mut sent = Vec::with_capacity(burst.len());
    let mut orders: Vec<(Subject, Order)> = Vec::with_capacity(burst.len());
    {
        let mut flight = inner.flight();
        for one in burst {
            // Gone with the group's consumer, or its lease is over.
            let Some(reply) = flight.leave(one.token, now) else { continue };
            let rest = one.due.saturating_duration_since(now).max(SHORTEST);
            orders.push((reply, Order::Nak(rest)));
            sent.push(one);
        }
    }
    let confirmed = ack::send(&inner.shared, orders).await;
    let mut flight = inner.flight();
    let unsent = match confirmed {
        Ok(()) => {
            sent.iter().for_each(|one| flight.remove(one.token));
            Vec::new()
        }
        Err(error) => {
            tracing::debug!(%error, "retries wait for the next burst, or for the end of their lease");
            sent.retain(|one| !flight.came_back(one.token));
            sent.iter().for_each(|one| flight.wait(one.token));
            inner.suspicion.notify_one();
            sent
        }
    };
    drop(flight);
    inner.wake.notify_one();
    unsent
}

/// Sends what waits, once, at the end of a consumer.
pub(crate) async fn end(inner: &Inner) {
    let _turn = inner.naks.turn.lock().await;
    let left = send(inner, inner.naks.take()).await;
    let mut flight = inner.flight();
    // Not given back at once with the others: their lease keeps them longer than their delay, or
    // their record does.
    left.iter().for_each(|one| flight.remove(one.token));
}
