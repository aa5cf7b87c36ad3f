//! longshore as a contender, the same on every backend.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use longshore::{
    Client, Context, Failure, Handled, Policy, Receipt, Received, Running, Sender, Tally, Topology,
    WorkerBuilder,
};
use longshore_core::{NoSubscriber, Source};

use crate::case::{
    CONCURRENCY, DEAD_LETTER_GAP, LATENCY_PACE, LATENESS_GAP, LATENESS_PACE, SLOW_SHARE, SLOW_WAIT,
    WINDOW, Work,
};
use crate::contender::{Contender, Job, Left, Tracker, in_tasks, in_window, now, number, paced};
use crate::meter::Sample;

const GROUP: &str = "group";
/// Twice the raw client's batch: a pull is asked for when half of it is free.
const PREFETCH: u16 = 1000;
/// Between two looks at what the broker still holds.
const POLL: Duration = Duration::from_millis(1);

/// longshore's public API over one URL.
#[derive(Debug)]
pub(crate) struct Ours {
    url: String,
    /// Kept from run to run, but where the broker is a new one each time.
    client: Option<Client>,
}

impl Ours {
    /// One connection for all runs, and one group on `topic` for those that consume.
    pub(crate) async fn connected(url: &str, topic: &str) -> Result<Self> {
        let client = longshore::connect(url).await?;
        declare(&client, topic, &Policy::default()).await?;
        Ok(Self { url: url.to_owned(), client: Some(client) })
    }

    /// A new broker in this process for each run.
    pub(crate) fn embedded(url: &str) -> Self {
        Self { url: url.to_owned(), client: None }
    }
}

#[async_trait]
impl Contender for Ours {
    fn name(&self) -> &'static str {
        "longshore"
    }

    fn does(&self, _: Work) -> bool {
        true
    }

    async fn run(&self, job: &Job) -> Result<Sample> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => longshore::connect(&self.url).await?,
        };
        let run = Run { client, job: job.clone() };
        match job.work {
            Work::Tasks(tasks) => run.tasks(tasks).await,
            Work::Window(window) => run.window(window).await,
            Work::Consume => run.consume(None).await,
            Work::Slow => run.consume(Some(SLOW_WAIT)).await,
            Work::Both => run.both().await,
            Work::Latency => run.latency().await,
            Work::DeadLetter => run.dead_letter().await,
            Work::Lateness => run.lateness().await,
        }
    }

    /// The broker of a run is gone with its client; of one that stays, a raw client cleans.
    async fn clean(&self, _: &str, _: Left) -> Result<()> {
        Ok(())
    }
}

struct Run {
    client: Client,
    job: Job,
}

/// A confirmation counts only where the message was stored by it.
fn confirmed(receipt: longshore::Result<Receipt>) -> Result<()> {
    ensure!(!receipt?.duplicate, "a new message was taken for a duplicate");
    Ok(())
}

impl Run {
    async fn tasks(&self, tasks: usize) -> Result<Sample> {
        let sender = self.topic_only().await?;
        let body = self.job.body.clone();
        let meter = self.job.meter();
        let send = move || {
            let (sender, body) = (sender.clone(), body.clone());
            async move { confirmed(sender.send(body).await) }
        };
        in_tasks(tasks, self.job.messages, send).await?;
        Ok(meter.stop(self.job.messages))
    }

    async fn window(&self, window: usize) -> Result<Sample> {
        let sender = self.topic_only().await?;
        let meter = self.job.meter();
        self.send_windowed(&sender, window).await?;
        Ok(meter.stop(self.job.messages))
    }

    async fn send_windowed(&self, sender: &Sender, window: usize) -> Result<()> {
        let body = &self.job.body;
        let queue = || async { Ok(sender.queue(body.clone()).await) };
        in_window(window, self.job.messages, queue, async |one| confirmed(one.await)).await
    }

