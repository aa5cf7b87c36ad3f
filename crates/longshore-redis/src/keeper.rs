//! The keeper: takes what is due, what was redriven and what others lost, in small steps of a
//! fraction of a second; and looks after what nobody else does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_core::{Error, ErrorKind, Event, Link, Result, Retryability};
use tokio::time::{Instant, sleep};

use crate::codec::TRIMMED;
use crate::consumer::Inner;
use crate::error;
use crate::line::is_missing;
use crate::names::{Lane, PARKED, Place};
use crate::reader::repair;
use crate::release;
use crate::reply;
use crate::script::{self, Call, MOST};
use crate::settings::ms;

/// How long something may be due before it is looked for: others park, too.
const POLL: Duration = Duration::from_millis(150);
/// Added to it, so that members do not ask all at once.
const JITTER: Duration = Duration::from_millis(50);
/// Between two looks at letters that are too old.
const LETTERS: Duration = Duration::from_secs(1);
/// Between two looks at entries that no group needs.
const SWEEP: Duration = Duration::from_secs(10);
/// How many entries one of these looks at.
const SWEPT: usize = 200;
/// After so long, a member without deliveries is taken for dead.
const IDLE: Duration = Duration::from_secs(3600);

struct Keeper {
    inner: Arc<Inner>,
    up: bool,
    reaped: Instant,
    repairs: [String; 2],
    letters: Instant,
    swept: Instant,
    sweep_from: String,
}

pub(crate) async fn run(inner: Arc<Inner>) {
    let now = Instant::now();
    let mut keeper = Keeper {
        inner,
        up: true,
        reaped: now,
        repairs: ["-".to_owned(), "-".to_owned()],
        letters: now,
        swept: now,
        sweep_from: "-".to_owned(),
    };
    while keeper.inner.check().is_ok() {
        match keeper.turn().await {
            Ok(()) => keeper.tell(Ok(())),
            Err(why) if is_missing(&why) => {
                if let Err(why) = repair(&keeper.inner, &why).await {
                    keeper.failed(why);
                }
            }
            Err(why) => keeper.failed(why),
        }
        keeper.rest().await;
    }
}

impl Keeper {
    async fn turn(&mut self) -> Result<()> {
        self.inner.flight().sweep(Instant::now());
        // However there came to be room, a reader that waits for it hears of it here at the latest.
        if self.inner.credit() > 0 && self.inner.blocked.load(Ordering::Acquire) == 0 {
            self.inner.room.notify_one();
        }
        if self.inner.suspects {
            self.suspect().await?;
        } else {
            self.take().await?;
            self.reap().await?;
        }
        self.give_back().await;
        self.letters().await?;
        self.sweep().await
    }

    fn failed(&mut self, why: Error) {
        match (why.kind(), why.retryability()) {
            // No reconnect mends these. A key of another type may be removed again.
            (ErrorKind::Forbidden | ErrorKind::Unauthenticated, _) => self.inner.end(why),
            (_, Retryability::Permanent) => {
                tracing::warn!(error = %why, topic = %self.inner.names.topic, "the group's lanes cannot be looked after");
            }
            _ => {
                self.inner.doubt();
                self.tell(Err(why));
            }
        }
    }

    /// The suspect lane has no reader that would say so.
    fn tell(&mut self, now: Result<()>) {
        if self.inner.suspects && now.is_ok() != self.up {
            self.up = now.is_ok();
            let event = match now {
                Ok(()) => Link::Up,
                Err(why) => Link::Down { why },
            };
            self.inner.flight().events.push(Event::State(event));
            self.inner.wake.notify_one();
        }
    }

    /// Until there may be something to do.
    async fn rest(&self) {
        let poll = POLL + JITTER.mul_f64(fastrand::f64());
        let wait = self.inner.next_due().map_or(poll, |due| due.min(poll));
        tokio::select! {
            () = sleep(wait) => {}
            () = self.inner.work.notified() => {}
            () = self.inner.shared.end.reached() => {}
        }
    }

    async fn take(&mut self) -> Result<()> {
        let inner = &self.inner;
        let room = inner.credit().min(MOST);
        let names = &inner.names;
        let keys =
            [names.stream(Lane::Main), &*names.redrive, &*names.due, &*names.record, &*names.conf];
        let call = Call::new(&script::TAKE, &keys);
        let call = call.arg(inner.group()).arg(&inner.me).arg(PARKED).arg(room);
        let taking = inner.taking.lock().await;
        inner.forget_due();
        let since = Instant::now();
        let mut answer = reply::list(inner.line.run(call).await?)?.into_iter();
        let mut number = || answer.next().as_ref().and_then(reply::number);
        let (lease, longest, wait) = (number(), number(), number());
        inner.learn(lease, longest);
        let taken = reply::entries(answer.next().unwrap_or_default())?;
        gone(inner, answer.next().unwrap_or_default())?;
        let any = !taken.is_empty();
        inner.arrived(taken, since);
        drop(taking);
        // Without room nothing is due here.
        if let Some(wait) = wait.and_then(|ms| u64::try_from(ms).ok()).filter(|_| room > 0) {
            inner.due_in(Duration::from_millis(wait.max(1)));
        }
        if any {
            // The reader asked for more than there is room for now.
            inner.unblock().await;
        }
        Ok(())
    }

