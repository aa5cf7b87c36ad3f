//! The connection.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    Broker, BrokerInfo, Capabilities, Consumer, ConsumerSpec, Deliveries, Durability, Error,
    ErrorKind, Fencing, Finding, LeaseKind, MoveKind, NoSubscriber, Page, PublishDedup, Publisher,
    Received, Replication, Result, RetryPlace, Retryability, Setup, Source, Stats, Support,
    TopicName, Topology,
};
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};

use crate::config::{Config, Route, SCHEMES};
use crate::connect::Connector;
use crate::consumer::RedisConsumer;
use crate::error::{BACKEND, closed, error};
use crate::letters::LetterConsumer;
use crate::line::{End, Line, backoff};
use crate::publisher::RedisPublisher;
use crate::server::{self, Server};
use crate::settle::MAX_MESSAGE;
use crate::shared::Shared;
use crate::{browse, declare, stats};

/// What `appendfsync everysec` may lose with the power.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Connects to `redis://…` or `rediss://…`; `valkey://…` and `valkeys://…` are the same.
///
/// # Errors
/// `Config` where the URL is wrong, or the server may evict topics; `Unauthenticated` where the
/// server refuses the credentials; `Forbidden` where the user may not do what is needed;
/// `Unavailable` where none answers for as long as `connect_timeout`; `Unsupported` where the
/// server is older than 7.0.
///
/// # Cancel safety
/// Safe to drop.
pub async fn connect(url: &str, setup: Setup) -> Result<Redis> {
    let config = Arc::new(Config::parse(url)?);
    let connector = Connector::new(config.clone())?;
    let server = first(&connector).await.map_err(|why| why.with_operation("connect"))?;
    server.check(config.allow_eviction, config.route == Route::Cluster)?;
    let end = Arc::new(End::new());
    let info = info(&config, &server);
    let shared = Arc::new(Shared::new(connector, setup, info, end));
    Ok(Redis { native: Native { shared: shared.clone() }, shared })
}

/// Tries again as long as the configuration allows where no server answers.
async fn first(connector: &Connector) -> Result<Server> {
    let deadline = Instant::now() + connector.config.connect_timeout;
    let mut backoff = backoff();
    loop {
        // Of its own: an attempt that fails for good would end the client.
        let line = Line::new(connector.clone(), None, Arc::new(End::new()));
        let attempt = async {
            connector.open(None).await?;
            Server::ask(&line).await
        };
        let why = match tokio::time::timeout_at(deadline, attempt).await {
            Ok(Ok(server)) => return Ok(server),
            Ok(Err(why)) if why.retryability() == Retryability::Permanent => return Err(why),
            Ok(Err(why)) => why,
            Err(_) => error(ErrorKind::Unavailable, "no server answered in time"),
        };
        let delay = backoff.delay(fastrand::f64());
        backoff.failed();
        if Instant::now() + delay >= deadline {
            return Err(exhausted(&connector.config, why));
        }
        tracing::debug!(?delay, error = %why, "no connection yet; the next attempt follows");
        sleep(delay).await;
    }
}

fn exhausted(config: &Config, why: Error) -> Error {
    let hosts = config.hosts.iter().map(|(host, port)| format!("{host}:{port}"));
    error(ErrorKind::Unavailable, "no server could be reached")
        .with_context("servers", hosts.collect::<Vec<_>>().join(","))
        .with_retryability(Retryability::Exhausted)
        .with_source(why)
}

/// Redis Streams. Clones share their connections.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
    native: Native,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("servers", &self.shared.config.hosts)
            .field("server", &self.shared.info.server)
            .finish_non_exhaustive()
    }
}

/// What [`Broker::native`] leads to: connections of the client library, logged in as the URL says.
#[derive(Clone)]
pub struct Native {
    shared: Arc<Shared>,
}

impl Native {
    /// A new connection to the server that has `topic`.
    ///
    /// # Errors
    /// What the connect met.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn connection(&self, topic: &TopicName) -> Result<MultiplexedConnection> {
        let key = self.shared.key(topic).map(TopicName::as_str);
        Ok(self.shared.connector.open(key).await?.connection)
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Redis {
    fn info(&self) -> &BrokerInfo {
        &self.shared.info
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.shared.end.check()?;
        declare::declare(&self.shared, topology).await
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        self.shared.end.check()?;
        Ok(Box::new(RedisPublisher::open(self.shared.clone(), topic).await?))
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        self.shared.end.check()?;
        Ok(match spec.source {
            Source::DeadLetters { .. } => {
                Box::new(LetterConsumer::open(self.shared.clone(), spec).await?)
            }
            _ => Box::new(RedisConsumer::open(self.shared.clone(), spec).await?),
        })
    }

    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>> {
        self.shared.end.check()?;
        browse::browse(&self.shared, source, page).await
    }

    async fn stats(&self, source: &Source) -> Result<Stats> {
        self.shared.end.check()?;
        stats::stats(&self.shared, source).await
    }

    async fn audit(&self) -> Result<Vec<Finding>> {
        self.shared.end.check()?;
        server::audit(&self.shared).await
    }

    async fn close(&self) -> Result<()> {
        self.shared.end.set(closed("connection"));
        self.shared.forget_lines();
        Ok(())
    }

    fn native(&self) -> &(dyn Any + Send + Sync) {
        &self.native
    }
}

fn info(config: &Config, server: &Server) -> BrokerInfo {
    let replicated = config.wait > 0
        || server.replicas > 0
        || matches!(config.route, Route::Sentinel(_) | Route::Cluster);
    BrokerInfo {
        name: BACKEND,
        schemes: SCHEMES,
        server: format!("{} {}", server.name, server.version),
        capabilities: Capabilities {
            durability: match server.appends {
                true => Durability::PageCache(SYNC_INTERVAL),
                false => Durability::Memory,
            },
            replication: if replicated { Replication::Async } else { Replication::None },
            publish_dedup: PublishDedup::None,
            no_subscriber: NoSubscriber::Retain,
            settle_confirmed: true,
            settle_fenced: Fencing::LocalClock,
            deliveries: Deliveries::Exact,
            release_uncounted: true,
            release_latency: Duration::from_secs(1),
            retry_place: RetryPlace::InPlace,
            delay: Support::Emulated,
            delay_min: Duration::from_millis(1),
            delay_rel_error: 0.0,
            delay_max: None,
            dead_letters: Support::Emulated,
            dlq_move: MoveKind::Atomic,
            suspect_lane: Support::Emulated,
            lease: LeaseKind::Timed,
            replay: true,
            exact_stats: false,
            max_message: MAX_MESSAGE,
            max_prefetch: 10_000,
        },
        // Each move is one script.
        steps: &[],
    }
}
