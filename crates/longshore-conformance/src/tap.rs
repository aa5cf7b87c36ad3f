//! A broker that writes every hand-over and every settlement into the ledger, and changes nothing.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    AckToken, Broker, BrokerInfo, Consumer, ConsumerSpec, Event, Finding, Page, Publisher,
    Received, Result, Settlement, Source, Stats, TopicName, Topology,
};
use tokio::time::Instant;

use crate::ledger::Ledger;

#[derive(Debug)]
pub(crate) struct Tap {
    inner: Arc<dyn Broker>,
    ledger: Arc<Ledger>,
}

impl Tap {
    pub(crate) fn new(inner: Arc<dyn Broker>, ledger: Arc<Ledger>) -> Self {
        Self { inner, ledger }
    }
}

/// Numbers consumers, so that the tokens of two are never taken for one.
static CONSUMERS: AtomicU64 = AtomicU64::new(0);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Tap {
    fn info(&self) -> &BrokerInfo {
        self.inner.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.inner.declare(topology).await
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        self.inner.publisher(topic).await
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        let inner = self.inner.consumer(spec).await?;
        let number = CONSUMERS.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(TapConsumer { inner, number, spec: spec.clone(), ledger: self.ledger.clone() }))
    }

    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>> {
        self.inner.browse(source, page).await
    }

    async fn stats(&self, source: &Source) -> Result<Stats> {
        self.inner.stats(source).await
    }

    async fn audit(&self) -> Result<Vec<Finding>> {
        self.inner.audit().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn native(&self) -> &(dyn Any + Send + Sync) {
        self.inner.native()
    }
}

#[derive(Debug)]
struct TapConsumer {
    inner: Box<dyn Consumer>,
    number: u64,
    spec: ConsumerSpec,
    ledger: Arc<Ledger>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for TapConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        let from = out.len();
        let result = self.inner.receive(out, limit).await;
        for event in &out[from..] {
            if let Event::Message(received) = event {
                let ConsumerSpec { source, instance, .. } = &self.spec;
                self.ledger.delivered(self.number, source, instance, received);
            }
        }
        result
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        let (from, ordered) = (out.len(), Instant::now());
        self.inner.settle(batch, out).await;
        for (settlement, result) in batch.iter().zip(&out[from..]) {
            self.ledger.settled(self.number, ordered, settlement, result);
        }
    }

    async fn extend(&self, tokens: &[AckToken], by: Duration, out: &mut Vec<Result<()>>) {
        self.inner.extend(tokens, by, out).await;
    }

    async fn set_prefetch(&self, prefetch: u16) {
        self.inner.set_prefetch(prefetch).await;
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
