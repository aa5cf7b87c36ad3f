//! What a subscription holds: leases are extended and forgotten deliveries released by one task in
//! the background.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use longshore_core::{
    AckToken, Clock, Consumer, Error, ErrorKind, MessageId, Received, Result, Settlement,
};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Receiving;
use crate::engine::Book;

/// Shared by a subscription, its deliveries, and the keeper of their leases.
pub(super) struct Held {
    consumer: Box<dyn Consumer>,
    pub(super) book: Book,
    clock: Arc<dyn Clock>,
    /// Whether the broker counts a release as a delivery.
    counted: bool,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    leases: HashMap<AckToken, Option<Lease>>,
    /// Dropped unsettled: to be given back.
    dropped: Vec<Settlement>,
    /// Nobody reads any more.
    closing: bool,
}

/// The lease of one delivery; absent where the connection is the lease.
struct Lease {
    length: Duration,
    /// When it is over by our own clock.
    until: Instant,
    /// When it is to be extended.
    next: Instant,
}

impl Lease {
    fn new(length: Duration, now: Instant) -> Self {
        Self { length, until: now + length, next: now + length / 3 }
    }
}

impl State {
    fn next_extension(&self) -> Option<Instant> {
        self.leases.values().flatten().map(|lease| lease.next).min()
    }
}

impl Held {
    /// Begins to keep leases. The task ends when nobody reads and nothing is held.
    pub(super) fn keep(
        consumer: Box<dyn Consumer>,
        book: Book,
        clock: Arc<dyn Clock>,
        counted: bool,
    ) -> Arc<Self> {
        let state = Mutex::new(State::default());
        let held = Arc::new(Self { consumer, book, clock, counted, state, wake: Notify::new() });
        tokio::spawn(held.clone().keeper());
        held
    }

    pub(super) fn receive(self: Arc<Self>, limit: usize) -> Receiving {
        Box::pin(async move {
            let mut events = Vec::new();
            let result = self.consumer.receive(&mut events, limit).await;
            (events, result)
        })
    }

    pub(super) fn take(&self, received: &Received) {
        let lease = received.lease.map(|length| Lease::new(length, Instant::now()));
        self.lock().leases.insert(received.token, lease);
        // The keeper's pace is that of the shortest lease.
        self.wake.notify_one();
    }

    /// The order to give a delivery back: where the broker counts releases, one that was redelivered
    /// gets its return explained.
    pub(super) fn release(&self, received: &Received) -> Settlement {
        let explained = self.counted && received.deliveries > 1;
        let record = explained.then(|| {
            let mut record = self.book.open(received, MessageId::generate);
            record.explained = record.explained.saturating_add(1);
            record
        });
        Settlement::Release { token: received.token, record }
    }

    pub(super) fn holds(&self, token: AckToken) -> bool {
        self.lock().leases.contains_key(&token)
    }

    pub(super) fn lost(&self, epoch: u32) {
        self.lock().leases.retain(|token, _| token.epoch != epoch);
    }

    /// Executes one settlement. `LeaseLost` without asking where the lease is known to be lost.
    pub(super) async fn settle(&self, settlement: Settlement) -> Result<()> {
        let token = settlement.token();
        if !self.holds(token) {
            return Err(Error::lease_lost());
        }
        let mut results = Vec::with_capacity(1);
        self.consumer.settle(&[settlement], &mut results).await;
        let result = results.pop().unwrap_or_else(|| {
            Err(Error::new(ErrorKind::Unexpected, "the backend gave no result for a settlement"))
        });
        let gone = match &result {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::LeaseLost,
        };
        if gone {
            self.lock().leases.remove(&token);
            self.wake.notify_one();
        }
        result
    }

    /// A delivery was dropped unsettled.
    pub(super) fn forgotten(&self, received: &Received) {
        let (topic, group) = (&self.book.0.topic, &self.book.0.group);
        tracing::warn!(%topic, %group, "a delivery was dropped unsettled; it is released");
        self.lock().dropped.push(self.release(received));
        self.wake.notify_one();
    }

    /// The subscription is gone; what it had not handed out goes back.
    pub(super) fn unread(&self, unread: impl Iterator<Item = Received>) {
        let mut state = self.lock();
        state.dropped.extend(unread.map(|received| self.release(&received)));
        state.closing = true;
        drop(state);
        self.wake.notify_one();
    }

    pub(super) async fn close(&self) -> Result<()> {
        {
            let mut state = self.lock();
            state.leases.clear();
            state.closing = true;
        }
        self.wake.notify_one();
        self.consumer.close().await
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    async fn keeper(self: Arc<Self>) {
        loop {
            self.release_dropped().await;
            let next = {
                let state = self.lock();
                if state.closing && state.leases.is_empty() {
                    break;
                }
                state.next_extension()
            };
            match next {
                Some(at) => {
                    if timeout_at(at, self.wake.notified()).await.is_err() {
                        self.extend().await;
                    }
                }
                None => self.wake.notified().await,
            }
        }
        if let Err(error) = self.consumer.close().await {
            tracing::warn!(%error, "a subscription did not close cleanly");
        }
    }

    async fn release_dropped(&self) {
        let dropped = std::mem::take(&mut self.lock().dropped);
        for settlement in dropped {
            let token = settlement.token();
            if let Err(error) = self.settle(settlement).await {
                // Its lease runs out by itself: late, never lost.
                tracing::warn!(%error, "a dropped delivery could not be released");
                self.lock().leases.remove(&token);
            }
        }
    }

    /// Extends what is due, and forgets what is lost.
    async fn extend(&self) {
        let now = Instant::now();
        let due: Vec<_> = {
            let state = self.lock();
            let leases = state.leases.iter();
            let due = leases.filter_map(|(token, lease)| Some((*token, lease.as_ref()?)));
            due.filter(|(_, lease)| lease.next <= now).map(|(t, lease)| (t, lease.length)).collect()
        };
        let Some(by) = due.iter().map(|(_, length)| *length).min() else { return };
        let tokens: Vec<_> = due.into_iter().map(|(token, _)| token).collect();
        let mut results = Vec::with_capacity(tokens.len());
        self.consumer.extend(&tokens, by, &mut results).await;
        let mut state = self.lock();
        for (token, result) in tokens.iter().zip(results) {
            let Some(Some(lease)) = state.leases.get_mut(token) else { continue };
            match result {
                Ok(()) => *lease = Lease::new(by, now),
                Err(error) if error.kind() == ErrorKind::LeaseLost || lease.until <= now => {
                    state.leases.remove(token);
                }
                // Tried again soon, until it is over by our own clock.
                Err(_) => lease.next = now + by / 6,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
