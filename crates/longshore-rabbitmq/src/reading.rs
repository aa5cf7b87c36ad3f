//! What the parts of one consumer share: which queue it reads, and what it holds of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use longshore_core::{Error, ErrorKind, Result, Source};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{self, closed, no_group};
use crate::flight::Flight;
use crate::names::{GroupNames, short};
use crate::shared::Shared;

/// The count of a queue follows within milliseconds; somebody else has taken what it does not show
/// then.
const SHOWN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Group,
    Suspects,
    Letters,
}

pub(crate) struct Reading {
    pub(crate) shared: Arc<Shared>,
    pub(crate) names: GroupNames,
    pub(crate) kind: Kind,
    /// The most unsettled deliveries that were ever asked for.
    pub(crate) prefetch: usize,
    flight: Mutex<Flight>,
    /// Something was settled, lost or ended.
    pub(crate) wake: Notify,
    closed: AtomicBool,
    end: Mutex<Option<Error>>,
}

impl Kind {
    pub(crate) fn of(source: &Source) -> Self {
        match source {
            Source::Group { .. } => Self::Group,
            Source::Suspects { .. } => Self::Suspects,
            Source::DeadLetters { .. } => Self::Letters,
        }
    }

    /// The queue of `names` that it reads.
    pub(crate) fn queue(self, names: &GroupNames) -> &str {
        match self {
            Self::Group => &names.queue,
            Self::Suspects => &names.suspect,
            Self::Letters => &names.dlq,
        }
    }
}

impl Reading {
    pub(crate) fn new(shared: Arc<Shared>, source: &Source, prefetch: u16) -> Self {
        let kind = Kind::of(source);
        // The suspect lane has one delivery at a time for the whole group.
        let prefetch = if kind == Kind::Suspects { 1 } else { usize::from(prefetch.max(1)) };
        Self {
            shared,
            names: GroupNames::from_source(source),
            kind,
            prefetch,
            flight: Mutex::new(Flight::new(prefetch)),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            end: Mutex::new(None),
        }
    }

    pub(crate) fn queue(&self) -> &str {
        self.kind.queue(&self.names)
    }

    /// When a question that is put now has its answer, or none.
    pub(crate) fn by(&self) -> Instant {
        Instant::now() + self.shared.patience()
    }

    /// How many messages are ready in the queue.
    ///
    /// # Errors
    /// `NotFound` where the queue does not exist.
    pub(crate) async fn exists(&self) -> Result<u64> {
        let look = async {
            let session = self.shared.incoming.session(self.by()).await?;
            let channel = session.channel().await?;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let queue = short(self.queue())?;
            let found = channel.queue_declare(queue, options, FieldTable::default()).await;
            found.map(|queue| queue.message_count().into()).map_err(error::native)
        };
        match timeout(self.shared.patience(), look).await {
            Ok(Err(why)) if why.kind() == ErrorKind::NotFound => {
                Err(no_group(&self.names.topic, &self.names.group).with_source(why))
            }
            Ok(result) => result,
            Err(_) => Err(error::timeout()),
        }
    }

    /// Waits until the queue's own count shows at least `count`, or somebody else may have taken
    /// them: it lags behind what was just given back, and who counts next would miss them.
    pub(crate) async fn shows(&self, count: u64) {
        let shown = async {
            while self.exists().await.is_ok_and(|ready| ready < count) {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(SHOWN, shown).await;
    }

    pub(crate) fn flight(&self) -> MutexGuard<'_, Flight> {
        // No code panics while it holds the lock; the table is consistent between calls anyway.
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No reconnect can mend this.
    pub(crate) fn end(&self, why: Error) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.wake.notify_one();
    }

    /// Closes it, and tells whether it was open.
    pub(crate) fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        self.wake.notify_one();
        first
    }

    /// # Errors
    /// What ended this consumer.
    pub(crate) fn check(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed("consumer"));
        }
        if let Some(why) = &*self.end.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(why.clone());
        }
        self.shared.incoming.check()
    }
}
