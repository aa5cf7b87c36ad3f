use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    AckToken, Broker, ConsumerSpec, Error, GroupName, Message, Page, Received, Result, Settlement,
    Source, TopicName, Topology,
};

/// What a broken broker does otherwise than the broker that it wraps. Whatever a fault leaves alone
/// goes through untouched, which is why every hook here has a body.
///
/// One value serves all clients of a check, as one broken broker would.
#[async_trait]
pub(crate) trait Fault: Debug + Send + Sync + 'static {
    /// Instead of a declaration. `known` are the groups declared before.
    async fn declare(
        &self,
        inner: &Arc<dyn Broker>,
        topology: &Topology,
        known: &[(TopicName, GroupName)],
    ) -> Result<()> {
        let _ = known;
        inner.declare(topology).await
    }

    /// What is published instead of `message`. The publisher is told that its message was stored.
    fn publish(&self, topic: &TopicName, message: Message, out: &mut Vec<Message>) {
        let _ = topic;
        out.push(message);
    }

    /// A further topic that gets a copy.
    fn stray(&self, topic: &TopicName, known: &[(TopicName, GroupName)]) -> Option<TopicName> {
        let _ = (topic, known);
        None
    }

    /// How a consumer is opened.
    fn open(&self, spec: ConsumerSpec, known: &[(TopicName, GroupName)]) -> ConsumerSpec {
        let _ = known;
        spec
    }

    /// Waits before a consumer of `source` may receive.
    async fn hold(&self, source: &Source) {
        let _ = source;
    }

    /// What is handed over instead of `received`; `None`: it is acknowledged unseen.
    fn deliver(&self, source: &Source, received: Received) -> Option<Received> {
        let _ = source;
        Some(received)
    }

    /// Who else is handed `received`, beside its consumer.
    fn spread(&self, source: &Source) -> Spread {
        let _ = source;
        Spread::Nobody
    }

    /// The broker's own token for one that this fault handed out.
    fn token(&self, token: AckToken) -> Option<AckToken> {
        Some(token)
    }

    /// What is executed instead of `settlement`; nothing: it only seems to be done. The first one's
    /// result is the answer.
    fn settle(&self, settlement: Settlement, received: &Received, out: &mut Vec<Settlement>) {
        let _ = received;
        out.push(settlement);
    }

    /// Whether a copy of the message is published when this is settled.
    fn echo(&self, settlement: &Settlement) -> bool {
        let _ = settlement;
        false
    }

    /// What is executed when a settlement failed; its result is the answer.
    fn failed(&self, settlement: &Settlement) -> Option<Settlement> {
        let _ = settlement;
        None
    }

    /// Whether extending a lease does anything.
    fn extends(&self) -> bool {
        true
    }

    /// What a consumer's prefetch is set to instead; `None`: it stays as it is.
    fn prefetch(&self, prefetch: u16) -> Option<u16> {
        Some(prefetch)
    }

    /// How long a delivery may be unsettled before the broker takes it for done.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// What a consumer that is opened is handed once more.
    fn replay(&self, source: &Source) -> Vec<Received> {
        let _ = source;
        Vec::new()
    }

    /// How a consumer closes.
    fn closing(&self) -> Closing {
        Closing::Clean
    }

    /// Whether a publisher can be closed.
    fn closes_publishers(&self) -> bool {
        true
    }

    /// The error instead of a refused connection's.
    fn refused(&self, error: Error) -> Error {
        error
    }

    /// Instead of a browse.
    async fn browse(
        &self,
        inner: &Arc<dyn Broker>,
        source: &Source,
        page: &Page,
        known: &[(TopicName, GroupName)],
    ) -> Result<Vec<Received>> {
        let _ = known;
        inner.browse(source, page).await
    }
}

/// Who else is handed a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    Nobody,
    /// The same consumer, so many times more.
    Again(usize),
    /// Every other consumer of the group.
    Members,
}

/// What a consumer does when it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// Gives back what it holds.
    Clean,
    /// The same, so much later.
    After(Duration),
    /// Acknowledges what it holds.
    Acks,
}

/// Breaks nothing.
#[derive(Debug)]
pub(super) struct Nothing;

impl Fault for Nothing {}
