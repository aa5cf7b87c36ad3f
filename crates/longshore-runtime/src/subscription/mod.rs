//! Subscriptions: for programs that settle each delivery themselves. Most want a
//! [`Worker`](crate::Worker), which applies a policy.

mod delivery;
mod held;

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use longshore_core::{
    Event, GroupName, Policy, Received, Result, SmolStr, Source, Start, TopicName,
};

pub use delivery::{Delivery, Unsettled};

use self::held::Held;
use crate::client::Client;
use crate::engine::{Book, Facts, clamp};
use crate::worker::{DEFAULT_LEASE, check_group, prefetch as check_prefetch};

/// The most events of one receive.
const RECEIVE: usize = 64;

/// A subscription in the making; await it.
#[derive(Debug)]
#[must_use = "a subscription does nothing until it is awaited"]
pub struct Subscribe {
    client: Client,
    topic: Result<TopicName>,
    group: Result<GroupName>,
    policy: Policy,
    prefetch: u16,
    lease: Duration,
    start: Start,
}

impl Subscribe {
    pub(crate) fn new(client: Client, topic: Result<TopicName>, group: Result<GroupName>) -> Self {
        Self {
            client,
            topic,
            group,
            policy: Policy::default(),
            prefetch: 16,
            lease: DEFAULT_LEASE,
            start: Start::Declared,
        }
    }

    /// The policy whose dead-letter settings the group is declared with. Its retries are not
    /// applied: here the program decides.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Unsettled deliveries at most. Default: 16.
    pub fn prefetch(mut self, deliveries: u16) -> Self {
        self.prefetch = deliveries;
        self
    }

    /// How long a delivery stays with this process without a sign of life. Default: 30 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Where the group starts if it is new. Default: at its declaration.
    pub fn start_at(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    async fn open(self) -> Result<Subscription> {
        let Self { client, topic, group, policy, prefetch, lease, start } = self;
        let (topic, group) = (client.full(&topic?), group?);
        let capabilities = &client.info().capabilities;
        let prefetch = check_prefetch(Some(prefetch), 1, capabilities)?;
        check_group(&policy, start, lease, client.info().name, capabilities)?;
        client.declare_group(&topic, &group, &policy, start, lease).await?;
        let source = Source::Group { topic: topic.clone(), group: group.clone() };
        let consumer = client.consumer(&source, prefetch, lease).await?;
        let book = Book(Arc::new(Facts {
            topic,
            group,
            backend: client.info().name,
            handler: SmolStr::new_static("subscription"),
            instance: client.setup().instance.clone(),
            policy: policy.fingerprint(),
        }));
        let counted = !capabilities.release_uncounted;
        let held = Held::keep(consumer, book, client.clock().clone(), counted);
        Ok(Subscription { held, policy, buffer: VecDeque::new(), receiving: None, ended: false })
    }
}

impl IntoFuture for Subscribe {
    type Output = Result<Subscription>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// Deliveries of one group, one by one; also a [`Stream`]. Leases of what is buffered or in the
/// program's hands are extended in the background.
pub struct Subscription {
    held: Arc<Held>,
    policy: Policy,
    buffer: VecDeque<Received>,
    receiving: Option<Receiving>,
    ended: bool,
}

type Receiving = BoxFuture<'static, (Vec<Event>, Result<()>)>;

impl Subscription {
    /// The next delivery. `None` once it is closed; an error is the last item.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, no delivery is lost.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Stops reading and gives back what is not settled, deliveries in the program's hands
    /// included: settle them first.
    ///
    /// # Errors
    /// Whatever the backend meets.
    pub async fn close(mut self) -> Result<()> {
        self.receiving = None;
        self.ended = true;
        self.held.close().await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        loop {
            while let Some(received) = self.buffer.pop_front() {
                // What was lost in the buffer is another member's now.
                if self.held.holds(received.token) {
                    return Poll::Ready(Some(Ok(Delivery::new(received, self.held.clone()))));
                }
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let held = &self.held;
            let receiving = self.receiving.get_or_insert_with(|| held.clone().receive(RECEIVE));
            let (events, result) = ready!(receiving.as_mut().poll(cx));
            self.receiving = None;
            for event in events {
                match event {
                    Event::Message(mut received) => {
                        clamp(&self.policy, self.held.now(), &mut received);
                        self.held.take(&received);
                        self.buffer.push_back(received);
                    }
                    Event::Lost { epoch, .. } => self.held.lost(epoch),
                    Event::Revoking { .. } | Event::State(_) => {}
                }
            }
            if let Err(error) = result {
                self.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.held.unread(self.buffer.drain(..));
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}
