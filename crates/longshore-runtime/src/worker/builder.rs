use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use longshore_core::{
    Deliveries, GroupName, Policy, Result, SmolStr, Source, Start, Support, TopicName,
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::alarms::Alarms;
use super::check::{DEFAULT_LEASE, check, check_group, prefetch, within_rate};
use super::lane::Lane;
use super::running::Running;
use super::shard;
use super::shared::{Flow, Shared};
use super::watch::Watch;
use crate::client::Client;
use crate::context;
use crate::engine::{Book, Config, Engine, Facts, Gate};
use crate::handler::{AnyHandler, Handler, TypedHandler};
use crate::observe::{GroupGauges, LaneMeters, Scope, Vitals};
use crate::tally::Tally;

const DEFAULT_WATCH: Duration = Duration::from_secs(10);
const SHORTEST_WATCH: Duration = Duration::from_millis(100);

/// Everything about a worker but its handler. Nothing happens before
/// [`start`](Worker::start).
#[must_use = "a worker does nothing until it is started"]
pub struct WorkerBuilder {
    client: Client,
    topic: Result<TopicName>,
    group: Result<GroupName>,
    policy: Policy,
    concurrency: usize,
    parallelism: Option<usize>,
    prefetch: Option<u16>,
    lease: Duration,
    start: Start,
    state: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    name: Option<SmolStr>,
    watch: Duration,
}

impl WorkerBuilder {
    pub(crate) fn new(client: Client, topic: Result<TopicName>, group: Result<GroupName>) -> Self {
        Self {
            client,
            topic,
            group,
            policy: Policy::default(),
            concurrency: 64,
            parallelism: None,
            prefetch: None,
            lease: DEFAULT_LEASE,
            start: Start::Declared,
            state: HashMap::new(),
            name: None,
            watch: DEFAULT_WATCH,
        }
    }

    /// What happens to messages whose handler fails. Default: [`Policy::default`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Handler runs at a time. Default: 64. One keeps the order of first deliveries.
    pub fn concurrency(mut self, runs: usize) -> Self {
        self.concurrency = runs;
        self
    }

    /// Tasks that the runs are spread over, so that a slow handler stalls only its share. Default:
    /// the cores of the machine, or the concurrency where that is less.
    pub fn parallelism(mut self, tasks: usize) -> Self {
        self.parallelism = Some(tasks);
        self
    }

    /// Unsettled deliveries at most, running ones included. Default: twice the concurrency, at
    /// least 16. A rate limit lowers it to what can be started within one `handler_timeout`.
    pub fn prefetch(mut self, deliveries: u16) -> Self {
        self.prefetch = Some(deliveries);
        self
    }

    /// How long a delivery stays with this process without a sign of life. Default: 30 s. It is the
    /// group's: the last declared holds for all members.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Where the group starts if it is new. Default: at its declaration.
    pub fn start_at(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Gives every run a value, reached by its type: [`Context::state`](crate::Context::state).
    pub fn state<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.state.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// The handler's name in dead letters. Default: its path in the program.
    pub fn name(mut self, name: impl AsRef<str>) -> Self {
        self.name = Some(SmolStr::new(name));
        self
    }

    /// How often the broker is asked what the group has in it, for the gauges and to find a consumer
    /// that gets nothing of it: after three times it is made again. Default: 10 s; at least 100 ms.
    pub fn watch(mut self, every: Duration) -> Self {
        self.watch = every.max(SHORTEST_WATCH);
        self
    }

    /// A handler of decoded JSON: an async function or closure of `(T)` or `(T, Context)`. A body
    /// that cannot be decoded is dead-lettered at once, raw, as `undecodable`.
    pub fn json<T, H, Args>(self, handler: H) -> Worker
    where
        T: DeserializeOwned + Send + 'static,
        H: TypedHandler<T, Args>,
        Args: 'static,
    {
        Worker { builder: self, handler: AnyHandler::json(handler) }
    }

    /// A handler of messages as they came: an async function or closure of
    /// `(`[`Received`](longshore_core::Received)`)` or `(Received, Context)`.
    pub fn handle<H, Args>(self, handler: H) -> Worker
    where
        H: Handler<Args>,
        Args: 'static,
    {
        Worker { builder: self, handler: AnyHandler::raw(handler) }
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// A worker that is ready to start.
#[derive(Debug)]
#[must_use = "a worker does nothing until it is started"]
pub struct Worker {
    builder: WorkerBuilder,
    handler: AnyHandler,
}

impl Worker {
    /// Declares the group and starts. Resolves once it is reading: what is published from now on
    /// reaches it.
    ///
    /// # Errors
    /// `Config` for names or numbers that make no sense; `Unsupported` where the backend declares
    /// that it lacks what the policy asks for; `AlreadyExists` where the group exists with other
    /// settings; whatever the connection meets.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing runs; the group may be declared.
    pub async fn start(self) -> Result<Running> {
        let Self { builder, handler } = self;
        let client = builder.client.clone();
        let topic = builder.topic?;
        let group = builder.group?;
        let policy = Arc::new(builder.policy);
        let capabilities = &client.info().capabilities;
        let concurrency = builder.concurrency;
        let prefetch = prefetch(builder.prefetch, concurrency, capabilities)?;
        let prefetch = within_rate(prefetch, &policy);
        check_group(&policy, builder.start, builder.lease, client.info().name, capabilities)?;
        check(&policy, client.info().name, capabilities)?;

        let full = client.full(&topic);
        client.declare_group(&full, &group, &policy, builder.start, builder.lease).await?;

        let isolation = capabilities.suspect_lane != Support::Unsupported
            && capabilities.deliveries != Deliveries::Flag;
        let facts = Arc::new(Facts {
            topic: full.clone(),
            group: group.clone(),
            backend: client.info().name,
            handler: builder.name.unwrap_or_else(|| SmolStr::new(handler.name)),
            instance: client.setup().instance.clone(),
            policy: policy.fingerprint(),
        });
        let contexts = Arc::new(context::Shared {
            client: client.clone(),
            topic,
            group: group.clone(),
            state: builder.state,
        });
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let parallelism = builder.parallelism.unwrap_or(cores).clamp(1, concurrency);
        let flow = Flow::new(Gate::new(&policy));
        let mut plan = Plan {
            client: client.clone(),
            handler,
            policy,
            contexts,
            facts,
            lease: builder.lease,
            isolation,
            stop: CancellationToken::new(),
            flow,
            vitals: Vitals::new(full.clone(), group.clone()),
        };

        // A lane that runs already ends with an error of the next.
        let unfinished = plan.stop.clone().drop_guard();
        let main = Source::Group { topic: full.clone(), group: group.clone() };
        let mut lanes = vec![plan.lane(main.clone(), concurrency, parallelism, prefetch).await?];
        if isolation {
            // One at a time: what may kill the process kills nobody's neighbour.
            let suspects = Source::Suspects { topic: full.clone(), group: group.clone() };
            lanes.push(plan.lane(suspects, 1, 1, 1).await?);
        }
        tracing::info!(
            backend = client.info().name, topic = %full, %group, concurrency, prefetch,
            policy = plan.policy.summary(), "worker started"
        );
        unfinished.disarm();
        client.ward().enter(&plan.vitals);
        let gauges = GroupGauges::new(&Scope::worker(client.info().name, &main));
        let watch = Watch {
            client: client.clone(),
            source: main,
            lanes: lanes.iter().map(|(shared, _)| shared.clone()).collect(),
            vitals: plan.vitals,
            gauges,
            every: builder.watch,
            prefetch: usize::from(prefetch),
        };
        Ok(Running::new(client, full, group, plan.stop, lanes, watch))
    }

    /// Starts, runs until `shutdown` resolves, drains, and says what was done. For a service's
    /// main.
    ///
    /// # Errors
    /// As [`Worker::start`] and [`Running::stop`]; an error that no reconnect can mend ends it
    /// before `shutdown` does.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<Tally> {
        let running = self.start().await?;
        tokio::select! {
            () = shutdown => {}
            () = running.ended() => {}
        }
        running.stop().await
    }
}

/// What both lanes of a worker are made from.
struct Plan {
    client: Client,
    handler: AnyHandler,
    policy: Arc<Policy>,
    contexts: Arc<context::Shared>,
    facts: Arc<Facts>,
    lease: Duration,
    isolation: bool,
    stop: CancellationToken,
    /// One handler, one breaker and one rate, whichever lane a message comes from.
    flow: Flow,
    vitals: Arc<Vitals>,
}

/// A lane that runs: what it shares, and its loop.
pub(super) type Started = (Arc<Shared>, tokio::task::JoinHandle<Result<()>>);

impl Plan {
    async fn lane(
        &mut self,
        source: Source,
        concurrency: usize,
        parallelism: usize,
        prefetch: u16,
    ) -> Result<Started> {
        let capabilities = &self.client.info().capabilities;
        let consumer: Arc<_> = self.client.consumer(&source, prefetch, self.lease).await?.into();
        let config = Config {
            policy: self.policy.clone(),
            book: Book(self.facts.clone()),
            concurrency,
            max_body: self.client.max_body(),
            suspects: matches!(source, Source::Suspects { .. }),
            isolation: self.isolation,
            release_counted: !capabilities.release_uncounted,
        };
        let engine = Engine::new(config, fastrand::u64(..)).sharing(self.flow.gate.clone());
        let backend = self.client.info().name;
        let meters = LaneMeters::new(&Scope::worker(backend, &source));
        let (bell, vitals) = (self.client.bell().clone(), self.vitals.clone());
        let alarms = Alarms { backend, source: source.clone(), bell, vitals };
        let clock = self.client.clock().clone();
        let flow = self.flow.clone();
        let shared = Arc::new(Shared::new(engine, flow, parallelism, clock, alarms, meters));
        let closed = CancellationToken::new();
        let share = concurrency.div_ceil(parallelism);
        for index in 0..parallelism {
            tokio::spawn(shard::run(
                shared.clone(),
                index,
                share,
                self.handler.clone(),
                self.contexts.clone(),
                closed.clone(),
            ));
        }
        let lane = Lane {
            shared: shared.clone(),
            client: self.client.clone(),
            source,
            lease: self.lease,
            consumer,
            prefetch,
            drain: self.policy.drain(),
            stop: self.stop.clone(),
        };
        let guard = closed.drop_guard();
        let task = tokio::spawn(async move {
            let _shards_end_with_the_lane = guard;
            lane.run().await
        });
        Ok((shared, task))
    }
}