    async fn topic_only(&self) -> Result<Sender> {
        // What no group has would be parked in one place for all topics, and stay there.
        if self.client.info().capabilities.no_subscriber == NoSubscriber::Park {
            self.declare(&Policy::default()).await?;
        } else {
            let name = self.job.topic.as_str().try_into()?;
            self.client.declare(&Topology::topic(name)).await?;
        }
        Ok(self.client.sender(self.job.topic.as_str()).await?)
    }

    /// `wait`: how long each hundredth handler takes.
    async fn consume(&self, wait: Option<Duration>) -> Result<Sample> {
        let policy = Policy::default();
        self.declare(&policy).await?;
        let sender = self.client.sender(self.job.topic.as_str()).await?;
        let bodies = std::iter::repeat_n(self.job.body.clone(), self.job.messages);
        sender.send_all(bodies).await.into_iter().try_for_each(confirmed)?;
        let tracker = Tracker::new(&self.job, 1)?;
        let (handler, size) = (tracker.clone(), self.job.body.len());
        let running = self.worker(policy).handle(move |received: Received| {
            let tracker = handler.clone();
            async move {
                check_size(&tracker, &received, size);
                let number = tracker.run();
                if let Some(wait) = wait.filter(|_| number.is_multiple_of(SLOW_SHARE)) {
                    tokio::time::sleep(wait).await;
                }
                Handled::Ok(())
            }
        });
        let running = running.start().await?;
        self.finish(&tracker, &running, |tally, wanted| tally.succeeded == wanted).await
    }

    async fn both(&self) -> Result<Sample> {
        let policy = Policy::default();
        let tracker = Tracker::new(&self.job, 1)?;
        let handler = tracker.clone();
        let running = self.worker(policy).handle(move |_: Received| {
            let tracker = handler.clone();
            async move {
                tracker.run();
                Handled::Ok(())
            }
        });
        let running = running.start().await?;
        let sender = self.client.sender(self.job.topic.as_str()).await?;
        tracker.begin();
        self.send_windowed(&sender, WINDOW).await?;
        self.finish(&tracker, &running, |tally, wanted| tally.succeeded == wanted).await
    }

    async fn latency(&self) -> Result<Sample> {
        let tracker = Tracker::new(&self.job, 1)?;
        let handler = tracker.clone();
        let running = self.worker(Policy::default()).handle(move |received: Received| {
            let arrived = now();
            let tracker = handler.clone();
            async move {
                match number(&received.body) {
                    Ok(sent) => tracker.time(arrived.saturating_sub(sent)),
                    Err(error) => tracker.fail(error.to_string()),
                }
                tracker.run();
                Handled::Ok(())
            }
        });
        let running = running.start().await?;
        tracker.begin();
        self.send_paced(LATENCY_PACE, |_| now()).await?;
        self.finish(&tracker, &running, |tally, wanted| tally.succeeded == wanted).await
    }

    async fn dead_letter(&self) -> Result<Sample> {
        let policy = once_more(DEAD_LETTER_GAP)?;
        self.declare(&policy).await?;
        let sender = self.client.sender(self.job.topic.as_str()).await?;
        let bodies = std::iter::repeat_n(self.job.body.clone(), self.job.messages);
        sender.send_all(bodies).await.into_iter().try_for_each(confirmed)?;
        let tracker = Tracker::new(&self.job, 2)?;
        let handler = tracker.clone();
        let running = self.worker(policy).handle(move |_: Received| {
            let tracker = handler.clone();
            async move {
                tracker.run();
                Handled::Err(Failure::transient("it always fails"))
            }
        });
        let running = running.start().await?;
        let sample = self.finish(&tracker, &running, |tally, wanted| {
            (tally.dead_lettered, tally.retried) == (wanted, wanted)
        });
        let sample = sample.await?;
        let letters = self.client.dead_letters(self.job.topic.as_str(), GROUP)?;
        let count = letters.count().await?;
        ensure!(count == self.job.messages as u64, "{count} dead letters are in the queue");
        Ok(sample)
    }

