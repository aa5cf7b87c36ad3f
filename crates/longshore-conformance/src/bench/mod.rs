//! What a check works with: clients of the broker under test, names of its own, the ledger, time.

mod hooks;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_core::policy::{Builder, DeadLetters};
use longshore_core::{
    Broker, BrokerInfo, Capabilities, Clock, Error, ErrorKind, Group, GroupName, InstanceId,
    NoProbe, Policy, Result, Setup, Source, Start, SystemClock, Tenant, TopicName, Topology,
};
use longshore_runtime::{Client, ClientOptions, TokioClock};

use crate::check::{Need, Outcome, Stop};
use crate::control::Control;
use crate::harness::Harness;
use crate::ledger::{Ledger, Records};
use crate::member::Member;
use crate::mutants::{Broken, World};
use crate::sabotage::{Sabotage, Saboteur};
use crate::tap::Tap;

/// The lease of every group of the suite.
pub const LEASE: Duration = Duration::from_secs(2);
/// The usual delay of a retry.
pub const STEP: Duration = Duration::from_millis(200);
/// How long a check waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a check watches for what must not happen, where no other time stands to reason.
pub const WINDOW: Duration = Duration::from_millis(500);

/// The surroundings of one run of one check.
#[derive(Debug)]
pub struct Bench {
    harness: Arc<dyn Harness>,
    server: String,
    world: Option<Arc<World>>,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    control: Control,
    prefix: String,
    named: AtomicU32,
    clients: Mutex<Vec<Client>>,
    info: BrokerInfo,
}

impl Bench {
    /// Connects a first client, to learn what the backend declares.
    pub(crate) async fn open(
        harness: Arc<dyn Harness>,
        server: &str,
        world: Option<Arc<World>>,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = if harness.virtual_clock() {
            Arc::new(TokioClock::new())
        } else {
            Arc::new(SystemClock)
        };
        let setup = setup(&clock);
        let first = harness.connect(server, setup.clone()).await?;
        let info = first.info().clone();
        Ok(Self {
            harness,
            server: server.to_owned(),
            world,
            ledger: Arc::default(),
            clock,
            control: Control::start(),
            // Unique for each run, so that what an earlier one left behind meets nobody.
            prefix: format!("cf{}", InstanceId::generate()),
            named: AtomicU32::new(0),
            clients: Mutex::new(vec![Client::new(first, setup)]),
            info,
        })
    }

    /// What the backend says of itself.
    #[must_use]
    pub fn info(&self) -> &BrokerInfo {
        &self.info
    }