    async fn reap(&mut self) -> Result<()> {
        let inner = &self.inner;
        let every = (inner.lease() / 10).clamp(Duration::from_millis(100), Duration::from_secs(2));
        if self.reaped.elapsed() < every {
            return Ok(());
        }
        self.reaped = Instant::now();
        let names = &inner.names;
        let keys =
            [names.stream(Lane::Main), &*names.redrive, &*names.due, &*names.record, &*names.conf];
        let room = inner.credit().min(MOST);
        let call = Call::new(&script::REAP, &keys)
            .arg(inner.group())
            .arg(&inner.me)
            .arg(PARKED)
            .arg(room)
            .arg(ms(inner.lease()))
            .arg(ms(IDLE))
            .args(&self.repairs);
        let taking = inner.taking.lock().await;
        let since = Instant::now();
        let mut answer = reply::list(inner.line.run(call).await?)?.into_iter();
        let taken = reply::entries(answer.next().unwrap_or_default())?;
        gone(inner, answer.next().unwrap_or_default())?;
        for cursor in &mut self.repairs {
            let next = answer.next();
            *cursor = next.as_ref().and_then(reply::text).unwrap_or("-").to_owned();
        }
        let any = !taken.is_empty();
        inner.arrived(taken, since);
        drop(taking);
        if any {
            inner.unblock().await;
        }
        Ok(())
    }

    async fn suspect(&mut self) -> Result<()> {
        let inner = &self.inner;
        let names = &inner.names;
        let (wants, has) = {
            let credit = inner.credit();
            let flight = inner.flight();
            (credit > 0, !flight.is_empty())
        };
        let keys = [&*names.suspect, &*names.conf, &*names.record];
        let call = Call::new(&script::SUSPECT, &keys)
            .arg(inner.group())
            .arg(&inner.me)
            .arg(PARKED)
            .arg(ms(inner.lease()))
            .arg(u8::from(wants))
            .arg(u8::from(has));
        let since = Instant::now();
        let mut answer = reply::list(inner.line.run(call).await?)?.into_iter();
        let mut number = || answer.next().as_ref().and_then(reply::number);
        let (lease, longest) = (number(), number());
        inner.learn(lease, longest);
        let taken = reply::entries(answer.next().unwrap_or_default())?;
        gone(inner, answer.next().unwrap_or_default())?;
        inner.arrived(taken, since);
        Ok(())
    }

    /// What nobody takes over is given to others before its lease is over.
    async fn give_back(&mut self) {
        let stale = self.inner.flight().stale(self.inner.lease() / 3);
        release::unseen(&self.inner, stale).await;
    }

    async fn letters(&mut self) -> Result<()> {
        let inner = &self.inner;
        if inner.suspects || !inner.has_letters || self.letters.elapsed() < LETTERS {
            return Ok(());
        }
        self.letters = Instant::now();
        let call = Call::new(&script::EXPIRE, &[&inner.names.dlq, &inner.names.conf]);
        let removed = reply::number(&inner.line.run(call).await?);
        if let Some(count) = removed.filter(|count| *count > 0) {
            tracing::info!(count, topic = %inner.names.topic, group = %inner.names.group, "dead letters were older than they are kept");
        }
        Ok(())
    }

    async fn sweep(&mut self) -> Result<()> {
        let inner = &self.inner;
        if inner.suspects || self.swept.elapsed() < SWEEP {
            return Ok(());
        }
        self.swept = Instant::now();
        let call = Call::new(&script::SWEEP, &[inner.names.stream(Lane::Main)]);
        let next = inner.line.run(call.arg(&self.sweep_from).arg(SWEPT)).await?;
        self.sweep_from = reply::text(&next).ok_or_else(error::unreadable)?.to_owned();
        Ok(())
    }
}

/// Lets the leases of these begin anew; for each, whether it was ours.
pub(crate) async fn extend(inner: &Inner, lane: Lane, places: &[Place]) -> Result<Vec<bool>> {
    let call = Call::new(&script::EXTEND, &[inner.names.stream(lane)])
        .arg(inner.group())
        .arg(&inner.me)
        .args(places.iter().map(|place| place.id.to_string()));
    let answers = reply::list(inner.line.run(call).await?)?;
    Ok(answers.iter().map(|answer| reply::number(answer) == Some(1)).collect())
}

/// Entries that another program removed while they were pending.
fn gone(inner: &Inner, members: redis::Value) -> Result<()> {
    for member in reply::list(members)? {
        let entry = reply::text(&member).unwrap_or_default();
        tracing::warn!(topic = %inner.names.topic, entry, reason = TRIMMED, "an entry was removed by another program while it was pending");
    }
    Ok(())
}
