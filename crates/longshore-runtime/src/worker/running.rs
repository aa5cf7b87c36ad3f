use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_core::{Error, ErrorKind, GroupName, Result, Source, TopicName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::builder::Started;
use super::shared::Shared;
use super::watch::Watch;
use crate::client::Client;
use crate::engine::BreakerState;
use crate::observe::{Health, Vitals};
use crate::tally::Tally;

/// On a live broker, nothing received for so long means idle.
const QUIET: Duration = Duration::from_secs(1);
/// How soon the broker is asked for what no event of ours tells, at first and at last.
const ASK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(250)];

/// A worker that runs. Dropped without [`stop`](Self::stop), it drains in the background.
pub struct Running {
    client: Client,
    topic: TopicName,
    group: GroupName,
    stop: CancellationToken,
    ended: CancellationToken,
    lanes: Vec<Arc<Shared>>,
    outcome: Arc<Mutex<Option<Result<()>>>>,
    vitals: Arc<Vitals>,
}

impl Running {
    pub(super) fn new(
        client: Client,
        topic: TopicName,
        group: GroupName,
        stop: CancellationToken,
        lanes: Vec<Started>,
        watch: Watch,
    ) -> Self {
        let (lanes, tasks): (Vec<Arc<Shared>>, Vec<_>) = lanes.into_iter().unzip();
        let (main, vitals) = (lanes[0].clone(), watch.vitals.clone());
        let outcome = Arc::new(Mutex::new(None));
        let ended = CancellationToken::new();
        let (place, done) = (outcome.clone(), ended.clone());
        tokio::spawn(async move {
            let mut result = Ok(());
            for task in tasks {
                let lane = task.await.unwrap_or_else(|error| {
                    Err(Error::new(ErrorKind::Unexpected, "a worker's loop ended")
                        .with_source(error))
                });
                result = result.and(lane);
            }
            if let Err(error) = &result {
                main.alarms().ended(error);
            }
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            done.cancel();
        });
        tokio::spawn(watch.run(ended.clone()));
        Self { client, topic, group, stop, ended, lanes, outcome, vitals }
    }

    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.lanes.iter().map(|lane| lane.tally()).fold(Tally::default(), |sum, one| sum + one)
    }

    /// The state of the policy's circuit breaker; closed where there is none. It is this worker's
    /// own: other members of the group have theirs.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.lanes.first().map_or_else(BreakerState::default, |lane| lane.breaker())
    }

    /// Whether this worker is attached and gets its messages, and why not.
    /// [`Client::health`](crate::Client::health) has it of all workers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.vitals.health()
    }

    /// Waits until there is nothing to do. Exact on the embedded broker: the group has nothing
    /// ready, in flight or waiting for a retry. On a live broker it means nothing in flight here,
    /// and nothing received for a second, of which this call has waited all: what was published or
    /// redriven just before has that long to come.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn idle(&self) {
        let begun = Instant::now();
        let [mut ask, longest] = ASK;
        while !self.ended.is_cancelled() {
            for lane in &self.lanes {
                let settled = lane.idle.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if lane.held() > 0 {
                    ask = ASK[0];
                    tokio::select! {
                        () = settled => {}
                        () = self.ended.cancelled() => return,
                    }
                }
            }
            if self.is_idle(begun).await {
                return;
            }
            // Longer each time: what waits in the retry lane may wait for hours.
            tokio::time::sleep(ask).await;
            ask = (ask * 2).min(longest);
        }
    }

    async fn is_idle(&self, begun: Instant) -> bool {
        if self.lanes.iter().any(|lane| lane.held() > 0) {
            return false;
        }
        if !self.client.info().capabilities.exact_stats {
            let quiet = self.lanes.iter().map(|lane| lane.quiet());
            return quiet.chain([begun.elapsed()]).all(|quiet| quiet >= QUIET);
        }
        let (topic, group) = (self.topic.clone(), self.group.clone());
        let sources = [
            Source::Group { topic: topic.clone(), group: group.clone() },
            Source::Suspects { topic, group },
        ];
        for source in sources {
            match self.client.broker().stats(&source).await {
                Ok(stats) if stats.ready + stats.in_flight + stats.waiting == 0 => {}
                Ok(_) => return false,
                // A broker that cannot be asked has nothing that we could wait for.
                Err(_) => return true,
            }
        }
        true
    }

    /// Resolves when the worker has ended: it was stopped, or met an error that no reconnect can
    /// mend, which [`stop`](Self::stop) then returns.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Stops: fetches no more, lets running handlers end within the policy's `drain`, settles,
    /// gives the rest back without costing an attempt. Idempotent; says what was done.
    ///
    /// # Errors
    /// The error that ended the worker before, or that closing met. Nothing is lost by it: what was
    /// not settled is the group's.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the worker goes on draining.
    pub async fn stop(&self) -> Result<Tally> {
        self.stop.cancel();
        self.ended.cancelled().await;
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
        outcome.unwrap_or(Ok(())).map(|()| self.tally())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}
