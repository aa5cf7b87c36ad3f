//! The connection.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use longshore_core::{
    Broker, BrokerInfo, Capabilities, Consumer, ConsumerSpec, Cursor, Deliveries, Durability,
    Error, Fencing, Finding, InstanceId, LeaseKind, MAX_HEADERS, MAX_LETTER, MAX_RECORD, MoveKind,
    NoSubscriber, Page, Position, PublishDedup, Publisher, Received, Replication, Result,
    RetryPlace, Setup, Severity, Source, Stats, Support, TopicName, Topology,
};
use tokio::time::Instant;

use crate::codec::{self, INERT};
use crate::config::{Config, SCHEMES};
use crate::consumer::MemoryConsumer;
use crate::declare::declare;
use crate::error::{BACKEND, full};
use crate::group::{Group, Lane};
use crate::publisher::MemoryPublisher;
use crate::registry::Client;
use crate::store::Item;
use crate::world::World;

/// Connects to `memory://` or `memory://NAME`.
///
/// # Errors
/// A `Config` error where the URL is wrong, or where it asks a shared broker for a capacity or a
/// window other than those that it was made with.
pub async fn connect(url: &str, setup: Setup) -> Result<Memory> {
    let config = Config::parse(url)?;
    let client = Client::connect(config, setup, info)?;
    Ok(Memory { client: Arc::new(client) })
}

/// The embedded broker. Clones share one connection.
#[derive(Clone)]
pub struct Memory {
    client: Arc<Client>,
}

impl Memory {
    /// Plays the death of a process: the consumers of `instance`, and all on a connection that was
    /// set up with it, are heard no more. Their `receive`
    /// ends with `Closed`, late settlements and extensions are `LeaseLost`, and what they held
    /// comes back when its leases are over by the clock, one delivery more.
    ///
    /// Consumers that are opened later under the same instance are alive.
    pub fn crash(&self, instance: &InstanceId) {
        let mut state = self.client.world.lock();
        state.groups.iter_mut().for_each(|group| group.crash(instance));
    }

    /// Plays a foreign program: stores `body` without an id and with `headers` as they are, names
    /// and values that no longshore publisher would write included.
    ///
    /// # Errors
    /// `NotFound` where the topic does not exist, `Backpressure` where the broker is full, `Closed`
    /// after [`Broker::close`].
    pub fn inject(
        &self,
        topic: &TopicName,
        body: impl Into<Bytes>,
        headers: Vec<(String, Bytes)>,
    ) -> Result<()> {
        let wall = self.client.setup.clock.now();
        let mut state = self.client.world.lock();
        self.client.check_open()?;
        let place = state.topic_place(topic)?;
        if state.stored >= self.client.world.capacity {
            return Err(full(self.client.world.capacity));
        }
        let seq = state.topics[place].next_seq();
        let entry = codec::foreign(body.into(), headers, seq, Instant::now(), wall);
        state.store(place, entry);
        state.wake_groups(place);
        Ok(())
    }

