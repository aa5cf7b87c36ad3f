use std::sync::Arc;
use std::time::Duration;

use longshore_core::{
    Broker, BrokerInfo, Clock, Consumer, ConsumerSpec, DEFAULT_MAX_BODY, Error, Group, GroupName,
    Policy, Result, Setup, Source, Start, Tenant, TopicName, Topology,
};

use crate::dead_letters::DeadLetters;
use crate::observe::{self, Alarms, Bell, Health, Ward};
use crate::sender::Sender;
use crate::subscription::Subscribe;
use crate::worker::WorkerBuilder;

/// A connection to one broker, through any backend. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: Arc<dyn Broker>,
    setup: Setup,
    options: ClientOptions,
    bell: Bell,
    ward: Ward,
}

/// Settings of a client that belong to no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Put before every topic, so that what belongs to one tenant, retries and dead letters
    /// included, never meets another's.
    pub tenant: Option<Tenant>,
    /// The largest body that is sent, in bytes. Default: 960 KiB; never more than the broker takes.
    pub max_body: usize,
    /// How many unconfirmed messages a sender has on their way. Default: 1024.
    pub window: u32,
    /// How long a send waits for a place in the window. Default: 30 s.
    pub publish_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            tenant: None,
            max_body: DEFAULT_MAX_BODY,
            window: 1024,
            publish_timeout: Duration::from_secs(30),
        }
    }
}

impl Client {
    /// A client of a connected broker, with the defaults. `setup` is what the broker was connected
    /// with.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, setup: Setup) -> Self {
        Self::with_options(broker, setup, ClientOptions::default())
    }

    /// A client of a connected broker.
    #[must_use]
    pub fn with_options(broker: Arc<dyn Broker>, setup: Setup, mut options: ClientOptions) -> Self {
        options.max_body = options.max_body.min(broker.info().capabilities.max_message);
        options.window = options.window.clamp(1, 1 << 20);
        observe::describe();
        let (bell, ward) = (Bell::new(), Ward::default());
        Self(Arc::new(Inner { broker, setup, options, bell, ward }))
    }

    /// Makes or verifies topics and groups. Workers and subscriptions declare their own; this is
    /// for topics that are only published to, and for deployments that declare ahead.
    ///
    /// The names are taken without the tenant, which is put before them.
    ///
    /// # Errors
    /// `AlreadyExists` with a [`Drift`](longshore_core::Drift) where something exists with other
    /// settings; `NotFound` in the mode `Verify`; whatever the connection meets.
    pub async fn declare(&self, topology: &Topology) -> Result<()> {
        let mut topology = topology.clone();
        for topic in &mut topology.topics {
            topic.name = self.full(&topic.name);
        }
        for group in &mut topology.groups {
            group.topic = self.full(&group.topic);
        }
        self.0.broker.declare(&topology).await
    }

    /// Opens a sender to a topic that exists.
    ///
    /// # Errors
    /// `NotFound` where the topic does not exist; `Config` for a name outside the grammar.
    pub async fn sender(&self, topic: impl TryInto<TopicName, Error = Error>) -> Result<Sender> {
        let topic = self.full(&topic.try_into()?);
        let publisher = self.0.broker.publisher(&topic).await?;
        let bell = self.0.bell.clone();
        Ok(Sender::new(publisher, topic, self.info().name, &self.0.options, bell))
    }

    /// Begins a worker: a group on a topic, a policy, and a handler.
    pub fn worker<T, G>(&self, topic: T, group: G) -> WorkerBuilder
    where
        T: TryInto<TopicName, Error = Error>,
        G: TryInto<GroupName, Error = Error>,
    {
        WorkerBuilder::new(self.clone(), topic.try_into(), group.try_into())
    }

    /// Begins a subscription, for programs that settle each delivery themselves.
    pub fn subscribe<T, G>(&self, topic: T, group: G) -> Subscribe
    where
        T: TryInto<TopicName, Error = Error>,
        G: TryInto<GroupName, Error = Error>,
    {
        Subscribe::new(self.clone(), topic.try_into(), group.try_into())
    }

    /// The dead letters of a group.
    ///
    /// # Errors
    /// `Config` for a name outside the grammar.
    pub fn dead_letters<T, G>(&self, topic: T, group: G) -> Result<DeadLetters>
    where
        T: TryInto<TopicName, Error = Error>,
        G: TryInto<GroupName, Error = Error>,
    {
        Ok(DeadLetters::new(self.clone(), self.full(&topic.try_into()?), group.try_into()?))
    }

    /// Whether the process can go on and should get work, over all workers of this client: for a
    /// service's probes. Costs no round trip.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.ward.health()
    }

    /// The alarms of everything that this client opened, from now on.
    #[must_use]
    pub fn alarms(&self) -> Alarms {
        self.0.bell.listen()
    }

    /// What the backend says of itself.
    #[must_use]
    pub fn info(&self) -> &BrokerInfo {
        self.0.broker.info()
    }

    /// The connection, for what this type does not cover.
    #[must_use]
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.0.broker
    }

    /// Closes the connection for all clones. Idempotent. Stop workers first: what they hold is
    /// given back to the group.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn close(&self) -> Result<()> {
        self.0.broker.close().await
    }

    /// Declares a group as a policy wants it. `topic` has the tenant's prefix, here and below.
    pub(crate) async fn declare_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        policy: &Policy,
        start: Start,
        lease: Duration,
    ) -> Result<()> {
        let letters = policy.dead_letter();
        let group = Group {
            topic: topic.clone(),
            name: group.clone(),
            start,
            lease,
            dead_letters: letters.enabled.then_some(letters.retention),
            longest_delay: policy.longest_delay(),
        };
        self.0.broker.declare(&Topology::group(group)).await
    }

    /// Opens a consumer in this client's name.
    pub(crate) async fn consumer(
        &self,
        source: &Source,
        prefetch: u16,
        lease: Duration,
    ) -> Result<Box<dyn Consumer>> {
        let instance = self.0.setup.instance.clone();
        let spec = ConsumerSpec { source: source.clone(), prefetch, lease, instance };
        self.0.broker.consumer(&spec).await
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.0.bell
    }

    pub(crate) fn ward(&self) -> &Ward {
        &self.0.ward
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.0.setup
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.setup.clock
    }

    pub(crate) fn max_body(&self) -> usize {
        self.0.options.max_body
    }

    /// The topic's name with the tenant's prefix.
    pub(crate) fn full(&self, topic: &TopicName) -> TopicName {
        self.0.options.tenant.as_ref().map_or_else(|| topic.clone(), |tenant| tenant.topic(topic))
    }
}
