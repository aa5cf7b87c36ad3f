use std::fmt::{self, Write};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use longshore_core::{
    Broker, Durability, Error, GroupName, Result, Setup, Source, Tenant, TopicName,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use super::broker::WatchedBroker;
use super::journal::{Entry, What};
use super::stage::Stage;
use crate::client::{Client, ClientOptions};
use crate::clock::TokioClock;
use crate::dead_letters::DeadLetter;

/// On a live broker, nothing happened for so long means idle.
const QUIET: Duration = Duration::from_secs(1);
/// How soon is looked again, at first and at last. A second of virtual time costs microseconds, and
/// a day of them a moment.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(1)];

/// A broker for a test: watched, and made to fail at a switch.
///
/// On the embedded broker the test's clock is paused and jumps to whatever is due next, so that
/// hours of retries pass in a moment. On a live broker the same test runs in real time. Topics
/// belong to a tenant of the kit's own, so that tests share a server and never meet; what they leave
/// there is the server's to forget.
///
/// A clock can be paused only in a runtime of one thread, as `#[tokio::test]` makes it; in one of
/// many the embedded broker too runs in real time.
pub struct TestKit {
    client: Client,
    stage: Arc<Stage>,
    virtual_time: bool,
}

impl TestKit {
    /// Connects, and watches the connection. Users of the `longshore` crate have
    /// `longshore::testing::connect(url)`, which fills in `connect`.
    ///
    /// # Errors
    /// Whatever `connect` meets.
    pub async fn new<F>(connect: impl FnOnce(Setup) -> F) -> Result<Self>
    where
        F: Future<Output = Result<Arc<dyn Broker>>>,
    {
        let paused = is_paused();
        if paused {
            // A live broker answers in real time: under a paused clock it would always be late.
            tokio::time::resume();
        }
        let setup = Setup { clock: Arc::new(TokioClock::new()), ..Setup::default() };
        let inner = connect(setup.clone()).await?;
        let embedded = inner.info().capabilities.durability == Durability::Memory;
        let single = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        let virtual_time = embedded && single;
        if virtual_time {
            tokio::time::pause();
        }
        let stage = Stage::new(Tenant::new(format!("test-{}", setup.instance))?);
        let broker = Arc::new(WatchedBroker { inner, stage: stage.clone() });
        let tenant = Some(stage.tenant.clone());
        let options = ClientOptions { tenant, ..ClientOptions::default() };
        Ok(Self { client: Client::with_options(broker, setup, options), stage, virtual_time })
    }

    /// The client that the test gives to the program.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether time is virtual: a wait costs none.
    #[must_use]
    pub fn virtual_time(&self) -> bool {
        self.virtual_time
    }

    /// Lets `by` pass: in a moment where time is virtual, really elsewhere. Whatever falls due on
    /// the way happens in its order.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    /// Waits until the open workers have nothing left to do, retries that wait included. Exact on
    /// the embedded broker; on a live one it means that nothing is held, no retry is to come, and
    /// nothing happened for a second of this call.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn idle(&self) {
        let begun = Instant::now();
        let [mut look, longest] = LOOK;
        while !self.is_idle(begun).await {
            tokio::time::sleep(look).await;
            look = (look * 2).min(longest);
        }
    }

    async fn is_idle(&self, begun: Instant) -> bool {
        let consumers = self.stage.consumers();
        if consumers.is_empty() {
            return true;
        }
        if consumers.iter().any(|consumer| consumer.holds()) {
            return false;
        }
        if !self.client.info().capabilities.exact_stats {
            let journal = self.stage.journal();
            return !journal.waits() && journal.quiet().min(begun.elapsed()) >= QUIET;
        }
        for source in self.stage.sources() {
            match self.client.broker().stats(&source).await {
                Ok(stats) if stats.ready + stats.in_flight + stats.waiting == 0 => {}
                Ok(_) => return false,
                // A broker that cannot be asked has nothing that we could wait for.
                Err(_) => return true,
            }
        }
        true
    }

    /// The next `times` messages are refused: their senders get `Unavailable`, with the outcome
    /// `Refused`.
    pub fn refuse_publishes(&self, times: usize) {
        Stage::arm(&self.stage.faults.refused_publishes, times);
    }

    /// The next `times` messages are stored and their confirmations lost: their senders get
    /// `Timeout`, with the outcome `Unknown`.
    pub fn lose_confirms(&self, times: usize) {
        Stage::arm(&self.stage.faults.lost_confirms, times);
    }

    /// The next `times` settlements are refused with `Unavailable`. The messages stay, and the
    /// worker tries again with a back-off.
    pub fn refuse_settlements(&self, times: usize) {
        Stage::arm(&self.stage.faults.refused_settlements, times);
    }

    /// Takes the lease of every delivery that is held now; says how many there were. Their holders
    /// find out at the next extension or settlement, and the messages come again: on the embedded
    /// broker when the lease is over.
    pub async fn lose_leases(&self) -> usize {
        self.fault("leases lost");
        let kind = self.client.info().capabilities.lease;
        let mut lost = 0;
        for consumer in self.stage.consumers() {
            lost += consumer.lose_leases(kind).await;
        }
        lost
    }

    /// Plays the death of this process: every worker and subscription that is open is cut off
    /// without a settlement, and what it held comes back, one delivery more. A worker that died
    /// [ends](crate::Running::ended) with the error `Closed`, which its `stop` then returns; start a
    /// new one to go on.
    pub fn crash(&self) {
        self.fault("crash");
        for consumer in self.stage.consumers() {
            consumer.crash();
        }
    }

    /// Everything that happened, in order.
    #[must_use]
    pub fn journal(&self) -> Vec<Entry> {
        self.stage.journal().entries.clone()
    }

    /// What was handled: acknowledged after its handler succeeded, or discarded by its failure.
    ///
    /// # Panics
    /// For a name outside the grammar, as the other methods that take names.
    #[must_use]
    #[track_caller]
    pub fn handled(&self, topic: &str, group: &str) -> Vec<Entry> {
        self.pick(topic, Some(group), |what| matches!(what, What::Handled))
    }

    /// What was put off for a delayed retry, once for each.
    #[must_use]
    #[track_caller]
    pub fn retried(&self, topic: &str, group: &str) -> Vec<Entry> {
        self.pick(topic, Some(group), |what| matches!(what, What::Retried { .. }))
    }

    /// What became a dead letter.
    #[must_use]
    #[track_caller]
    pub fn dead_lettered(&self, topic: &str, group: &str) -> Vec<Entry> {
        self.pick(topic, Some(group), |what| matches!(what, What::DeadLettered(_)))
    }

    /// What was confirmed to its sender.
    #[must_use]
    #[track_caller]
    pub fn published(&self, topic: &str) -> Vec<Entry> {
        self.pick(topic, None, |what| matches!(what, What::Published))
    }

    /// The dead letters that stand in the queue now, oldest first: at most 1,000.
    ///
    /// # Errors
    /// As [`DeadLetters::browse`](crate::DeadLetters::browse).
    pub async fn dead_letters(&self, topic: &str, group: &str) -> Result<Vec<DeadLetter>> {
        self.client.dead_letters(topic, group)?.browse(1_000).await
    }

    /// Panics, with the journal, unless exactly `count` messages were handled.
    ///
    /// # Panics
    /// That is its purpose; so with the assertions below.
    #[track_caller]
    pub fn assert_handled(&self, topic: &str, group: &str, count: usize) {
        self.assert(self.handled(topic, group).len(), count, "handled", topic, Some(group));
    }

    /// Panics, with the journal, unless there were exactly `count` delayed retries.
    ///
    /// # Panics
    /// That is its purpose.
    #[track_caller]
    pub fn assert_retried(&self, topic: &str, group: &str, count: usize) {
        self.assert(self.retried(topic, group).len(), count, "retried", topic, Some(group));
    }

    /// Panics, with the journal, unless exactly `count` messages became dead letters.
    ///
    /// # Panics
    /// That is its purpose.
    #[track_caller]
    pub fn assert_dead_lettered(&self, topic: &str, group: &str, count: usize) {
        let seen = self.dead_lettered(topic, group).len();
        self.assert(seen, count, "dead-lettered", topic, Some(group));
    }

    /// Panics, with the journal, unless exactly `count` messages were confirmed to their senders.
    ///
    /// # Panics
    /// That is its purpose.
    #[track_caller]
    pub fn assert_published(&self, topic: &str, count: usize) {
        self.assert(self.published(topic).len(), count, "published", topic, None);
    }

    #[track_caller]
    fn assert(&self, seen: usize, due: usize, what: &str, topic: &str, group: Option<&str>) {
        if seen == due {
            return;
        }
        let place = group.map_or_else(|| topic.to_owned(), |group| format!("{topic}/{group}"));
        let mut story = String::new();
        for entry in self.journal() {
            let _ = writeln!(story, "  {entry}");
        }
        if story.is_empty() {
            story.push_str("  nothing\n");
        }
        panic!("{place}: {seen} {what}, {due} expected. What happened:\n{story}");
    }

    #[track_caller]
    fn pick(&self, topic: &str, group: Option<&str>, is: fn(&What) -> bool) -> Vec<Entry> {
        let told = |error: Error| panic!("{error}");
        let topic = TopicName::new(topic).unwrap_or_else(told);
        let told = |error: Error| panic!("{error}");
        let group = group.map(|group| GroupName::new(group).unwrap_or_else(told));
        let journal = self.stage.journal();
        let entries = journal.entries.iter();
        let here = entries.filter(|entry| entry.topic == topic && entry.group == group);
        here.filter(|entry| is(&entry.what)).cloned().collect()
    }

    /// A switch is thrown for every group; the journal names it once for each that is open.
    fn fault(&self, switch: &'static str) {
        for source in self.stage.sources() {
            if let Source::Group { topic, group } = source {
                let topic = self.stage.bare(&topic);
                self.stage.journal().write(topic, Some(group), None, What::Fault(switch));
            }
        }
    }
}

/// Whether tokio's clock stands. It does not tell, so it is watched for a moment.
fn is_paused() -> bool {
    let before = tokio::time::Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    tokio::time::Instant::now() == before
}

impl fmt::Debug for TestKit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestKit")
            .field("backend", &self.client.info().name)
            .field("virtual_time", &self.virtual_time)
            .finish_non_exhaustive()
    }
}