    async fn lateness(&self) -> Result<Sample> {
        let tracker = Tracker::new(&self.job, 2)?;
        let failed: Arc<[OnceLock<Instant>]> =
            (0..self.job.messages).map(|_| OnceLock::new()).collect();
        let handler = tracker.clone();
        let policy = once_more(LATENESS_GAP)?;
        let worker = self.worker(policy).handle(move |received: Received, context: Context| {
            let arrived = Instant::now();
            let (tracker, failed) = (handler.clone(), failed.clone());
            async move {
                tracker.run();
                let index = number(&received.body)?;
                let first = usize::try_from(index).ok().and_then(|index| failed.get(index));
                let first = first.context("a message came back with another body")?;
                if context.attempt() == 1 {
                    // As early as it can be: what is called late includes the settlement.
                    first.get_or_init(Instant::now);
                    return Handled::Err(Failure::transient("the first run fails"));
                }
                let due = *first.get().context("a second run without a first")? + LATENESS_GAP;
                match arrived.checked_duration_since(due) {
                    Some(late) => tracker.time(u64::try_from(late.as_nanos())?),
                    None => tracker.fail(format!("a retry came {:?} early", due - arrived)),
                }
                Handled::Ok(())
            }
        });
        let running = worker.start().await?;
        tracker.begin();
        self.send_paced(LATENESS_PACE, |number| number as u64).await?;
        let done = |tally: &Tally, wanted| (tally.succeeded, tally.retried) == (wanted, wanted);
        self.finish(&tracker, &running, done).await
    }

    async fn send_paced(&self, pace: Duration, stamp: fn(usize) -> u64) -> Result<()> {
        let sender = self.client.sender(self.job.topic.as_str()).await?;
        let job = Arc::new(self.job.clone());
        paced(self.job.messages, pace, move |number| {
            let (sender, job) = (sender.clone(), job.clone());
            async move { confirmed(sender.send(job.numbered(stamp(number))).await) }
        })
        .await
    }

    fn worker(&self, policy: Policy) -> WorkerBuilder {
        let worker = self.client.worker(self.job.topic.as_str(), GROUP);
        worker.policy(policy).concurrency(CONCURRENCY).prefetch(PREFETCH)
    }

    async fn declare(&self, policy: &Policy) -> Result<()> {
        declare(&self.client, &self.job.topic, policy).await
    }

    /// Waits until all is handled and the broker has every settlement; then stops clock and worker.
    async fn finish(
        &self,
        tracker: &Tracker,
        running: &Running,
        complete: impl Fn(&Tally, u64) -> bool,
    ) -> Result<Sample> {
        tracker.all().await?;
        let (topic, group) = (self.job.topic.as_str().try_into()?, GROUP.try_into()?);
        let group = Source::Group { topic, group };
        loop {
            let stats = self.client.broker().stats(&group).await?;
            if stats.ready + stats.in_flight + stats.waiting == 0 {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        let sample = tracker.stop()?;
        let tally = running.stop().await?;
        let wanted = self.job.messages as u64;
        ensure!(complete(&tally, wanted), "of {wanted} messages the worker says: {tally}");
        Ok(sample)
    }
}

/// Makes the group before there are messages for it.
async fn declare(client: &Client, topic: &str, policy: &Policy) -> Result<()> {
    let group = client.subscribe(topic, GROUP).policy(policy.clone());
    Ok(group.await?.close().await?)
}

fn check_size(tracker: &Tracker, received: &Received, size: usize) {
    if received.body.len() != size {
        tracker.fail("a message came with another body".to_owned());
    }
}

fn once_more(gap: Duration) -> Result<Policy> {
    // What always fails would open it.
    let policy = Policy::builder().breaker(None).max_attempts(2).fast_delays([]);
    let policy = policy.delayed([gap]).jitter(0.0);
    Ok(policy.build()?)
}
