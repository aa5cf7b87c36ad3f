//! What comes in: pulls of exactly the free credit on one inbox, their statuses, and the way of a
//! message from the inbox to the runtime.
//!
//! The client library's own stream asks for a fixed batch; prefetch is a promise here, so the pulls
//! are written by hand. On the common path, a message costs no timer, task or await of its own.

mod hand_over;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subject, Subscriber};
use futures::{FutureExt as _, StreamExt as _};
use longshore_core::{Event, Result};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::codec;
use crate::consumer::{Inner, link_event};
use crate::deliver::Unseen;
use crate::error;
use crate::link::{Concern, Status};

/// How long a pull waits on the server.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that a pull is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Twice missed, with room for a slow moment.
const SILENCE: Duration = Duration::from_secs(12);
/// When the server has answered the end of a subscription, or will not.
const ANSWER: Duration = Duration::from_millis(500);
/// What is looked at when nothing happens.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Intake {
    link: watch::Receiver<Status>,
    up: bool,
    generation: u64,
    inbox: Option<(Subscriber, Subject)>,
    /// Asked for and not come.
    outstanding: usize,
    /// The last place that came.
    highest: u64,
    unseen: VecDeque<Unseen>,
    heard: Instant,
    /// A pull was refused: the next follows with the tick, so that it is no storm.
    paused: bool,
    denials: u64,
    tick: Option<Interval>,
}

/// Notes when a `receive` ended, however it did.
struct Leaving<'a>(&'a Mutex<Instant>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Ok(mut left) = self.0.lock() {
            *left = Instant::now();
        }
    }
}

impl Intake {
    pub(crate) fn new(link: watch::Receiver<Status>) -> Self {
        let (generation, denials) = (link.borrow().generation, 0);
        Self {
            link,
            up: true,
            generation,
            inbox: None,
            outstanding: 0,
            highest: 0,
            unseen: VecDeque::new(),
            heard: Instant::now(),
            paused: false,
            denials,
            tick: None,
        }
    }

    /// Waits for at least one event.
    ///
    /// # Cancel safety
    /// What came stays in `unseen` until it is handed over, without an await in between.
    pub(crate) async fn receive(
        &mut self,
        inner: &Inner,
        out: &mut Vec<Event>,
        limit: usize,
    ) -> Result<()> {
        let mut arrived = inner.left.lock().map_or_else(|_| Instant::now(), |left| *left);
        let _leaving = Leaving(&inner.left);
        loop {
            inner.check()?;
            if self.news(inner, arrived, out) {
                return Ok(());
            }
            if self.inbox.is_none() && self.up {
                self.subscribe(inner).await?;
            }
            self.collect(inner, arrived);
            arrived = Instant::now();
            if self.hand_over(inner, out, limit).await? {
                return Ok(());
            }
            self.pull(inner).await?;
            self.wait(inner).await;
        }
    }

    /// The events that are not messages.
    fn news(&mut self, inner: &Inner, arrived: Instant, out: &mut Vec<Event>) -> bool {
        let before = out.len();
        let lost = inner.flight().take_lost();
        if !lost.is_empty() {
            self.inbox = None;
            self.unseen.clear();
            out.extend(lost.into_iter().map(|(epoch, why)| Event::Lost { epoch, why }));
        }
        let (up, generation) = {
            let status = self.link.borrow_and_update();
            (status.up, status.generation)
        };
        if generation != self.generation {
            // The client subscribes again by itself, but the pulls died with the connection.
            self.generation = generation;
            inner.broke();
            // What came before the end can still be settled: the server keeps its pending list.
            self.collect(inner, arrived);
            self.inbox = None;
        }
        if up != self.up {
            self.up = up;
            out.push(link_event(up));
        }
        out.len() > before
    }

    async fn subscribe(&mut self, inner: &Inner) -> Result<()> {
        let subject = Subject::from(inner.shared.client.new_inbox());
        let subscriber = inner
            .shared
            .client
            .subscribe(subject.clone())
            .await
            .map_err(|native| error::closed("connection").with_source(native))?;
        self.inbox = Some((subscriber, subject));
        self.outstanding = 0;
        self.heard = Instant::now();
        self.denials = inner.shared.link.denials();
        Ok(())
    }

    /// Takes what is in the inbox, without waiting.
    fn collect(&mut self, inner: &Inner, arrived: Instant) {
        // The inbox holds no more than was asked for, and statuses.
        while let Some((inbox, _)) = &mut self.inbox {
            match inbox.next().now_or_never() {
                Some(Some(message)) => self.take(inner, message, arrived),
                Some(None) => self.inbox = None,
                None => return,
            }
        }
    }

