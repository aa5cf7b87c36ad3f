use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::task::AtomicWaker;
use longshore_core::{GroupName, Result, TopicName};
use tokio::sync::Notify;

use crate::client::Client;
use crate::sender::Sender;

/// What a handler may know of its run, beside the message. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    turn: u64,
    attempt: u32,
    deliveries: u32,
}

/// What all runs of one worker share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) topic: TopicName,
    pub(crate) group: GroupName,
    pub(crate) state: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        cell: Arc<Cell>,
        turn: u64,
        attempt: u32,
        deliveries: u32,
    ) -> Self {
        Self { shared, cell, turn, attempt, deliveries }
    }

    /// The number of this run: one more than the failures before it.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Every hand-over so far, crashes and lost connections included.
    #[must_use]
    pub fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// The topic, without the client's tenant.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.shared.topic
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.shared.group
    }

    /// What [`WorkerBuilder::state`](crate::WorkerBuilder::state) was given under this type.
    #[must_use]
    pub fn state<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.shared.state.get(&TypeId::of::<T>()).and_then(|state| state.downcast_ref())
    }

    /// The client, for publishing onward and whatever else.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Opens a sender. Opening costs a round trip on some brokers: keep one in the worker's
    /// [`state`](Self::state) where many runs publish.
    ///
    /// # Errors
    /// As [`Client::sender`].
    pub async fn sender(
        &self,
        topic: impl TryInto<TopicName, Error = longshore_core::Error>,
    ) -> Result<Sender> {
        self.shared.client.sender(topic).await
    }

    /// Whether the run was cancelled: it exceeded its time, lost its lease, or the drain budget is
    /// spent. True also once the run is over.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cell.is_cancelled(self.turn)
    }

    /// Resolves when the run is cancelled. The handler is polled once more then, and dropped at its
    /// next await.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn cancelled(&self) {
        loop {
            let notified = self.cell.watchers.notified();
            tokio::pin!(notified);
            // Listening before looking: a cancellation in between is not missed.
            notified.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("topic", &self.shared.topic)
            .field("group", &self.shared.group)
            .field("attempt", &self.attempt)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

/// The cancellation of one place in the engine's table, used again run after run: a turn tells a
/// context that outlived its run.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// Twice the turn, plus one where it is cancelled.
    state: AtomicU64,
    run: AtomicWaker,
    watchers: Notify,
}

impl Cell {
    /// Begins the next turn.
    pub(crate) fn begin(&self) -> u64 {
        let turn = (self.state.load(Ordering::Acquire) >> 1) + 1;
        self.state.store(turn << 1, Ordering::Release);
        self.watchers.notify_waiters();
        turn
    }

    /// Cancels the present turn.
    pub(crate) fn cancel(&self) {
        self.state.fetch_or(1, Ordering::AcqRel);
        self.run.wake();
        self.watchers.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self, turn: u64) -> bool {
        self.state.load(Ordering::Acquire) != turn << 1
    }

    /// The run's task is woken when its turn is cancelled.
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.run.register(waker);
    }
}