    /// Everything that was handed over, settled and run.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The wall clock that records and letters are written by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// A further client of the broker, as a process of its own would have it.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn member(&self) -> Result<Member> {
        self.join(ClientOptions::default(), None).await
    }

    /// A client whose names stand under `tenant`.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn tenant(&self, tenant: Tenant) -> Result<Member> {
        self.join(ClientOptions { tenant: Some(tenant), ..ClientOptions::default() }, None).await
    }

    /// A client between whom and the broker something goes wrong.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub(crate) async fn sabotaged(&self, sabotage: &Arc<Sabotage>) -> Result<Member> {
        self.join(ClientOptions::default(), Some(sabotage.clone())).await
    }

    async fn join(
        &self,
        options: ClientOptions,
        sabotage: Option<Arc<Sabotage>>,
    ) -> Result<Member> {
        let setup = setup(&self.clock);
        let broker = self.harness.connect(&self.server, setup.clone()).await?;
        // Innermost: a broker that is broken must cope with it like any other.
        let broker = match sabotage {
            Some(sabotage) => Arc::new(Saboteur::new(broker, sabotage)),
            None => broker,
        };
        Ok(self.enter(broker, setup, options))
    }

    /// Makes a client of a connection, seen by the ledger.
    fn enter(&self, broker: Arc<dyn Broker>, setup: Setup, options: ClientOptions) -> Member {
        let broker = match &self.world {
            Some(world) => Arc::new(Broken::new(broker, world.clone())),
            None => broker,
        };
        // Outermost: the ledger shows what the runtime sees of a broker that is broken.
        let broker: Arc<dyn Broker> = Arc::new(Tap::new(broker, self.ledger.clone()));
        let client = Client::with_options(broker, setup.clone(), options);
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
        Member::new(client, setup.instance, self.ledger.clone())
    }

    /// A topic that nobody else uses.
    ///
    /// # Panics
    /// Where a check's own word is no part of a name.
    #[must_use]
    pub fn topic(&self, word: &str) -> TopicName {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        TopicName::new(format!("{}-{number}-{word}", self.prefix)).expect("a word makes a name")
    }

    /// A group's name; its topic makes it unique.
    ///
    /// # Panics
    /// Where a check's own word is no name.
    #[must_use]
    pub fn group(&self, word: &str) -> GroupName {
        GroupName::new(word).expect("a word makes a name")
    }

    /// A group and its topic, as a worker with [`Bench::policy`] declares them.
    #[must_use]
    pub fn topology(&self, topic: &TopicName, group: &GroupName) -> Topology {
        Topology::group(Group {
            topic: topic.clone(),
            name: group.clone(),
            start: Start::Declared,
            lease: LEASE,
            dead_letters: Need::DeadLetters
                .is_met(&self.info.capabilities)
                .then_some(DeadLetters::default().retention),
            longest_delay: self.delay(STEP),
        })
    }

    /// Waits for what must happen; see [`Ledger::wait`].
    ///
    /// # Errors
    /// [`Stop::Failed`] where it does not happen within [`PATIENCE`].
    pub async fn wait(&self, what: &str, holds: impl FnMut(&Records) -> bool) -> Outcome {
        Ok(self.ledger.wait(what, PATIENCE, holds).await?)
    }

    /// Watches for what must not happen; see [`Ledger::stays`].
    ///
    /// # Errors
    /// [`Stop::Failed`] as soon as it happens.
    pub async fn stays(
        &self,
        what: &str,
        during: Duration,
        holds: impl FnMut(&Records) -> bool,
    ) -> Outcome {
        Ok(self.ledger.stays(what, during, holds).await?)
    }

    /// How late anything may be beyond its own time, by a timer-only control of this run.
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.control.bound()
    }

    /// The latest end of a delay: what the backend declares on top, and the bound.
    #[must_use]
    pub fn latest(&self, delay: Duration) -> Duration {
        delay.mul_f64(1.0 + self.info.capabilities.delay_rel_error) + self.bound()
    }

    /// A delay of at least `wanted` that the backend can keep.
    #[must_use]
    pub fn delay(&self, wanted: Duration) -> Duration {
        wanted.max(self.info.capabilities.delay_min)
    }

    /// The suite's quick policy, to be changed: three attempts, one durable step between them, no
    /// jitter, no breaker. It asks for nothing that the backend declares to be missing.
    #[must_use]
    pub fn policy(&self) -> Builder {
        quick(&self.info.capabilities)
    }

    /// The negative of a check: what needs the missing ability is refused, typed, at start.
    pub(crate) async fn refuses(&self, need: Need) -> Outcome {
        let member = self.member().await?;
        let (topic, group) = (self.topic("refused"), self.group("group"));
        let policy = match need {
            Need::Delay => self.policy().fast_delays([]).delayed([STEP]),
            Need::DeadLetters => self.policy().dead_letter(DeadLetters::default()),
        };
        let policy = policy.build().map_err(Error::from)?;
        let worker = member.work(&topic, &group).policy(policy);
        match worker.handle(member.handler(|_, _| async { Ok(()) })).start().await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            Err(error) => Err(Stop::Failed(format!(
                "{need} are declared to be missing: expected `Unsupported`, got {error:?}"
            ))),
            Ok(running) => {
                running.stop().await?;
                Err(Stop::Failed(format!("{need} are declared to be missing, and accepted")))
            }
        }
    }

    /// Where a group's messages are.
    #[must_use]
    pub fn source(&self, topic: &TopicName, group: &GroupName) -> Source {
        Source::Group { topic: topic.clone(), group: group.clone() }
    }

    /// Closes what the check opened. What it left behind is no other check's business.
    pub(crate) async fn close(&self) {
        let clients =
            std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for client in clients {
            // The check has its result; a connection that does not close is another check's matter.
            let _ = tokio::time::timeout(PATIENCE, client.close()).await;
        }
    }
}

/// The suite's policy on a backend that can do so much.
pub(crate) fn quick(capabilities: &Capabilities) -> Builder {
    let step = STEP.max(capabilities.delay_min);
    let policy = Policy::builder()
        .max_attempts(3)
        // Most checks fail on purpose, and often.
        .breaker(None)
        .jitter(0.0)
        .handler_timeout(Duration::from_secs(30))
        .drain(Duration::from_secs(5));
    let policy = if Need::Delay.is_met(capabilities) {
        policy.fast_delays([]).delayed([step])
    } else {
        policy.fast_delays([step, step]).delayed([])
    };
    let enabled = Need::DeadLetters.is_met(capabilities);
    policy.dead_letter(DeadLetters { enabled, ..DeadLetters::default() })
}

fn setup(clock: &Arc<dyn Clock>) -> Setup {
    Setup { instance: InstanceId::generate(), probe: Arc::new(NoProbe), clock: clock.clone() }
}
