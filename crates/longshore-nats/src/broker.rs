//! The connection.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_trait::async_trait;
use longshore_core::{
    Broker, BrokerInfo, Capabilities, Consumer, ConsumerSpec, Deliveries, Durability, ErrorKind,
    Fencing, Finding, LeaseKind, MoveKind, NoSubscriber, Page, PublishDedup, Publisher, Received,
    Replication, Result, RetryPlace, Setup, Source, Stats, Support, TopicName, Topology,
};

use crate::config::{Config, SCHEMES};
use crate::consumer::NatsConsumer;
use crate::error::{BACKEND, closed, unsupported};
use crate::letters::LetterConsumer;
use crate::link::Link;
use crate::publisher::NatsPublisher;
use crate::replies::Replies;
use crate::shared::Shared;
use crate::{audit, browse, connect as first, declare, stats};

/// The durable steps inside moves.
const STEPS: &[&str] = &[
    "retry.recorded",
    "release.recorded",
    "retry.copied",
    "suspect.copied",
    "dead_letter.copied",
    "redrive.copied",
];
/// The server's own default; a client cannot read the setting.
const SYNC_INTERVAL: Duration = Duration::from_secs(120);
/// Confirmations of copies and records that may be waited for at a time.
const IN_FLIGHT: usize = 8192;

/// Connects to `nats://…` or `tls://…`.
///
/// # Errors
/// `Config` where the URL is wrong; `Unauthenticated` where the server refuses the credentials;
/// `Unavailable` where none answers for as long as `connect_timeout`; `Unsupported` where the
/// server is older than 2.10 or has no JetStream.
///
/// # Cancel safety
/// Safe to drop.
pub async fn connect(url: &str, setup: Setup) -> Result<Nats> {
    let config = Config::parse(url)?;
    let link = Arc::new(Link::new());
    let client = first::connect(&config, &setup, &link).await?;
    link.connected().await;
    let context = ContextBuilder::new()
        .timeout(config.publish_timeout)
        .max_ack_inflight(IN_FLIGHT)
        .build(client.clone());
    let info = info(&config, &client.server_info());
    let (replies, reading) = Replies::open(&client, &link, config.publish_timeout).await?;
    let shared = Shared { client, context, link, replies, _reading: reading, config, setup, info };
    check_jetstream(&shared).await?;
    Ok(Nats { shared: Arc::new(shared) })
}

async fn check_jetstream(shared: &Shared) -> Result<()> {
    let missing = || unsupported("a server or account without JetStream");
    if !shared.info_says_jetstream() {
        return Err(missing());
    }
    let asked: Result<serde_json::Value> = shared.api("INFO", "INFO", &serde_json::json!({})).await;
    match asked {
        Ok(_) => Ok(()),
        // Nobody answers for JetStream, or the account has none.
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(missing().with_source(error)),
        Err(error) if error.kind() == ErrorKind::Unavailable && shared.link.is_up() => {
            Err(missing().with_source(error))
        }
        // Those who may not ask may well be allowed what they need.
        Err(error) if error.kind() == ErrorKind::Forbidden => Ok(()),
        Err(error) => Err(error.with_operation("connect")),
    }
}

impl Shared {
    fn info_says_jetstream(&self) -> bool {
        self.client.server_info().jetstream
    }
}

/// NATS JetStream. Clones share one connection.
#[derive(Clone)]
pub struct Nats {
    shared: Arc<Shared>,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("servers", &self.shared.config.servers)
            .field("server", &self.shared.info.server)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Nats {
    fn info(&self) -> &BrokerInfo {
        &self.shared.info
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.shared.link.check()?;
        declare::declare(&self.shared, topology).await
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        self.shared.link.check()?;
        Ok(Box::new(NatsPublisher::open(self.shared.clone(), topic).await?))
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        self.shared.link.check()?;
        Ok(match spec.source {
            Source::DeadLetters { .. } => {
                Box::new(LetterConsumer::open(self.shared.clone(), spec).await?)
            }
            _ => Box::new(NatsConsumer::open(self.shared.clone(), spec).await?),
        })
    }

    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>> {
        self.shared.link.check()?;
        browse::browse(&self.shared, source, page).await
    }

    async fn stats(&self, source: &Source) -> Result<Stats> {
        self.shared.link.check()?;
        stats::stats(&self.shared, source).await
    }

    async fn audit(&self) -> Result<Vec<Finding>> {
        self.shared.link.check()?;
        audit::audit(&self.shared).await
    }

    async fn close(&self) -> Result<()> {
        let link = &self.shared.link;
        if link.check().is_err() {
            return Ok(());
        }
        let deadline = self.shared.deadline();
        if link.is_up() {
            // What is queued is written before the connection ends.
            let _ = tokio::time::timeout(deadline, self.shared.client.flush()).await;
        }
        link.end(closed("connection"));
        let drained = tokio::time::timeout(deadline, self.shared.client.drain()).await;
        if let Ok(Err(native)) = drained {
            tracing::debug!(error = %native, "the connection was closed already");
        }
        Ok(())
    }

    fn native(&self) -> &(dyn Any + Send + Sync) {
        &self.shared.context
    }
}

fn info(config: &Config, server: &async_nats::ServerInfo) -> BrokerInfo {
    BrokerInfo {
        name: BACKEND,
        schemes: SCHEMES,
        server: format!("nats-server {}", server.version),
        capabilities: Capabilities {
            durability: Durability::PageCache(SYNC_INTERVAL),
            replication: match config.replicas {
                1 => Replication::None,
                _ => Replication::Quorum,
            },
            publish_dedup: PublishDedup::Window(config.duplicate_window),
            no_subscriber: match config.interest {
                true => NoSubscriber::Reject,
                false => NoSubscriber::Retain,
            },
            settle_confirmed: true,
            settle_fenced: Fencing::LocalClock,
            deliveries: Deliveries::Exact,
            release_uncounted: false,
            release_latency: Duration::from_secs(1),
            retry_place: RetryPlace::InPlace,
            delay: Support::Native,
            delay_min: Duration::from_millis(1),
            delay_rel_error: 0.0,
            delay_max: None,
            dead_letters: Support::Emulated,
            dlq_move: MoveKind::CopyThenSettle,
            suspect_lane: Support::Emulated,
            lease: LeaseKind::Timed,
            replay: true,
            exact_stats: false,
            max_message: server.max_payload,
            max_prefetch: 10_000,
        },
        steps: STEPS,
    }
}
