//! The incoming side of a group and of its suspect lane.
//!
//! Two tasks bring what comes: the reader, on a connection of its own, and the keeper, which takes
//! what is due, what was redriven and what others lost. `receive` hands over what they brought.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{AckToken, Consumer, ConsumerSpec, Error, Event, Result, Settlement, Source};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::deliver;
use crate::error::{closed, no_group};
use crate::flight::{Flight, Unseen};
use crate::keeper;
use crate::line::Line;
use crate::names::{GroupNames, Lane};
use crate::reader;
use crate::release;
use crate::reply::Entry;
use crate::script::{self, Call, MOST};
use crate::settings::{Settings, ms};
use crate::settle;
use crate::shared::Shared;

/// For the reader to end at the close of a consumer; its read is ended at once.
const LEAVE: Duration = Duration::from_secs(1);

/// What a consumer and its tasks share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) line: Arc<Line>,
    pub(crate) names: GroupNames,
    /// The name by which the server knows this consumer.
    pub(crate) me: String,
    pub(crate) suspects: bool,
    most: usize,
    flight: Mutex<Flight>,
    /// There is something to be handed over.
    pub(crate) wake: Notify,
    /// There is room for the reader, or it has to look up.
    pub(crate) room: Notify,
    /// There is something to do for the keeper.
    pub(crate) work: Notify,
    /// Taking, one at a time: who compares with the server what is here needs no answer under way.
    pub(crate) taking: tokio::sync::Mutex<()>,
    /// An answer was lost: so often what is pending for me and not here has to be looked for.
    pub(crate) doubts: AtomicU8,
    /// The reader's connection, as the server numbers it, while it waits for messages; else 0.
    pub(crate) blocked: AtomicI64,
    /// When the next that waits is due here, in milliseconds from `epoch`; `u64::MAX`: not known.
    due_ms: AtomicU64,
    /// Somebody waits in `receive`.
    receiving: AtomicBool,
    /// When the last of them went, in milliseconds from `epoch`.
    asked_ms: AtomicU64,
    epoch: Instant,
    lease_ms: AtomicU64,
    longest_delay_ms: AtomicU64,
    pub(crate) has_letters: bool,
    retention: Option<Duration>,
    closed: AtomicBool,
    end: Mutex<Option<Error>>,
}

impl Inner {
    pub(crate) fn flight(&self) -> MutexGuard<'_, Flight> {
        // No code panics while it holds the lock; the table is consistent between calls anyway.
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn group(&self) -> &str {
        self.names.group.as_str()
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

    /// The lease of the group may have been declared anew.
    pub(crate) fn learn(&self, lease: Option<i64>, longest: Option<i64>) {
        if let Some(lease) = lease.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0) {
            self.lease_ms.store(lease, Ordering::Relaxed);
        }
        if let Some(longest) = longest.and_then(|ms| u64::try_from(ms).ok()) {
            self.longest_delay_ms.store(longest, Ordering::Relaxed);
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            lease: self.lease(),
            retention: self.retention,
            longest_delay: self.longest_delay(),
        }
    }

    /// Something of the group is due after `delay`.
    pub(crate) fn due_in(&self, delay: Duration) {
        let at = ms(self.epoch.elapsed() + delay);
        if self.due_ms.fetch_min(at, Ordering::AcqRel) > at {
            self.work.notify_one();
        }
    }

    /// How long until something is known to be due; forgets it.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let at = self.due_ms.load(Ordering::Acquire);
        (at != u64::MAX).then(|| Duration::from_millis(at).saturating_sub(self.epoch.elapsed()))
    }

    pub(crate) fn forget_due(&self) {
        self.due_ms.store(u64::MAX, Ordering::Release);
    }

    /// How many more may come: none where nobody has asked for a while, since others may be idle.
    pub(crate) fn credit(&self) -> usize {
        let asked = Duration::from_millis(self.asked_ms.load(Ordering::Acquire));
        let idle = self.epoch.elapsed().saturating_sub(asked);
        let dormant = !self.receiving.load(Ordering::Acquire) && idle > self.lease() / 3;
        if dormant { 0 } else { self.flight().credit() }
    }

    /// Takes over what came, and gives back what is too much.
    pub(crate) fn arrived(self: &Arc<Self>, entries: Vec<Entry>, since: Instant) {
        if entries.is_empty() {
            return;
        }
        let surplus = self.flight().arrived(entries, since);
        self.wake.notify_one();
        if !surplus.is_empty() {
            let inner = self.clone();
            tokio::spawn(async move { release::unseen(&inner, surplus).await });
        }
    }

    /// An answer that may have brought deliveries was lost. Twice, since what a dead connection
    /// sent last may still be carried out.
    pub(crate) fn doubt(&self) {
        self.doubts.store(2, Ordering::Release);
        self.room.notify_one();
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
        self.shared.end.check()
    }

    /// Ends the read that waits on the server now, if one does: it answers that there is nothing,
    /// and the reader asks for what may come now.
    pub(crate) async fn unblock(&self) {
        let id = self.blocked.swap(0, Ordering::AcqRel);
        if id != 0 {
            let mut command = redis::cmd("CLIENT");
            command.arg("UNBLOCK").arg(id);
            if let Err(error) = self.line.query(command).await {
                tracing::debug!(%error, "a read goes on waiting; it ends by itself");
            }
        }
    }
}

/// Somebody is in `receive`, however they leave it.
struct Asking<'a>(&'a Inner);

