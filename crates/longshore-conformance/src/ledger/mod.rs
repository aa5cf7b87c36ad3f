//! The ledger: every hand-over that a consumer made, every settlement that ended one, and every
//! handler run. Nothing in it is ever merged or dropped, so that repeats are visible.

mod records;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_core::{AckToken, InstanceId, Received, Result, Settlement, Source};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use records::body;
pub use records::{Delivered, Ended, How, Outcome, Ran, Records, Settled};

/// Shared by all that a check starts.
#[derive(Default)]
pub struct Ledger {
    records: Mutex<Records>,
    changed: Notify,
}

impl Ledger {
    /// Looks at what is written so far.
    pub fn read<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until `holds` is true of the records. It is asked after every entry, so it must be
    /// cheap.
    ///
    /// # Errors
    /// Where that does not happen within `within`: `what` was expected, and what the ledger shows.
    pub async fn wait(
        &self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&Records) -> bool,
    ) -> std::result::Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listening before looking: an entry in between is not missed.
            changed.as_mut().enable();
            if self.read(&mut holds) {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() && !self.read(&mut holds) {
                let shown = self.read(ToString::to_string);
                return Err(format!("expected within {within:?}: {what}. The ledger: {shown}"));
            }
        }
    }

    /// Watches for as long as `during` that `holds` stays true: what must not happen needs a
    /// window, not an event.
    ///
    /// # Errors
    /// As soon as it does not hold: `what` was expected, and what the ledger shows.
    pub async fn stays(
        &self,
        what: &str,
        during: Duration,
        mut holds: impl FnMut(&Records) -> bool,
    ) -> std::result::Result<(), String> {
        let broken = self.wait(what, during, |records| !holds(records)).await;
        if broken.is_err() {
            return Ok(());
        }
        let shown = self.read(ToString::to_string);
        Err(format!("expected for {during:?}: {what}. The ledger: {shown}"))
    }

    /// A consumer handed over `received`.
    pub(crate) fn delivered(
        &self,
        consumer: u64,
        source: &Source,
        instance: &InstanceId,
        received: &Received,
    ) {
        self.lock().deliveries.push(Delivered {
            at: Instant::now(),
            consumer,
            source: source.clone(),
            instance: instance.clone(),
            received: received.clone(),
            end: None,
        });
        self.changed.notify_waiters();
    }

    /// A settlement that was `ordered` at that time was answered.
    pub(crate) fn settled(
        &self,
        consumer: u64,
        ordered: Instant,
        settlement: &Settlement,
        result: &Result<()>,
    ) {
        let token: AckToken = settlement.token();
        let mut records = self.lock();
        // The latest hand-over under this token: tokens are one consumer's, and may be used again
        // by a broker that is broken.
        let found = records
            .deliveries
            .iter_mut()
            .rev()
            .find(|entry| entry.consumer == consumer && entry.received.token == token);
        if let Some(entry) = found {
            // The first end that took effect stands; a repeat of it changes nothing.
            if entry.end.as_ref().is_none_or(|end| end.result.is_err()) {
                entry.end = Some(Settled {
                    ordered,
                    at: Instant::now(),
                    how: How::of(settlement),
                    result: result.clone(),
                });
            }
        }
        drop(records);
        self.changed.notify_waiters();
    }

    /// A handler run began. Dropped without [`Run::end`], it was cancelled.
    pub(crate) fn started(
        self: &std::sync::Arc<Self>,
        source: Source,
        instance: InstanceId,
        received: Received,
        attempt: u32,
    ) -> Run {
        let mut records = self.lock();
        let index = records.runs.len();
        let at = Instant::now();
        records.runs.push(Ran { at, source, instance, received, attempt, end: None });
        drop(records);
        self.changed.notify_waiters();
        Run { ledger: self.clone(), index, ended: false }
    }

    fn ended(&self, index: usize, how: Outcome) {
        if let Some(run) = self.lock().runs.get_mut(index) {
            run.end = Some(Ended { at: Instant::now(), how });
        }
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|records| fmt::Debug::fmt(&records.to_string(), f))
    }
}

/// A handler run that has not ended.
#[derive(Debug)]
pub(crate) struct Run {
    ledger: std::sync::Arc<Ledger>,
    index: usize,
    ended: bool,
}

impl Run {
    pub(crate) fn end(mut self, how: Outcome) {
        self.ended = true;
        self.ledger.ended(self.index, how);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            let how = if std::thread::panicking() { Outcome::Panicked } else { Outcome::Dropped };
            self.ledger.ended(self.index, how);
        }
    }
}

#[cfg(test)]
mod tests;