    /// How many messages a topic keeps: those that some group has not settled, and those that it
    /// got before it had a group.
    ///
    /// # Errors
    /// `NotFound` where the topic does not exist.
    pub fn stored(&self, topic: &TopicName) -> Result<usize> {
        let state = self.client.world.lock();
        Ok(state.topics[state.topic_place(topic)?].len())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("name", &self.client.config.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Memory {
    fn info(&self) -> &BrokerInfo {
        &self.client.info
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.client.check_open()?;
        declare(&self.client.world, topology)
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        Ok(Box::new(MemoryPublisher::open(self.client.clone(), topic)?))
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        Ok(Box::new(MemoryConsumer::open(self.client.clone(), spec)?))
    }

    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>> {
        self.client.check_open()?;
        let after = after(page.after.as_ref())?;
        let mut state = self.client.world.lock();
        let group = state.current(source, Instant::now())?;
        Ok(look(group, source, after, page.limit))
    }

    async fn stats(&self, source: &Source) -> Result<Stats> {
        self.client.check_open()?;
        let now = Instant::now();
        let mut state = self.client.world.lock();
        Ok(count(state.current(source, now)?, Lane::from(source), now))
    }

    async fn audit(&self) -> Result<Vec<Finding>> {
        self.client.check_open()?;
        Ok(vec![Finding {
            severity: Severity::Info,
            setting: "memory://".to_owned(),
            message: "everything lives in this process and dies with it, so no promise outlives \
                      it; for messages that must, connect to a broker outside"
                .to_owned(),
        }])
    }

    async fn close(&self) -> Result<()> {
        self.client.close();
        Ok(())
    }

    fn native(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

fn after(cursor: Option<&Cursor>) -> Result<u64> {
    match cursor {
        None | Some(Position::None) => Ok(0),
        Some(Position::Sequence(sequence)) => Ok(*sequence),
        Some(other) => {
            let text = format!("`{}` is no cursor of this broker", other.to_text());
            Err(Error::config(text).with_backend(BACKEND))
        }
    }
}

/// What a browse shows. Dead letters that a consumer holds are shown too: they stay in the queue
/// until they are settled.
fn look(group: &Group, source: &Source, after: u64, limit: usize) -> Vec<Received> {
    let topic = source.topic();
    let items = |list: &mut dyn Iterator<Item = &Item>| {
        let mut items: Vec<_> = list.filter(|item| item.seq() > after).collect();
        items.sort_unstable_by_key(|item| item.seq());
        items.into_iter().take(limit).map(|item| codec::message(topic, item, INERT)).collect()
    };
    match Lane::from(source) {
        Lane::Main => items(&mut group.ready().chain(group.waiting())),
        Lane::Suspects => items(&mut group.suspects()),
        Lane::Letters => {
            let all = group.letters.available().chain(group.letters.flight.values());
            let mut all: Vec<_> = all.filter(|dead| dead.number > after).collect();
            all.sort_unstable_by_key(|dead| dead.number);
            all.into_iter().take(limit).map(|dead| codec::letter(topic, dead, INERT)).collect()
        }
    }
}

/// Ages count from the publishing; those of dead letters from the move.
fn count(group: &Group, lane: Lane, now: Instant) -> Stats {
    let age = |since: Option<Instant>| since.map(|since| now.duration_since(since));
    let number = |count: usize| count as u64;
    match lane {
        Lane::Main => Stats {
            ready: number(group.ready_len()),
            in_flight: number(group.main.len()),
            waiting: number(group.waiting().len()),
            oldest_ready: age(group.oldest_ready()),
            oldest_waiting: age(group.waiting().map(|item| item.entry.published).min()),
            unrouted: 0,
        },
        Lane::Suspects => Stats {
            ready: number(group.suspects().len()),
            in_flight: number(group.suspect.len()),
            oldest_ready: age(group.suspects().next().map(|item| item.entry.published)),
            ..Stats::default()
        },
        Lane::Letters => Stats {
            ready: number(group.letters.len()),
            in_flight: number(group.letters.flight.len()),
            oldest_ready: age(group.letters.available().next().map(|dead| dead.since)),
            ..Stats::default()
        },
    }
}

fn info(config: &Config, world: &World) -> BrokerInfo {
    BrokerInfo {
        name: BACKEND,
        schemes: SCHEMES,
        server: format!("memory {}", env!("CARGO_PKG_VERSION")),
        capabilities: Capabilities {
            durability: Durability::Memory,
            replication: Replication::None,
            publish_dedup: match world.dedup {
                Duration::ZERO => PublishDedup::None,
                window => PublishDedup::Window(window),
            },
            no_subscriber: NoSubscriber::Retain,
            settle_confirmed: true,
            settle_fenced: Fencing::Broker,
            deliveries: Deliveries::Exact,
            release_uncounted: true,
            release_latency: Duration::ZERO,
            retry_place: RetryPlace::InPlace,
            delay: Support::Native,
            delay_min: Duration::ZERO,
            delay_rel_error: 0.0,
            delay_max: None,
            dead_letters: Support::Native,
            dlq_move: MoveKind::Atomic,
            suspect_lane: Support::Native,
            lease: LeaseKind::Timed,
            replay: true,
            exact_stats: true,
            // The largest body, and beside it all that can stand there.
            max_message: config.max_body.saturating_add(MAX_HEADERS + MAX_LETTER + MAX_RECORD),
            max_prefetch: u16::MAX,
        },
        steps: &[],
    }
}