impl<'a> Asking<'a> {
    fn new(inner: &'a Inner) -> Self {
        let dormant = inner.credit() == 0 && inner.flight().credit() > 0;
        inner.receiving.store(true, Ordering::Release);
        if dormant {
            inner.room.notify_one();
            inner.work.notify_one();
        }
        Self(inner)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let inner = self.0;
        inner.asked_ms.store(ms(inner.epoch.elapsed()), Ordering::Release);
        inner.receiving.store(false, Ordering::Release);
    }
}

pub(crate) struct RedisConsumer {
    inner: Arc<Inner>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl RedisConsumer {
    pub(crate) async fn open(shared: Arc<Shared>, spec: &ConsumerSpec) -> Result<Self> {
        let names = GroupNames::from_source(&spec.source);
        let suspects = matches!(spec.source, Source::Suspects { .. });
        shared.check_topic(&names.topic).await.map_err(|error| {
            match crate::line::is_missing(&error) {
                true => no_group(&names.topic, &names.group).with_source(error),
                false => error,
            }
        })?;
        if !shared.has_group(&names.topic, names.group.as_str()).await? {
            return Err(no_group(&names.topic, &names.group));
        }
        let settings = Settings::read(&shared, &names).await?;
        let settings = settings.ok_or_else(|| {
            let why = "the group was made by another program: declare it";
            no_group(&names.topic, &names.group).with_context("why", why)
        })?;
        // The suspect lane has one delivery at a time for the whole group.
        let most = if suspects { 1 } else { usize::from(spec.prefetch.max(1)) };
        let inner = Arc::new(Inner {
            line: shared.control(&names.topic),
            me: shared.member(),
            names,
            suspects,
            most,
            flight: Mutex::new(Flight::new(most)),
            wake: Notify::new(),
            room: Notify::new(),
            work: Notify::new(),
            taking: tokio::sync::Mutex::new(()),
            doubts: AtomicU8::new(0),
            blocked: AtomicI64::new(0),
            due_ms: AtomicU64::new(u64::MAX),
            receiving: AtomicBool::new(false),
            asked_ms: AtomicU64::new(0),
            epoch: Instant::now(),
            lease_ms: AtomicU64::new(ms(settings.lease).max(1)),
            longest_delay_ms: AtomicU64::new(ms(settings.longest_delay)),
            has_letters: settings.retention.is_some(),
            retention: settings.retention,
            closed: AtomicBool::new(false),
            end: Mutex::new(None),
            shared,
        });
        let mut tasks = vec![tokio::spawn(keeper::run(inner.clone()))];
        if !suspects {
            tasks.push(tokio::spawn(reader::run(inner.clone())));
        }
        Ok(Self { inner, tasks: Mutex::new(tasks) })
    }

    fn tasks(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        // A busy reader would otherwise never let another task of its thread run.
        tokio::task::coop::consume_budget().await;
        let _asking = Asking::new(&self.inner);
        loop {
            self.inner.check()?;
            if deliver::hand_over(&self.inner, out, limit.max(1)) {
                return Ok(());
            }
            tokio::select! {
                () = self.inner.wake.notified() => {}
                () = self.inner.shared.end.reached() => {}
            }
        }
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        settle::settle(&self.inner, batch, out).await;
    }

    async fn extend(&self, tokens: &[AckToken], _by: Duration, out: &mut Vec<Result<()>>) {
        // The server knows one length only: the group's lease.
        settle::extend(&self.inner, tokens, out).await;
    }

    async fn set_prefetch(&self, prefetch: u16) {
        let inner = &self.inner;
        let surplus: Vec<Unseen> = {
            let mut flight = inner.flight();
            flight.set_prefetch(usize::from(prefetch).min(inner.most));
            let room = flight.room().min(flight.unseen.len());
            flight.unseen.split_off(room).into()
        };
        inner.room.notify_one();
        inner.work.notify_one();
        inner.unblock().await;
        release::unseen(inner, surplus).await;
    }

    async fn close(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        inner.wake.notify_one();
        inner.room.notify_one();
        inner.work.notify_one();
        inner.unblock().await;
        for task in self.tasks() {
            // What it reads now has to be given back; a server that does not answer is not waited
            // for, and gives it to others when the lease is over.
            let abort = task.abort_handle();
            if timeout(LEAVE, task).await.is_err() {
                abort.abort();
            }
        }
        let (unseen, held) = inner.flight().drain();
        if inner.shared.end.check().is_err() {
            return Ok(());
        }
        let done = release::all(inner, unseen, held).await;
        let names = &inner.names;
        let keys = match inner.suspects {
            false => vec![&*names.conf, names.stream(Lane::Main), names.stream(Lane::Redrive)],
            true => vec![&*names.conf, names.stream(Lane::Suspect)],
        };
        let leave = Call::new(&script::LEAVE, &keys).arg(inner.group()).arg(&inner.me);
        match inner.line.run(leave).await {
            // Gone with its group.
            Err(error) if crate::line::is_missing(&error) => {}
            Err(error) => tracing::debug!(%error, "the consumer's name stays for an hour"),
            Ok(_) => {}
        }
        done
    }
}

impl Drop for RedisConsumer {
    fn drop(&mut self) {
        // Nobody said goodbye: what is held comes back with the end of its lease.
        self.inner.closed.store(true, Ordering::Release);
        self.tasks().iter().for_each(JoinHandle::abort);
    }
}

impl fmt::Debug for RedisConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConsumer")
            .field("topic", &self.inner.names.topic)
            .field("group", &self.inner.names.group)
            .field("suspects", &self.inner.suspects)
            .finish_non_exhaustive()
    }
}

/// Ids in calls of a bounded size.
pub(crate) fn chunks<T>(ids: &[T]) -> std::slice::Chunks<'_, T> {
    ids.chunks(MOST)
}
