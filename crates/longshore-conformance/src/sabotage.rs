//! What goes wrong between a client and a broker that is whole: an order that is refused, an answer
//! that is lost, a process that ends in the middle. The broker must cope with it; mutants do not.

use std::any::Any;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    AckToken, Broker, BrokerInfo, Consumer, ConsumerSpec, Error, ErrorKind, Event, Finding, Page,
    Publisher, Received, Result, Settlement, Source, Stats, TopicName, Topology,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bench::PATIENCE;
use crate::check::{Outcome, Stop};

/// What happens to a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The broker does not take it, and says so.
    Refuse,
    /// It is lost on its way, and seems to be done.
    Swallow,
    /// The process ends before it reaches the broker. The check plays the end.
    DieBefore,
    /// The process ends after the broker did it. The check plays the end.
    DieAfter,
}

/// Strikes the first so many settlements of a kind.
#[derive(Debug)]
pub(crate) struct Sabotage {
    deed: Deed,
    left: AtomicUsize,
    /// Those that have not taken effect yet.
    pending: AtomicUsize,
    picks: fn(&Settlement) -> bool,
    orders: Mutex<Vec<(Instant, Settlement)>>,
    struck: Notify,
}

impl Sabotage {
    pub(crate) fn new(deed: Deed, times: usize, picks: fn(&Settlement) -> bool) -> Arc<Self> {
        let (left, pending) = (AtomicUsize::new(times), AtomicUsize::new(times));
        Arc::new(Self {
            deed,
            left,
            pending,
            picks,
            orders: Mutex::default(),
            struck: Notify::new(),
        })
    }

    /// Every order of its kind, those that came through included.
    pub(crate) fn orders(&self) -> Vec<(Instant, Settlement)> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has struck as often as it was to.
    ///
    /// # Errors
    /// [`Stop::Failed`]: a fault that did not take effect proves nothing.
    pub(crate) async fn done(&self) -> Outcome {
        let all = async {
            loop {
                let struck = self.struck.notified();
                tokio::pin!(struck);
                struck.as_mut().enable();
                if self.pending.load(Ordering::Acquire) == 0 {
                    return;
                }
                struck.await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.map_err(|_| {
            let left = self.pending.load(Ordering::Acquire);
            Stop::Failed(format!("{:?} was to strike {left} times more and did not", self.deed))
        })
    }

    fn strikes(&self, settlement: &Settlement) -> bool {
        if !(self.picks)(settlement) {
            return false;
        }
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.push((Instant::now(), settlement.clone()));
        drop(orders);
        let less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
}

/// The broker behind it.
#[derive(Debug)]
pub(crate) struct Saboteur {
    inner: Arc<dyn Broker>,
    sabotage: Arc<Sabotage>,
}

impl Saboteur {
    pub(crate) fn new(inner: Arc<dyn Broker>, sabotage: Arc<Sabotage>) -> Self {
        Self { inner, sabotage }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Saboteur {
    fn info(&self) -> &BrokerInfo {
        self.inner.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.inner.declare(topology).await
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        self.inner.publisher(topic).await
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        let (inner, sabotage) = (self.inner.consumer(spec).await?, self.sabotage.clone());
        Ok(Box::new(Struck { inner, sabotage }))
    }

    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>> {
        self.inner.browse(source, page).await
    }

    async fn stats(&self, source: &Source) -> Result<Stats> {
        self.inner.stats(source).await
    }

    async fn audit(&self) -> Result<Vec<Finding>> {
        self.inner.audit().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn native(&self) -> &(dyn Any + Send + Sync) {
        self.inner.native()
    }
}

#[derive(Debug)]
struct Struck {
    inner: Box<dyn Consumer>,
    sabotage: Arc<Sabotage>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for Struck {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        self.inner.receive(out, limit).await
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        for settlement in batch {
            let one = std::slice::from_ref(settlement);
            if !self.sabotage.strikes(settlement) {
                self.inner.settle(one, out).await;
                continue;
            }
            match self.sabotage.deed {
                Deed::Refuse => {
                    let why = "the suite refuses this write";
                    out.push(Err(Error::new(ErrorKind::Unavailable, why)));
                }
                Deed::Swallow => out.push(Ok(())),
                Deed::DieBefore => {}
                Deed::DieAfter => self.inner.settle(one, out).await,
            }
            self.sabotage.pending.fetch_sub(1, Ordering::AcqRel);
            self.sabotage.struck.notify_waiters();
            if matches!(self.sabotage.deed, Deed::DieBefore | Deed::DieAfter) {
                // Nothing of this process is heard again.
                pending::<()>().await;
            }
        }
    }

    async fn extend(&self, tokens: &[AckToken], by: Duration, out: &mut Vec<Result<()>>) {
        self.inner.extend(tokens, by, out).await;
    }

    async fn set_prefetch(&self, prefetch: u16) {
        self.inner.set_prefetch(prefetch).await;
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
