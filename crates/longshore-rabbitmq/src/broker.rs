//! The connection.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    Broker, BrokerInfo, Capabilities, Consumer, ConsumerSpec, Deliveries, Durability, Fencing,
    Finding, LeaseKind, MoveKind, NoSubscriber, Page, PublishDedup, Publisher, Received,
    Replication, Result, RetryPlace, Setup, Source, Stats, Support, TopicName, Topology,
};

use crate::browse;
use crate::config::{Config, QueueType, SCHEMES};
use crate::consumer::RabbitConsumer;
use crate::dial::Dial;
use crate::error::BACKEND;
use crate::greeting::Greeting;
use crate::letters::LetterConsumer;
use crate::link::{Link, all_up};
use crate::longest::Longest;
use crate::publisher::RabbitPublisher;
use crate::shared::Shared;
use crate::{audit, declare, delay, stats, tls};

/// The durable steps inside moves.
const STEPS: &[&str] =
    &["retry.copied", "release.copied", "suspect.copied", "dead_letter.copied", "redrive.copied"];
/// From here on a release does not count as a delivery.
const UNCOUNTED: (u32, u32) = (4, 3);

/// Connects to `amqp://…` or `amqps://…`.
///
/// # Errors
/// `Config` where the URL is wrong; `Unauthenticated` where the server refuses the credentials or
/// either side the other's certificate; `Forbidden` where the virtual host does not exist or is not
/// for this user; `Unavailable` where no server answers for as long as `connect_timeout`;
/// `Unsupported` where it is older than 3.10 or no RabbitMQ.
///
/// # Cancel safety
/// Safe to drop.
pub async fn connect(url: &str, setup: Setup) -> Result<RabbitMq> {
    let config = Arc::new(Config::parse(url)?);
    let tls = tls::connector(&config)?;
    let dial = |side: &str| {
        let name = format!("longshore {} {side}", setup.instance);
        Dial::new(config.clone(), tls.clone(), name)
    };
    let (outgoing, incoming) = (Link::open(dial("outgoing")), Link::open(dial("incoming")));
    all_up(&[&outgoing, &incoming], config.connect_timeout).await?;
    let session = outgoing.session(tokio::time::Instant::now() + config.connect_timeout).await?;
    let info = info(&config, &session.greeting);
    let shared = Shared {
        outgoing,
        incoming,
        lanes: Default::default(),
        permits: Default::default(),
        longest: Longest::default(),
        config,
        setup,
        info,
        runtime: tokio::runtime::Handle::current(),
        founded: Default::default(),
    };
    let shared = Arc::new(shared);
    Ok(RabbitMq { native: Connections { shared: shared.clone() }, shared })
}

/// RabbitMQ. Clones share two connections.
#[derive(Clone)]
pub struct RabbitMq {
    shared: Arc<Shared>,
    native: Connections,
}

/// What [`native`](Broker::native) gives: the connections of the client library, which are other ones
/// after each reconnect.
#[derive(Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

impl Connections {
    /// The connection that messages are published on; none while it is down.
    #[must_use]
    pub fn outgoing(&self) -> Option<Arc<lapin::Connection>> {
        self.shared.outgoing.current().map(|session| session.connection.clone())
    }

    /// The connection that messages are consumed and acknowledged on; none while it is down.
    #[must_use]
    pub fn incoming(&self) -> Option<Arc<lapin::Connection>> {
        self.shared.incoming.current().map(|session| session.connection.clone())
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("servers", &self.shared.config.servers)
            .field("vhost", &self.shared.config.vhost)
            .field("server", &self.shared.info.server)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for RabbitMq {
    fn info(&self) -> &BrokerInfo {
        &self.shared.info
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.shared.check()?;
        declare::declare(&self.shared, topology).await
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        self.shared.check()?;
        Ok(Box::new(RabbitPublisher::open(self.shared.clone(), topic).await?))
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        self.shared.check()?;
        let shared = self.shared.clone();
        Ok(match spec.source {
            Source::DeadLetters { .. } => Box::new(LetterConsumer::open(shared, spec).await?),
            _ => Box::new(RabbitConsumer::open(shared, spec).await?),
        })
    }

    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>> {
        self.shared.check()?;
        browse::browse(&self.shared, source, page).await
    }

    async fn stats(&self, source: &Source) -> Result<Stats> {
        self.shared.check()?;
        stats::stats(&self.shared, source).await
    }

    async fn audit(&self) -> Result<Vec<Finding>> {
        self.shared.check()?;
        audit::audit(&self.shared).await
    }

    async fn close(&self) -> Result<()> {
        let deadline = self.shared.deadline();
        tokio::join!(self.shared.incoming.close(deadline), self.shared.outgoing.close(deadline));
        Ok(())
    }

    fn native(&self) -> &(dyn Any + Send + Sync) {
        &self.native
    }
}

fn info(config: &Config, greeting: &Greeting) -> BrokerInfo {
    BrokerInfo {
        name: BACKEND,
        schemes: SCHEMES,
        server: format!("{} {}", greeting.product, greeting.version),
        capabilities: capabilities(config.queue_type, greeting),
        steps: STEPS,
    }
}

fn capabilities(queue_type: QueueType, greeting: &Greeting) -> Capabilities {
    let quorum = queue_type == QueueType::Quorum;
    Capabilities {
        durability: match quorum {
            true => Durability::Fsync,
            // Written, and left to the operating system to sync: 30 s is Linux' own default.
            false => Durability::PageCache(Duration::from_secs(30)),
        },
        replication: if quorum { Replication::Quorum } else { Replication::None },
        publish_dedup: PublishDedup::None,
        no_subscriber: NoSubscriber::Park,
        settle_confirmed: false,
        settle_fenced: Fencing::Broker,
        deliveries: if quorum { Deliveries::Exact } else { Deliveries::Flag },
        release_uncounted: quorum && greeting.release().is_some_and(|it| it >= UNCOUNTED),
        release_latency: Duration::from_secs(1),
        retry_place: RetryPlace::Copy,
        delay: Support::Emulated,
        delay_min: delay::BASE,
        delay_rel_error: delay::RELATIVE_ERROR,
        delay_max: Some(delay::LONGEST),
        dead_letters: Support::Emulated,
        dlq_move: MoveKind::CopyThenSettle,
        suspect_lane: if quorum { Support::Emulated } else { Support::Unsupported },
        lease: LeaseKind::Connection,
        replay: false,
        exact_stats: false,
        max_message: greeting.max_message(),
        max_prefetch: 10_000,
    }
}
