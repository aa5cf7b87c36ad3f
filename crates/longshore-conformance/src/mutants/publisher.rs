use std::sync::Arc;

use async_trait::async_trait;
use longshore_core::{
    Broker, Confirms, Error, ErrorKind, Message, MessageId, Publisher, Receipt, Result, TopicName,
};

use super::broken::{World, copy};

#[derive(Debug)]
pub(super) struct BrokenPublisher {
    pub(super) inner: Arc<dyn Broker>,
    pub(super) world: Arc<World>,
    pub(super) topic: TopicName,
    pub(super) publisher: Box<dyn Publisher>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Publisher for BrokenPublisher {
    async fn publish(&self, batch: &mut Vec<Message>) -> Result<Confirms> {
        let fault = &self.world.fault;
        let stray = fault.stray(&self.topic, &self.world.known());
        let ids: Vec<_> = batch.iter().map(|message| message.id.clone()).collect();
        let mut stored = Vec::with_capacity(batch.len());
        for message in batch.drain(..) {
            if let Some(topic) = &stray {
                copy(&self.inner, topic, message.clone()).await;
            }
            fault.publish(&self.topic, message, &mut stored);
        }
        if stored.is_empty() {
            return Ok(Confirms::ready(ids.into_iter().map(pretended).collect()));
        }
        let confirms = self.publisher.publish(&mut stored).await?;
        Ok(Confirms::later(async move { answers(ids, confirms.await) }))
    }

    async fn close(&self) -> Result<()> {
        if self.world.fault.closes_publishers() { self.publisher.close().await } else { Ok(()) }
    }
}

/// Each caller's own outcome where messages and outcomes match; else success, which is what a
/// broker that loses messages would say.
fn answers(ids: Vec<Option<MessageId>>, outcomes: Vec<Result<Receipt>>) -> Vec<Result<Receipt>> {
    if ids.len() != outcomes.len() {
        return ids.into_iter().map(pretended).collect();
    }
    let answer = |(id, outcome): (Option<MessageId>, Result<Receipt>)| {
        outcome.map(|receipt| Receipt { id: id.unwrap_or(receipt.id), ..receipt })
    };
    ids.into_iter().zip(outcomes).map(answer).collect()
}

fn pretended(id: Option<MessageId>) -> Result<Receipt> {
    match id {
        Some(id) => Ok(Receipt { id, duplicate: false }),
        None => Err(Error::new(ErrorKind::InvalidMessage, "a message without an id")),
    }
}
