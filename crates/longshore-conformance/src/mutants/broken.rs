use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use longshore_core::{
    Broker, BrokerInfo, Consumer, ConsumerSpec, Finding, GroupName, Message, MessageId, Mode, Page,
    Publisher, Received, Result, Source, Stats, TopicName, Topology,
};

use super::Mutant;
use super::consumer::{BrokenConsumer, Mailbox};
use super::fault::Fault;
use super::publisher::BrokenPublisher;

/// What all clients of one broken broker share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) fault: Box<dyn Fault>,
    known: Mutex<Vec<(TopicName, GroupName)>>,
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
}

impl World {
    pub(crate) fn new(mutant: &Mutant) -> Self {
        Self { fault: mutant.fault(), known: Mutex::default(), mailboxes: Mutex::default() }
    }

    pub(crate) fn known(&self) -> Vec<(TopicName, GroupName)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The open consumers.
    pub(super) fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        let list = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter_map(Weak::upgrade).collect()
    }

    fn learn(&self, topology: &Topology) {
        if topology.mode != Mode::Declare {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for group in &topology.groups {
            let name = (group.topic.clone(), group.name.clone());
            if !known.contains(&name) {
                known.push(name);
            }
        }
    }

    fn join(&self, mailbox: &Arc<Mailbox>) {
        let mut list = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|mailbox| mailbox.strong_count() > 0);
        list.push(Arc::downgrade(mailbox));
    }
}

/// A broker that does one thing wrong.
#[derive(Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn Broker>,
    world: Arc<World>,
}

impl Broken {
    pub(crate) fn new(inner: Arc<dyn Broker>, world: Arc<World>) -> Self {
        Self { inner, world }
    }
}

/// Publishes a copy of a message under an id of its own, so that no broker takes it for the first.
pub(super) async fn copy(inner: &Arc<dyn Broker>, topic: &TopicName, mut message: Message) {
    message.id = Some(MessageId::generate());
    if let Ok(publisher) = inner.publisher(topic).await
        && let Ok(confirms) = publisher.publish(&mut vec![message]).await
    {
        let _stored_or_not = confirms.await;
    }
}

/// What was received, as it would be published again.
pub(super) fn message(received: &Received) -> Message {
    Message {
        body: received.body.clone(),
        key: received.key.clone(),
        id: None,
        message_type: received.message_type.clone(),
        content_type: received.content_type.clone(),
        headers: received.headers.clone(),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Broken {
    fn info(&self) -> &BrokerInfo {
        self.inner.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        let known = self.world.known();
        self.world.fault.declare(&self.inner, topology, &known).await?;
        self.world.learn(topology);
        Ok(())
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        let publisher = self.inner.publisher(topic).await?;
        let (inner, world) = (self.inner.clone(), self.world.clone());
        Ok(Box::new(BrokenPublisher { inner, world, topic: topic.clone(), publisher }))
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        let spec = self.world.fault.open(spec.clone(), &self.world.known());
        let consumer: Arc<dyn Consumer> = self.inner.consumer(&spec).await?.into();
        let consumer =
            BrokenConsumer::new(self.inner.clone(), consumer, self.world.clone(), spec.source);
        self.world.join(&consumer.mailbox);
        Ok(Box::new(consumer))
    }

    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>> {
        self.world.fault.browse(&self.inner, source, page, &self.world.known()).await
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
