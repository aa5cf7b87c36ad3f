//! How a consumer comes by its deliveries: a channel of its own, its prefetch, and the order to
//! deliver.

use lapin::Channel;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use longshore_core::{Error, ErrorKind, Result, Retryability};
use tokio::time::{Instant, timeout_at};

use crate::again::again;
use crate::error;
use crate::names::short;
use crate::reading::Reading;

/// A consumer that the broker knows of.
pub(crate) struct Attached {
    /// The connection that it stands on.
    pub(crate) generation: u32,
    pub(crate) channel: Channel,
    pub(crate) stream: lapin::Consumer,
    /// How many unsettled deliveries the broker gives it.
    pub(crate) credit: usize,
    /// The channel is a new one: what an older one held is lost.
    pub(crate) fresh: bool,
    /// Its queue was gone, and was declared anew.
    pub(crate) anew: bool,
}

/// What an attempt needs; owned, so that it outlives a `receive` that was dropped.
pub(crate) struct Attach {
    pub(crate) reading: std::sync::Arc<Reading>,
    /// The channel that still holds deliveries, where only the consumer on it ended.
    pub(crate) kept: Option<(u32, Channel)>,
    pub(crate) credit: usize,
}

impl Attach {
    /// # Errors
    /// What the broker or the connection answered; within the deadline.
    pub(crate) async fn run(self) -> Result<Attached> {
        let deadline = Instant::now() + self.reading.shared.patience();
        let work = async {
            match self.consume(self.kept.clone(), false).await {
                // Deleted underneath.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    again(&self.reading.shared, &self.reading.names).await.map_err(transient)?;
                    self.consume(None, true).await.map_err(transient)
                }
                result => result,
            }
        };
        match timeout_at(deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(error::timeout()),
        }
    }

    async fn consume(&self, kept: Option<(u32, Channel)>, anew: bool) -> Result<Attached> {
        let fresh = kept.is_none();
        let (generation, channel) = match kept {
            Some(kept) => kept,
            None => {
                let session = self.reading.shared.incoming.session(self.reading.by()).await?;
                (session.generation, session.channel().await?)
            }
        };
        let credit = u16::try_from(self.credit).unwrap_or(u16::MAX);
        channel
            .basic_qos(credit, BasicQosOptions { global: false })
            .await
            .map_err(error::native)?;
        let (queue, tag) = (short(self.reading.queue())?, ShortString::default());
        let stream = channel
            .basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default())
            .await
            .map_err(error::native)?;
        Ok(Attached { generation, channel, stream, credit: self.credit, fresh, anew })
    }
}

/// Missing while it is made again: deleted once more, or a leader that is elected.
fn transient(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error.with_retryability(Retryability::Transient),
        _ => error,
    }
}
