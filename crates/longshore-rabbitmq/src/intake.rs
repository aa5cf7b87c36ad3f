//! What comes in: one channel with the broker's own prefetch, and what becomes of it when it ends.
//!
//! The broker never has more unsettled deliveries on the channel than it was asked for, so nothing
//! here needs a bound of its own. On the common path, a message costs no timer, task or await.

mod credit;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use longshore_core::{Error, Event, Link as LinkEvent, Result, Retryability};
use longshore_driver::{Backoff, BackoffConfig};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::attach::Attached;
use crate::deliver;
use crate::error;
use crate::link::Status;
use crate::reading::Reading;

/// The longest pause before a channel is opened again on a connection that serves.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

enum Stage {
    /// No consumer; the channel of before may still hold deliveries.
    Idle,
    Opening {
        attempt: BoxFuture<'static, Result<Attached>>,
        credit: usize,
    },
    /// `ending`: the broker was told to deliver no more; the stream says when it knows.
    Reading {
        stream: lapin::Consumer,
        credit: usize,
        ending: bool,
    },
}

pub(crate) struct Intake {
    link: watch::Receiver<Status>,
    stage: Stage,
    /// The connection that the channel stands on.
    generation: u32,
    unseen: VecDeque<Delivery>,
    /// What the runtime was told last.
    up: bool,
    events: VecDeque<Event>,
    backoff: Backoff,
    since: Instant,
    /// No new attempt before.
    pause: Option<Instant>,
}

/// What was waited for.
enum Came {
    Delivery(Option<lapin::Result<Delivery>>),
    Attached(Result<Attached>),
    News,
}

impl Intake {
    pub(crate) fn new(link: watch::Receiver<Status>) -> Self {
        let config = BackoffConfig { max: LONGEST_PAUSE, ..BackoffConfig::default() };
        Self {
            link,
            stage: Stage::Idle,
            generation: 0,
            unseen: VecDeque::new(),
            up: true,
            events: VecDeque::new(),
            backoff: Backoff::new(config),
            since: Instant::now(),
            pause: None,
        }
    }

    /// Waits for at least one event.
    ///
    /// # Cancel safety
    /// An attempt to attach goes on with the next call; what came stays in `unseen` until it is
    /// handed over, without an await in between.
    pub(crate) async fn receive(
        &mut self,
        reading: &Arc<Reading>,
        out: &mut Vec<Event>,
        limit: usize,
    ) -> Result<()> {
        let before = out.len();
        loop {
            reading.check()?;
            self.look(reading);
            self.collect(reading);
            self.news(reading, out, limit);
            let room = limit.saturating_sub(out.len() - before);
            deliver::hand_over(reading, &mut self.unseen, out, room);
            if out.len() > before {
                return Ok(());
            }
            self.steer(reading).await;
            let came = self.wait(reading).await;
            match came {
                Came::Delivery(next) => self.take(reading, next),
                Came::Attached(result) => self.attached(reading, result),
                Came::News => {}
            }
        }
    }

    /// Notes what happened to the connection and to the channel meanwhile.
    fn look(&mut self, reading: &Reading) {
        let (up, generation) = {
            let status = self.link.borrow_and_update();
            (status.up, status.generation)
        };
        let (attached, serves) = {
            let flight = reading.flight();
            (flight.is_attached(), flight.channel().is_some())
        };
        let reads = matches!(self.stage, Stage::Reading { .. });
        if (attached || reads) && (!up || generation != self.generation) {
            self.lose(reading, &error::down(), false);
        } else if (attached || reads) && !serves {
            self.lose(reading, &error::channel_gone(), true);
        } else if !up && self.up {
            self.down(error::down());
        }
    }

    /// At most `limit` of the events that are no messages.
    fn news(&mut self, reading: &Reading, out: &mut Vec<Event>, limit: usize) {
        let lost = reading.flight().take_lost();
        self.events.extend(lost.into_iter().map(|(epoch, why)| Event::Lost { epoch, why }));
        let count = self.events.len().min(limit);
        out.extend(self.events.drain(..count));
    }

