//! Who is measured, and what contenders share so that each does the same.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::case::Work;
use crate::meter::{Meter, Sample, Server};

/// A client that can be measured on one broker.
#[async_trait]
pub(crate) trait Contender: fmt::Debug + Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// Whether it can do this; longshore can do all.
    fn does(&self, work: Work) -> bool;

    /// Does `job` on a topic that is empty. What it makes there it may leave.
    ///
    /// # Errors
    /// Whatever the broker meets, and a count that is off.
    async fn run(&self, job: &Job) -> Result<Sample>;

    /// Removes what a run on `topic` left, whoever ran: the messages, or all of it.
    async fn clean(&self, topic: &str, left: Left) -> Result<()>;
}

/// What a run leaves to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Messages,
    Everything,
}

/// What one measurement is to do.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) topic: String,
    pub(crate) work: Work,
    pub(crate) messages: usize,
    /// One body for all messages: the payload itself costs no allocation.
    pub(crate) body: Bytes,
    pub(crate) server: Server,
}

/// Ten minutes in nanoseconds: no measurement lasts so long.
const LONGEST_TIME: u64 = 600_000_000_000;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since some moment of this process.
pub(crate) fn now() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Job {
    /// A body of the same size that begins with `number`.
    pub(crate) fn numbered(&self, number: u64) -> Bytes {
        let mut body = BytesMut::from(&self.body[..]);
        body[..8].copy_from_slice(&number.to_be_bytes());
        body.freeze()
    }

    pub(crate) fn meter(&self) -> Meter {
        Meter::start(self.server)
    }
}

/// The number that a body begins with.
///
/// # Errors
/// A body that is too short is none of ours.
pub(crate) fn number(body: &[u8]) -> Result<u64> {
    let head = body.first_chunk().context("a body without a number came back")?;
    Ok(u64::from_be_bytes(*head))
}

/// Runs `send` for each message, shared out over `tasks` tasks.
pub(crate) async fn in_tasks<F, S>(tasks: usize, messages: usize, send: F) -> Result<()>
where
    F: Fn() -> S + Clone + Send + 'static,
    S: Future<Output = Result<()>> + Send,
{
    let mut set = JoinSet::new();
    for task in 0..tasks {
        let share = messages / tasks + usize::from(task < messages % tasks);
        let send = send.clone();
        set.spawn(async move {
            for _ in 0..share {
                send().await?;
            }
            anyhow::Ok(())
        });
    }
    all(set).await
}

/// Queues each message, keeps at most `window` unconfirmed, and takes the confirmations in order.
pub(crate) async fn in_window<Q, A, C>(
    window: usize,
    messages: usize,
    mut queue: impl FnMut() -> Q,
    confirm: impl Fn(A) -> C,
) -> Result<()>
where
    Q: Future<Output = Result<A>>,
    C: Future<Output = Result<()>>,
{
    let mut unconfirmed = VecDeque::with_capacity(window);
    for _ in 0..messages {
        if unconfirmed.len() == window
            && let Some(oldest) = unconfirmed.pop_front()
        {
            confirm(oldest).await?;
        }
        unconfirmed.push_back(queue().await?);
    }
    for one in unconfirmed {
        confirm(one).await?;
    }
    Ok(())
}

/// Sends message after message at a steady pace, each in a task of its own, so that a slow
/// confirmation delays no send.
pub(crate) async fn paced<F, S>(messages: usize, pace: Duration, send: F) -> Result<()>
where
    F: Fn(usize) -> S,
    S: Future<Output = Result<()>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut set = JoinSet::new();
    for number in 0..messages {
        ticks.tick().await;
        set.spawn(send(number));
    }
    all(set).await
}

async fn all(mut set: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = set.join_next().await {
        ended.context("a task of the benchmark ended")??;
    }
    Ok(())
}

/// Counts handler runs; the clock starts with the first unless it was started before.
#[derive(Debug)]
pub(crate) struct Tracker {
    server: Server,
    messages: usize,
    wanted: usize,
    meter: OnceLock<Meter>,
    seen: AtomicUsize,
    all: Notify,
    fault: OnceLock<String>,
    times: Mutex<Histogram<u64>>,
}

impl Tracker {
    /// Waits for `runs` handler runs of each message.
    pub(crate) fn new(job: &Job, runs: usize) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            server: job.server,
            messages: job.messages,
            wanted: job.messages * runs,
            meter: OnceLock::new(),
            seen: AtomicUsize::new(0),
            all: Notify::new(),
            fault: OnceLock::new(),
            times: Mutex::new(Histogram::new_with_bounds(1, LONGEST_TIME, 3)?),
        }))
    }

    pub(crate) fn begin(&self) {
        self.meter.get_or_init(|| Meter::start(self.server));
    }

    /// Counts one handler run, and says which it is.
    pub(crate) fn run(&self) -> usize {
        self.begin();
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if number == self.wanted {
            self.all.notify_one();
        }
        number
    }

    pub(crate) fn time(&self, nanoseconds: u64) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.saturating_record(nanoseconds);
    }

    /// What must not happen did: the measurement fails.
    pub(crate) fn fail(&self, fault: String) {
        // The first is told.
        let _ = self.fault.set(fault);
        self.all.notify_one();
    }

    /// Waits for the last handler run, or for a fault.
    pub(crate) async fn all(&self) -> Result<()> {
        while self.seen.load(Ordering::Relaxed) < self.wanted {
            self.all.notified().await;
            if let Some(fault) = self.fault.get() {
                bail!("{fault}");
            }
        }
        Ok(())
    }

    /// Stops the clock; everything is settled by now.
    ///
    /// # Errors
    /// A count that is off.
    pub(crate) fn stop(&self) -> Result<Sample> {
        let meter = self.meter.get().context("no handler ran")?;
        let mut sample = meter.stop(self.messages);
        if let Some(fault) = self.fault.get() {
            bail!("{fault}");
        }
        let seen = self.seen.load(Ordering::Relaxed);
        ensure!(seen == self.wanted, "{seen} handler runs, {} expected", self.wanted);
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if !times.is_empty() {
            sample.times = Some(times.clone());
        }
        Ok(sample)
    }
}
