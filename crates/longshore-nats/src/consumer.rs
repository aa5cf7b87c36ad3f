//! The incoming side of a group and of its suspect lane.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_nats::Subject;
use async_nats::jetstream::consumer::Info;
use async_trait::async_trait;
use longshore_core::{
    AckToken, Consumer, ConsumerSpec, Error, Event, Link as LinkEvent, Result, Settlement, Source,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ack::{self, Order};
use crate::codec::time;
use crate::declare::consumer_info;
use crate::error::{closed, no_group};
use crate::flight::Flight;
use crate::intake::Intake;
use crate::naks::{self, Naks};
use crate::names::GroupNames;
use crate::rescue;
use crate::settle;
use crate::shared::{Shared, is_missing};
use crate::watchdog;

/// A message published so shortly before the durable was made is treated as if it had been there:
/// the two times come from different clocks in a cluster.
const SKEW: Duration = Duration::from_secs(5);
/// What a record from the wire may ask for at most where the group does not say.
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 86_400);
/// Where the durable keeps the group's longest delay.
pub(crate) const LONGEST_DELAY_KEY: &str = "longshore-longest-delay-ms";

/// What a consumer and its watchdog share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) names: GroupNames,
    pub(crate) suspects: bool,
    pub(crate) prefetch: usize,
    flight: Mutex<Flight>,
    pub(crate) naks: Naks,
    /// When the last `receive` ended: what is found at the start of the next may have waited since.
    pub(crate) left: Mutex<Instant>,
    pub(crate) intake: tokio::sync::Mutex<Intake>,
    pub(crate) wake: Notify,
    /// The durable seems to be gone.
    pub(crate) suspicion: Notify,
    lease_ms: AtomicU64,
    longest_delay_ms: AtomicU64,
    /// When the durable was made, in milliseconds since 1970.
    created_ms: AtomicU64,
    /// When the connection was last made anew, in milliseconds since 1970. A server that was killed
    /// forgets the counts of its last moments, since it writes them behind.
    broken_ms: AtomicU64,
    /// What every member of the group has settled, as last seen.
    pub(crate) floor: AtomicU64,
    closed: AtomicBool,
    end: Mutex<Option<Error>>,
}

impl Inner {
    pub(crate) fn flight(&self) -> MutexGuard<'_, Flight> {
        // No code panics while it holds the lock; the table is consistent between calls anyway.
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn durable(&self) -> &str {
        if self.suspects { &self.names.suspect_durable } else { &self.names.durable }
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.load(Ordering::Relaxed))
    }

    /// The server's lease began before the message was here: ours ends earlier.
    pub(crate) fn held_for(&self) -> Duration {
        let lease = self.lease();
        lease - (lease / 10).min(Duration::from_secs(1))
    }

    pub(crate) fn longest_delay(&self) -> Duration {
        Duration::from_millis(self.longest_delay_ms.load(Ordering::Relaxed))
    }

    /// Whether the ledger can have an entry for a message that the server counts as new: a durable
    /// made anew starts counting at 1, and so can one over the death of its server.
    pub(crate) fn predates(&self, published: SystemTime) -> bool {
        let broken = self.broken_ms.load(Ordering::Relaxed);
        let created = Duration::from_millis(self.created_ms.load(Ordering::Relaxed).max(broken));
        let created = SystemTime::UNIX_EPOCH.checked_add(created + SKEW);
        created.is_none_or(|created| published <= created)
    }

    /// Takes over what the server says of the durable, and tells whether it is the one of before.
    pub(crate) fn learn(&self, info: &Info) -> bool {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        self.lease_ms.store(ms(info.config.ack_wait).max(1), Ordering::Relaxed);
        let longest = info.config.metadata.get(LONGEST_DELAY_KEY).and_then(|ms| ms.parse().ok());
        self.longest_delay_ms.store(longest.unwrap_or(ms(LONGEST_DELAY)), Ordering::Relaxed);
        self.floor.store(info.ack_floor.stream_sequence, Ordering::Relaxed);
        let created = time(info.created.unix_timestamp_nanos());
        let created = ms(created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        self.created_ms.swap(created, Ordering::Relaxed) == created
    }

    /// The connection is another, and the server may have been killed.
    pub(crate) fn broke(&self) {
        let now = self.shared.setup.clock.now();
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.broken_ms.store(now, Ordering::Relaxed);
    }

    /// The durable is another: what was held belongs to nobody, and pulls of before are gone.
    pub(crate) fn lose(&self, why: &Error) {
        self.flight().lose(why);
        self.wake.notify_one();
    }

    /// No reconnect can mend this.
    pub(crate) fn end(&self, why: Error) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// # Errors
    /// What ended this consumer.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_closed() {
            return Err(closed("consumer"));
        }
        if let Some(why) = &*self.end.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(why.clone());
        }
        self.shared.link.check()
    }
}

