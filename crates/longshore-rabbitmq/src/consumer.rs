//! The incoming side of a group and of its suspect lane.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::Channel;
use lapin::options::BasicNackOptions;
use longshore_core::{AckToken, Consumer, ConsumerSpec, Event, Result, Settlement};
use tokio::time::{sleep, timeout};

use crate::intake::Intake;
use crate::reading::Reading;
use crate::release;
use crate::settle;
use crate::shared::Shared;

/// A receive that nobody polls holds the intake; what it has comes back with the channel.
const INTAKE: Duration = Duration::from_secs(1);
/// How long an end waits for moves that are under way.
const MOVES: Duration = Duration::from_secs(2);
/// When the broker has answered the end of a channel, or will not.
const BARRIER: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(5);

pub(crate) struct RabbitConsumer {
    reading: Arc<Reading>,
    intake: tokio::sync::Mutex<Intake>,
}

impl RabbitConsumer {
    /// # Errors
    /// `NotFound` where the queue does not exist.
    pub(crate) async fn open(shared: Arc<Shared>, spec: &ConsumerSpec) -> Result<Self> {
        let reading = Arc::new(Reading::new(shared, &spec.source, spec.prefetch));
        reading.exists().await?;
        let intake = tokio::sync::Mutex::new(Intake::new(reading.shared.incoming.watch()));
        Ok(Self { reading, intake })
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        // A busy reader would otherwise never let another task of its thread run.
        tokio::task::coop::consume_budget().await;
        let mut intake = self.intake.lock().await;
        intake.receive(&self.reading, out, limit.max(1)).await
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        // What is released while the broker still delivers comes straight back here. Whoever
        // releases and does not receive is about to end: the broker is told to deliver no more
        // first. A later `receive` begins anew.
        if batch.iter().any(|one| matches!(one, Settlement::Release { .. }))
            && let Ok(mut intake) = self.intake.try_lock()
        {
            intake.stop(&self.reading).await;
        }
        settle::settle(&self.reading, batch, out).await;
    }

    /// The connection is the lease: it holds as long as the channel does.
    async fn extend(&self, tokens: &[AckToken], _by: Duration, out: &mut Vec<Result<()>>) {
        let mut flight = self.reading.flight();
        out.extend(tokens.iter().map(|token| flight.get(*token).map(drop)));
    }

    async fn set_prefetch(&self, prefetch: u16) {
        let prefetch = usize::from(prefetch).min(self.reading.prefetch);
        self.reading.flight().set_prefetch(prefetch);
        let unseen = self.intake.lock().await.recall(&self.reading).await;
        if !unseen.is_empty() {
            release::give_back(self.reading.clone(), unseen).await;
        }
    }

    async fn close(&self) -> Result<()> {
        if !self.reading.close() {
            return Ok(());
        }
        if let Ok(mut intake) = timeout(INTAKE, self.intake.lock()).await {
            let unseen = intake.end(&self.reading).await;
            drop(intake);
            if !unseen.is_empty() {
                release::give_back(self.reading.clone(), unseen).await;
            }
        }
        finish(&self.reading).await;
        Ok(())
    }
}

/// Ends the channel of a reader that is closed. What is still held goes back with it; the broker's
/// answer says that it has seen every acknowledgement.
pub(crate) async fn finish(reading: &Reading) {
    let moved = async {
        while reading.flight().is_moving() {
            sleep(TICK).await;
        }
    };
    let _ = timeout(MOVES, moved).await;
    let (channel, kept) = {
        let mut flight = reading.flight();
        (flight.end(), flight.passed_over())
    };
    if let Some(channel) = channel {
        // Where the connection is gone, so is the channel.
        let _ = timeout(BARRIER, give_all_back(&channel)).await;
        if kept > 0 {
            reading.shows(kept as u64).await;
        }
    }
}

/// Returns everything that a channel still holds, and ends it. The end alone would return it too,
/// but only when the queue has noticed.
pub(crate) async fn give_all_back(channel: &Channel) -> lapin::Result<()> {
    // Zero is every delivery.
    channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await?;
    channel.close(200, "closed".into()).await
}

impl fmt::Debug for RabbitConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitConsumer")
            .field("queue", &self.reading.queue())
            .finish_non_exhaustive()
    }
}
