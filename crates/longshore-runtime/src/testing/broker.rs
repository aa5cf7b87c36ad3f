//! A broker that is watched.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use longshore_core::{
    Broker, BrokerInfo, Consumer, ConsumerSpec, Finding, Page, Publisher, Received, Result, Source,
    Stats, TopicName, Topology,
};

use super::consumer::Watched;
use super::publisher::WatchedPublisher;
use super::stage::Stage;

#[derive(Debug)]
pub(super) struct WatchedBroker {
    pub(super) inner: Arc<dyn Broker>,
    pub(super) stage: Arc<Stage>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for WatchedBroker {
    fn info(&self) -> &BrokerInfo {
        self.inner.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.inner.declare(topology).await
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        let inner = self.inner.publisher(topic).await?;
        let (topic, stage) = (self.stage.bare(topic), self.stage.clone());
        Ok(Box::new(WatchedPublisher { inner, topic, stage }))
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        let inner = self.inner.consumer(spec).await?;
        Ok(Box::new(Watched::new(inner, spec.source.clone(), self.stage.clone())))
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