pub(crate) struct NatsConsumer {
    inner: Arc<Inner>,
    watchdog: tokio::task::JoinHandle<()>,
}

impl NatsConsumer {
    pub(crate) async fn open(shared: Arc<Shared>, spec: &ConsumerSpec) -> Result<Self> {
        let names = GroupNames::from_source(&spec.source);
        let suspects = matches!(spec.source, Source::Suspects { .. });
        let durable = if suspects { &names.suspect_durable } else { &names.durable };
        let info = consumer_info(&shared, &names.of.stream, durable).await.map_err(|error| {
            match is_missing(&error) {
                true => no_group(&names.of.topic, &names.group).with_source(error),
                false => error,
            }
        })?;
        let prefetch = usize::from(spec.prefetch.max(1));
        // The suspect lane has one delivery at a time for the whole group.
        let prefetch = if suspects { 1 } else { prefetch };
        let inner = Arc::new(Inner {
            intake: tokio::sync::Mutex::new(Intake::new(shared.link.watch())),
            shared,
            names,
            suspects,
            prefetch,
            flight: Mutex::new(Flight::new(prefetch)),
            naks: Naks::default(),
            left: Mutex::new(Instant::now()),
            wake: Notify::new(),
            suspicion: Notify::new(),
            lease_ms: AtomicU64::new(1),
            longest_delay_ms: AtomicU64::new(0),
            created_ms: AtomicU64::new(0),
            broken_ms: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            end: Mutex::new(None),
        });
        inner.learn(&info);
        // What broke a process before must not break this one.
        rescue::look(&inner, &info).await;
        let watchdog = tokio::spawn(watchdog::run(inner.clone()));
        Ok(Self { inner, watchdog })
    }
}

#[async_trait]
impl Consumer for NatsConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        // A busy reader would otherwise never let another task of its thread run.
        tokio::task::coop::consume_budget().await;
        let mut intake = self.inner.intake.lock().await;
        intake.receive(&self.inner, out, limit.max(1)).await
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        settle::settle(&self.inner, batch, out).await;
    }

    async fn extend(&self, tokens: &[AckToken], _by: Duration, out: &mut Vec<Result<()>>) {
        // The server knows one length only: the group's lease.
        let now = Instant::now();
        let mut orders: Vec<(Subject, Order)> = Vec::with_capacity(tokens.len());
        let first = out.len();
        {
            let mut flight = self.inner.flight();
            for token in tokens {
                out.push(flight.get(*token, now).map(|held| {
                    orders.push((held.reply.clone(), Order::Extend));
                }));
            }
        }
        let sent = ack::send(&self.inner.shared, orders).await;
        let until = now + self.inner.held_for();
        let mut flight = self.inner.flight();
        for (token, result) in tokens.iter().zip(&mut out[first..]) {
            if result.is_err() {
                continue;
            }
            *result = match &sent {
                Ok(()) => flight.get(*token, Instant::now()).map(|held| {
                    held.expires = held.expires.max(until);
                }),
                Err(why) => Err(why.clone()),
            };
        }
    }

    async fn set_prefetch(&self, prefetch: u16) {
        let prefetch = usize::from(prefetch).min(self.inner.prefetch);
        self.inner.flight().set_prefetch(prefetch);
        let unseen = {
            let mut intake = self.inner.intake.lock().await;
            intake.recall(&self.inner).await
        };
        if let Err(error) = settle::give_back(&self.inner, unseen, Vec::new()).await {
            tracing::debug!(%error, "what was underway comes back with the end of its lease");
        }
    }

    async fn close(&self) -> Result<()> {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.watchdog.abort();
        self.inner.wake.notify_one();
        let wait = Duration::from_secs(1);
        let unseen = match tokio::time::timeout(wait, self.inner.intake.lock()).await {
            Ok(mut intake) => intake.stop(&self.inner).await,
            // A receive that nobody polls holds it; what it has comes back by the lease.
            Err(_) => Vec::new(),
        };
        naks::end(&self.inner).await;
        let held = self.inner.flight().drain();
        settle::give_back(&self.inner, unseen, held).await
    }
}

impl Drop for NatsConsumer {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}

impl fmt::Debug for NatsConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConsumer")
            .field("stream", &self.inner.names.of.stream)
            .field("durable", &self.inner.durable())
            .finish_non_exhaustive()
    }
}

/// What the runtime hears when the link changes.
pub(crate) fn link_event(up: bool) -> Event {
    Event::State(if up { LinkEvent::Up } else { LinkEvent::Down { why: crate::error::down() } })
}
