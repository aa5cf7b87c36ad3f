use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use longshore_core::{
    Consumer, ConsumerSpec, Event, Failure, GroupName, InstanceId, Page, Policy, Received, Result,
    Settlement, Source, TopicName,
};
use longshore_runtime::{Client, Context, Sender, Subscription, WorkerBuilder};

use crate::bench::{LEASE, PATIENCE, quick};
use crate::check::{Outcome, Stop};
use crate::ledger::{self, Ledger};

/// One client of the broker under test, as a process of its own would be.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its connection. Everything that its consumers do is in the ledger.
    pub client: Client,
    /// Who it is.
    pub instance: InstanceId,
    ledger: Arc<Ledger>,
}

/// What a handler returns.
pub type Handled = std::result::Result<(), Failure>;

impl Member {
    pub(crate) fn new(client: Client, instance: InstanceId, ledger: Arc<Ledger>) -> Self {
        Self { client, instance, ledger }
    }

    /// Begins a worker with the suite's lease and policy.
    pub fn work(&self, topic: &TopicName, group: &GroupName) -> WorkerBuilder {
        let worker = self.client.worker(topic, group).policy(self.policy());
        worker.lease(LEASE).prefetch(16).concurrency(4)
    }

    fn policy(&self) -> Policy {
        let policy = quick(&self.client.info().capabilities).build();
        policy.expect("the suite's own policy is valid")
    }

    /// A handler whose runs are in the ledger.
    pub fn handler<F, Fut>(
        &self,
        run: F,
    ) -> impl Fn(Received, Context) -> BoxFuture<'static, Handled> + Send + Sync + 'static + use<F, Fut>
    where
        F: Fn(Received, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Handled> + Send + 'static,
    {
        let (ledger, instance) = (self.ledger.clone(), self.instance.clone());
        move |received, context| {
            let source =
                Source::Group { topic: received.topic.clone(), group: context.group().clone() };
            let attempt = context.attempt();
            let entry = ledger.started(source, instance.clone(), received.clone(), attempt);
            let run = run(received, context);
            async move {
                let handled = run.await;
                entry.end(match handled {
                    Ok(()) => ledger::Outcome::Ok,
                    Err(_) => ledger::Outcome::Failed,
                });
                handled
            }
            .boxed()
        }
    }

    /// Opens a sender.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn sender(&self, topic: &TopicName) -> Result<Sender> {
        self.client.sender(topic).await
    }

    /// Opens a subscription with the suite's lease and policy.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn subscribe(&self, topic: &TopicName, group: &GroupName) -> Result<Subscription> {
        self.client.subscribe(topic, group).policy(self.policy()).lease(LEASE).await
    }

    /// Opens a consumer below the runtime: nobody extends its leases or settles for it.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn consumer(&self, source: Source, prefetch: u16) -> Result<Raw> {
        let instance = self.instance.clone();
        let spec = ConsumerSpec { source, prefetch, lease: LEASE, instance };
        Ok(Raw(self.client.broker().consumer(&spec).await?))
    }

    /// The dead letters of a group, oldest first.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn letters(&self, topic: &TopicName, group: &GroupName) -> Result<Vec<Received>> {
        let source = Source::DeadLetters { topic: topic.clone(), group: group.clone() };
        let page = Page { after: None, limit: 1000 };
        self.client.broker().browse(&source, &page).await
    }

    /// Waits until a group has as many dead letters, and returns them.
    ///
    /// # Errors
    /// [`Stop::Failed`] where it has fewer at the end of [`PATIENCE`].
    pub async fn wait_for_letters(
        &self,
        topic: &TopicName,
        group: &GroupName,
        count: usize,
    ) -> Outcome<Vec<Received>> {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let seen = tokio::time::timeout(PATIENCE, async {
            loop {
                pace.tick().await;
                let letters = self.letters(topic, group).await?;
                if letters.len() >= count {
                    return Ok(letters);
                }
            }
        });
        match seen.await {
            Ok(letters) => letters,
            Err(_) => {
                let found = self.letters(topic, group).await?.len();
                let shown = self.ledger.read(ToString::to_string);
                Err(Stop::Failed(format!(
                    "expected {count} dead letters of {group}, found {found}. The ledger: {shown}"
                )))
            }
        }
    }
}

/// A consumer below the runtime.
#[derive(Debug)]
pub struct Raw(Box<dyn Consumer>);

impl Raw {
    /// The next message.
    ///
    /// # Errors
    /// [`Stop::Failed`] where none comes within [`PATIENCE`].
    pub async fn next(&self) -> Outcome<Received> {
        let mut events = Vec::new();
        let first = tokio::time::timeout(PATIENCE, async {
            loop {
                self.0.receive(&mut events, 1).await?;
                for event in events.drain(..) {
                    if let Event::Message(received) = event {
                        return Ok(received);
                    }
                }
            }
        });
        first
            .await
            .unwrap_or_else(|_| Err(Stop::Failed("expected a message, none came".to_owned())))
    }

    /// Executes one settlement.
    ///
    /// # Errors
    /// The broker's answer.
    pub async fn settle(&self, settlement: Settlement) -> Result<()> {
        let mut results = Vec::new();
        self.0.settle(&[settlement], &mut results).await;
        results.pop().unwrap_or_else(|| {
            Err(longshore_core::Error::new(
                longshore_core::ErrorKind::Unexpected,
                "the backend gave no result for a settlement",
            ))
        })
    }

    /// Executes a batch of settlements.
    pub async fn settle_all(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(batch.len());
        self.0.settle(batch, &mut results).await;
        results
    }

    /// Closes it.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
