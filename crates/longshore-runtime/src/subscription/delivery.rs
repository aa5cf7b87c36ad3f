use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use longshore_core::policy::Reason;
use longshore_core::{Error, Failure, MessageId, Received, Record, Result, Settlement};

use super::held::Held;

/// A message, and the right to settle it once. Dropped unsettled, it is released, with a warning.
///
/// Reads as the [`Received`] that it holds.
#[must_use = "a delivery that is dropped is released and comes again"]
pub struct Delivery(Option<Inner>);

struct Inner {
    received: Received,
    held: Arc<Held>,
}

/// A settlement that failed, and the delivery that it left as it was.
///
/// Converts into its [`Error`] by `?`, which drops the delivery and so releases it.
pub struct Unsettled {
    /// To be settled again, unless the error's kind is `LeaseLost`.
    pub delivery: Delivery,
    /// Why.
    pub error: Error,
}

impl Delivery {
    pub(super) fn new(received: Received, held: Arc<Held>) -> Self {
        Self(Some(Inner { received, held }))
    }

    /// The message and what is known of its past.
    #[must_use]
    pub fn received(&self) -> &Received {
        &self.inner().received
    }

    /// Done: it never comes again.
    ///
    /// # Errors
    /// [`Unsettled`] with the delivery, which is as it was.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the settlement happened or did not; in the second case the
    /// delivery is released. This holds for all four.
    pub async fn ack(self) -> Result<(), Unsettled> {
        let token = self.received().token;
        self.settle(Settlement::Ack(token)).await
    }

    /// Back to the group after a delay, never early. Counts as a failure.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn retry(self, after: Duration) -> Result<(), Unsettled> {
        let mut record = self.failed(Some(after));
        record.delayed = record.delayed.saturating_add(1);
        let token = self.received().token;
        self.settle(Settlement::Retry { token, after, record }).await
    }

    /// Into the group's dead-letter queue. Counts as a failure.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn dead_letter(self, reason: Reason) -> Result<(), Unsettled> {
        let record = self.failed(None);
        let Inner { received, held } = self.inner();
        let letter = held.book.letter(received, &record, reason, None, held.now());
        let token = received.token;
        self.settle(Settlement::DeadLetter { token, letter }).await
    }

    /// Back to the group at once, without a failure.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn release(self) -> Result<(), Unsettled> {
        let Inner { received, held } = self.inner();
        let order = held.release(received);
        self.settle(order).await
    }

    fn failed(&self, gap: Option<Duration>) -> Box<Record> {
        let Inner { received, held } = self.inner();
        let mut record = held.book.open(received, MessageId::generate);
        let failure = Failure::transient("settled by the subscriber");
        held.book.failed(&mut record, &failure, held.now(), gap);
        record
    }

    async fn settle(mut self, settlement: Settlement) -> Result<(), Unsettled> {
        let held = self.inner().held.clone();
        match held.settle(settlement).await {
            Ok(()) => {
                self.0 = None;
                Ok(())
            }
            Err(error) => Err(Unsettled { delivery: self, error }),
        }
    }

    fn inner(&self) -> &Inner {
        self.0.as_ref().expect("taken only by the settlement that consumes it")
    }
}

impl Deref for Delivery {
    type Target = Received;

    fn deref(&self) -> &Received {
        self.received()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(Inner { received, held }) = self.0.take()
            && held.holds(received.token)
        {
            held.forgotten(&received);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delivery").field(self.received()).finish()
    }
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the delivery could not be settled")
    }
}

impl fmt::Debug for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unsettled: {:?}", self.error)
    }
}

impl std::error::Error for Unsettled {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Unsettled> for Error {
    fn from(unsettled: Unsettled) -> Self {
        unsettled.error.clone()
    }
}