    fn take(&mut self, inner: &Inner, message: Message, arrived: Instant) {
        self.heard = Instant::now();
        let delivery = message.reply.and_then(|reply| {
            let place = codec::place(&reply)?;
            Some((reply, place))
        });
        // A stored message can have a status line too, where a foreign program wrote one: what is
        // to be settled is a delivery.
        if let (Some(status), None) = (message.status, &delivery) {
            return self.status(inner, status, message.headers.as_ref());
        }
        let Some((reply, place)) = delivery else {
            tracing::warn!("something that is no delivery came to the inbox; it is dropped");
            return;
        };
        self.outstanding = self.outstanding.saturating_sub(1);
        // Either the server says that it comes again, or it has forgotten, and the place says so.
        if place.delivered > 1 || place.sequence <= self.highest {
            let renewed = inner.flight().renew(place, &reply, arrived, inner.held_for());
            if renewed {
                return;
            }
            // The same one, handed over again before anyone saw it.
            self.unseen.retain(|unseen| unseen.place.sequence != place.sequence);
        }
        self.highest = self.highest.max(place.sequence);
        let (headers, body) = (message.headers, message.payload);
        self.unseen.push_back(Unseen { headers, body, reply, place, arrived });
    }

    fn status(&mut self, inner: &Inner, status: StatusCode, headers: Option<&HeaderMap>) {
        const IDLE: u16 = 100;
        const TIMEOUT: u16 = 408;
        let code = status.as_u16();
        if code == IDLE {
            return;
        }
        let left = headers
            .and_then(|headers| headers.get("Nats-Pending-Messages"))
            .and_then(|left| left.as_str().parse().ok());
        self.outstanding = self.outstanding.saturating_sub(left.unwrap_or(self.outstanding));
        if code != TIMEOUT {
            // Deleted, no leader, nobody listens, too many wait: it is looked into, and asked again
            // with the next tick.
            self.paused = true;
            inner.suspicion.notify_one();
        }
    }

    /// Asks for what may still be handed over, in few large pulls.
    async fn pull(&mut self, inner: &Inner) -> Result<()> {
        let Some((_, reply)) = &self.inbox else { return Ok(()) };
        if self.paused || !self.up {
            return Ok(());
        }
        let taken = self.unseen.len() + self.outstanding;
        let room = inner.flight().room().saturating_sub(taken);
        if room == 0 || (self.outstanding > 0 && room < inner.flight().prefetch().div_ceil(2)) {
            return Ok(());
        }
        let (stream, durable) = (&inner.names.of.stream, inner.durable());
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}");
        let request = format!(
            "{{\"batch\":{room},\"expires\":{},\"idle_heartbeat\":{}}}",
            EXPIRES.as_nanos(),
            HEARTBEAT.as_nanos()
        );
        let sent =
            inner.shared.client.publish_with_reply(subject, reply.clone(), request.into()).await;
        sent.map_err(|native| error::closed("connection").with_source(native))?;
        self.outstanding += room;
        Ok(())
    }

    /// Waits until there is something to look at.
    async fn wait(&mut self, inner: &Inner) {
        let tick = self.tick.get_or_insert_with(|| {
            let mut tick = interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tick.reset();
            tick
        });
        let came = tokio::select! {
            biased;
            message = next(&mut self.inbox) => message,
            () = inner.wake.notified() => return,
            _ = self.link.changed() => return self.refused(inner),
            _ = tick.tick() => {
                self.paused = false;
                inner.flight().sweep(Instant::now());
                if self.outstanding > 0 && self.up && self.heard.elapsed() > SILENCE {
                    // The pull is gone and nobody said so. A new inbox, so that nothing of the old
                    // one exceeds the credit.
                    tracing::warn!("no heartbeat from the server; pulling anew");
                    self.inbox = None;
                    inner.suspicion.notify_one();
                }
                return;
            }
        };
        match came {
            Some(message) => self.take(inner, message, Instant::now()),
            None => self.inbox = None,
        }
    }

    /// A refused pull is told by the link only.
    fn refused(&self, inner: &Inner) {
        let (stream, durable) = (&inner.names.of.stream, inner.durable());
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}");
        if let Some(why) = inner.shared.link.denied(self.denials, Concern::Subject(&subject)) {
            inner.end(why);
        }
    }

    /// Ends the pulls where they may bring more than there is room for, and gives what came beyond.
    ///
    /// # Cancel safety
    /// What is in the inbox then comes back with the end of its lease.
    pub(crate) async fn recall(&mut self, inner: &Inner) -> Vec<Unseen> {
        self.collect(inner, Instant::now());
        if self.unseen.len() + self.outstanding > inner.flight().room() {
            self.end_pulls(inner).await;
        }
        let room = inner.flight().room().min(self.unseen.len());
        self.unseen.split_off(room).into()
    }

    /// Ends the pulls and gives what came by them.
    pub(crate) async fn stop(&mut self, inner: &Inner) -> Vec<Unseen> {
        self.end_pulls(inner).await;
        self.unseen.drain(..).collect()
    }

    async fn end_pulls(&mut self, inner: &Inner) {
        if let Some((mut inbox, _)) = self.inbox.take()
            && inner.shared.link.is_up()
        {
            // Drained, not dropped: what the server has already sent is given back at once.
            let drained = async {
                if inbox.drain().await.is_ok() {
                    while let Some(message) = inbox.next().await {
                        self.take(inner, message, Instant::now());
                    }
                }
            };
            let _ = tokio::time::timeout(ANSWER, drained).await;
        }
        self.outstanding = 0;
    }
}

async fn next(inbox: &mut Option<(Subscriber, Subject)>) -> Option<Message> {
    match inbox {
        Some((inbox, _)) => inbox.next().await,
        None => std::future::pending().await,
    }
}
