//! A publisher that is watched, and can be made to fail.

use std::sync::Arc;

use async_trait::async_trait;
use longshore_core::{
    Confirms, Error, ErrorKind, Message, Outcome, Publisher, Receipt, Result, TopicName,
};

use super::faults::strike;
use super::journal::What;
use super::stage::Stage;

#[derive(Debug)]
pub(super) struct WatchedPublisher {
    pub(super) inner: Box<dyn Publisher>,
    pub(super) topic: TopicName,
    pub(super) stage: Arc<Stage>,
}

/// What the kit has in store for a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sound,
    Refused,
    ConfirmLost,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Publisher for WatchedPublisher {
    async fn publish(&self, batch: &mut Vec<Message>) -> Result<Confirms> {
        let faults = &self.stage.faults;
        let fates: Vec<_> = batch
            .iter()
            .map(|message| {
                let fate = if strike(&faults.refused_publishes) {
                    Fate::Refused
                } else if strike(&faults.lost_confirms) {
                    Fate::ConfirmLost
                } else {
                    Fate::Sound
                };
                (message.id.clone(), fate)
            })
            .collect();
        let mut sound = fates.iter().map(|(_, fate)| *fate != Fate::Refused);
        batch.retain(|_| sound.next().unwrap_or(true));
        // A batch that was refused as a whole reaches no broker.
        let confirms = match batch.is_empty() {
            true => Confirms::ready(Vec::new()),
            false => self.inner.publish(batch).await?,
        };
        let (stage, topic) = (self.stage.clone(), self.topic.clone());
        Ok(Confirms::later(async move {
            let mut outcomes = confirms.await.into_iter();
            fates
                .into_iter()
                .map(|(id, fate)| {
                    let outcome = outcome(fate, &mut outcomes);
                    let what = match &outcome {
                        Ok(_) => What::Published,
                        Err(error) => What::NotPublished(error.clone()),
                    };
                    stage.journal().write(topic.clone(), None, id, what);
                    outcome
                })
                .collect()
        }))
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

fn outcome(fate: Fate, outcomes: &mut impl Iterator<Item = Result<Receipt>>) -> Result<Receipt> {
    let told =
        |kind, message: &'static str, outcome| Err(Error::new(kind, message).with_outcome(outcome));
    match fate {
        Fate::Refused => {
            told(ErrorKind::Unavailable, "the test kit refuses this message", Outcome::Refused)
        }
        Fate::ConfirmLost => {
            outcomes.next();
            told(ErrorKind::Timeout, "the test kit lost the confirmation", Outcome::Unknown)
        }
        Fate::Sound => outcomes.next().unwrap_or_else(|| {
            told(ErrorKind::Unexpected, "the backend gave no outcome", Outcome::Unknown)
        }),
    }
}