    fn down(&mut self, why: Error) {
        if std::mem::replace(&mut self.up, false) {
            self.events.push_back(Event::State(LinkEvent::Down { why }));
        }
    }

    /// The channel is gone, with everything on it: what was not handed over is nobody's, and comes
    /// again.
    fn lose(&mut self, reading: &Reading, why: &Error, pause: bool) {
        self.unseen.clear();
        self.stage = Stage::Idle;
        reading.flight().detach(why);
        if pause {
            self.backoff.ended(self.since.elapsed());
            self.pause = Some(Instant::now() + self.backoff.delay(fastrand::f64()));
            self.backoff.failed();
        }
        self.down(why.clone());
    }

    /// Takes what is there, without waiting.
    fn collect(&mut self, reading: &Reading) {
        while let Stage::Reading { stream, .. } = &mut self.stage {
            match stream.next().now_or_never() {
                Some(next) => self.take(reading, next),
                None => return,
            }
        }
    }

    fn take(&mut self, reading: &Reading, next: Option<lapin::Result<Delivery>>) {
        match next {
            // The client library goes on giving out what it had buffered when the channel ended.
            // The broker gives that to somebody else.
            Some(Ok(delivery)) if delivery.acker.usable() => {
                reading.flight().delivered(delivery.delivery_tag);
                self.unseen.push_back(delivery);
            }
            Some(Ok(_)) => {}
            Some(Err(native)) => {
                let why = error::native(native);
                tracing::warn!(queue = reading.queue(), error = %why, "the channel of a consumer ended");
                let pause = self.link.borrow().generation == self.generation;
                self.lose(reading, &why, pause);
            }
            // The answer to our own order.
            None if matches!(self.stage, Stage::Reading { ending: true, .. }) => {
                self.stage = Stage::Idle;
            }
            None => {
                let why = error::cancelled(reading.queue());
                tracing::warn!(queue = reading.queue(), error = %why, "the broker ended a consumer");
                // What the channel still holds belongs to a queue that may be gone.
                self.lose(reading, &why, true);
            }
        }
    }

    fn attached(&mut self, reading: &Reading, result: Result<Attached>) {
        self.stage = Stage::Idle;
        match result {
            Ok(attached) => {
                let Attached { generation, channel, stream, credit, fresh, anew } = attached;
                if fresh {
                    reading.flight().attach(channel);
                    self.generation = generation;
                    self.since = Instant::now();
                }
                self.pause = None;
                self.stage = Stage::Reading { stream, credit, ending: false };
                if anew {
                    let why = error::declared_anew(reading.queue());
                    tracing::warn!(queue = reading.queue(), "{why}");
                    self.down(why);
                }
                if !std::mem::replace(&mut self.up, true) {
                    self.events.push_back(Event::State(LinkEvent::Up));
                }
            }
            Err(why) if why.retryability() == Retryability::Permanent => reading.end(why),
            Err(why) => {
                tracing::debug!(queue = reading.queue(), error = %why, "a consumer could not attach");
                self.since = Instant::now();
                self.lose(reading, &why, true);
            }
        }
    }

    async fn wait(&mut self, reading: &Reading) -> Came {
        let pause = match self.stage {
            Stage::Idle => self.pause,
            _ => None,
        };
        let pause = async {
            match pause {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            came = advance(&mut self.stage) => came,
            () = reading.wake.notified() => Came::News,
            _ = self.link.changed() => Came::News,
            () = pause => { self.pause = None; Came::News }
        }
    }
}

async fn advance(stage: &mut Stage) -> Came {
    match stage {
        Stage::Idle => pending().await,
        Stage::Opening { attempt, .. } => Came::Attached(attempt.await),
        Stage::Reading { stream, .. } => Came::Delivery(stream.next().await),
    }
}
