//! What a subscription holds: leases are extended and forgotten deliveries released by one task in
//! the background.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use longshore_core::{AckToken, Clock, Consumer, Error, ErrorKind, Result, Settlement};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Receiving;
use crate::engine::Book;

/// Shared by a subscription, its deliveries, and the keeper of their leases.
pub(super) struct Held {
    consumer: Box<dyn Consumer>,
    pub(super) book: Book,
    clock: Arc<dyn Clock>,
    lease: Option<Duration>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// When each lease began or was last extended.
    leases: HashMap<AckToken, Instant>,
    /// Dropped unsettled: to be given back.
    dropped: Vec<AckToken>,
    /// Nobody reads any more.
    closing: bool,
}

impl Held {
    /// Begins to keep leases. The task ends when nobody reads and nothing is held.
    pub(super) fn keep(
        consumer: Box<dyn Consumer>,
        book: Book,
        clock: Arc<dyn Clock>,
        lease: Option<Duration>,
    ) -> Arc<Self> {
        let state = Mutex::new(State::default());
        let held = Arc::new(Self { consumer, book, clock, lease, state, wake: Notify::new() });
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

    pub(super) fn take(&self, token: AckToken) {
        self.lock().leases.insert(token, Instant::now());
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
    pub(super) fn forgotten(&self, token: AckToken) {
        let (topic, group) = (&self.book.0.topic, &self.book.0.group);
        tracing::warn!(%topic, %group, "a delivery was dropped unsettled; it is released");
        self.lock().dropped.push(token);
        self.wake.notify_one();
    }

    /// The subscription is gone; what it had not handed out goes back.
    pub(super) fn unread(&self, tokens: impl Iterator<Item = AckToken>) {
        let mut state = self.lock();
        state.dropped.extend(tokens);
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
        let pace = self.lease.map(|lease| lease / 3);
        loop {
            self.release_dropped().await;
            {
                let state = self.lock();
                if state.closing && state.leases.is_empty() {
                    break;
                }
            }
            match pace {
                Some(pace) => {
                    if tokio::time::timeout(pace, self.wake.notified()).await.is_err() {
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
        for token in dropped {
            let settlement = Settlement::Release { token, record: None };
            if let Err(error) = self.settle(settlement).await {
                // Its lease runs out by itself: late, never lost.
                tracing::warn!(%error, "a dropped delivery could not be released");
                self.lock().leases.remove(&token);
            }
        }
    }

    async fn extend(&self) {
        let Some(lease) = self.lease else { return };
        let tokens: Vec<_> = self.lock().leases.keys().copied().collect();
        if tokens.is_empty() {
            return;
        }
        let mut results = Vec::with_capacity(tokens.len());
        let asked = Instant::now();
        self.consumer.extend(&tokens, lease, &mut results).await;
        let mut state = self.lock();
        for (token, result) in tokens.iter().zip(results) {
            match result {
                Ok(()) => {
                    if let Some(since) = state.leases.get_mut(token) {
                        *since = asked;
                    }
                }
                Err(error) => {
                    let over = state.leases.get(token).is_some_and(|at| at.elapsed() >= lease);
                    if error.kind() == ErrorKind::LeaseLost || over {
                        state.leases.remove(token);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
