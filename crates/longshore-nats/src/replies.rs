//! The confirmations of published messages: one inbox for each connection, and one task that reads
//! it and hands the answers out in batches.
//!
//! The client library's own way costs a oneshot, a boxed future, a timer and a tree of JSON for each
//! message. Here a message costs a place in a list, see `slots`.
//!
//! # Where an answer can be lost
//!
//! | where | what happens |
//! | --- | --- |
//! | the connection breaks after the message was written | the subscription is made again with the connection and the answer is gone: `Unknown` at the deadline |
//! | it breaks while the message waits to be written | it is lost with the client's buffer, or written later: `Unknown` at the deadline, or the answer |
//! | the server refuses the subject | an event of the connection tells all who wait; whom it concerns has `Forbidden` |
//! | nobody listens on the subject | the server says so itself, as an answer without a body |
//! | the inbox is full | it holds 65,536, of which 8,192 can be waited for: `Unknown` at the deadline |
//! | whoever waited has gone | the place stays counted until the answer comes or its time is over |
//! | the place belongs to another message now | the turn in the reply subject is another, and the answer is dropped |
//! | the client library's task or its runtime ended | the inbox ends with it, and all who wait hear that the connection is closed |
//!
//! `Unknown` is no loss: the same id is sent again and is known to the server.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subject, Subscriber, jetstream};
use futures::{FutureExt as _, StreamExt as _};
use longshore_core::{Error, ErrorKind, Outcome, Result};
use serde::Deserialize;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::error::{self, closed};
use crate::link::Link;
use crate::slots::{Answer, Left, Look, Slots, Turn};

/// Confirmations that may be waited for at a time, over all publishers.
const IN_FLIGHT: usize = 8192;
/// Answers that are handed out under one lock.
const BATCH: usize = 256;
/// Deadlines are looked at as often as this part of the longest, so that none needs a timer.
const SWEEPS: u32 = 20;

#[derive(Debug)]
pub(crate) struct Replies {
    /// What all reply subjects start with, up to the last dot.
    prefix: String,
    room: Semaphore,
    slots: Mutex<Slots>,
    /// There is something to sweep again.
    sweep: Notify,
    /// How long an answer may take.
    patience: Duration,
}

/// The tasks behind [`Replies`]. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Reading {
    _tasks: JoinSet<()>,
}

/// A place among those who wait for a confirmation.
#[derive(Debug)]
pub(crate) struct Ticket {
    replies: Arc<Replies>,
    turn: Turn,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No answer comes: not sent yet, or given up.
    Still,
    Sent,
    /// Its answer came, and the place is another's.
    Over,
}

/// What one batch waits for beside its answers.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) deadline: Instant,
    seen: Option<u64>,
}

impl Wait {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { deadline, seen: None }
    }
}

/// Why an answer is not waited for any longer.
#[derive(Debug)]
pub(crate) enum Gone {
    /// The connection is refused or closed, or the subject is.
    Refused(Error),
    Late,
}

/// Tells everyone, however the reading ended.
struct Ending(Arc<Replies>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.tell();
    }
}

impl Replies {
    /// # Errors
    /// `Closed` where the connection is.
    pub(crate) async fn open(
        client: &Client,
        link: &Arc<Link>,
        patience: Duration,
    ) -> Result<(Arc<Self>, Reading)> {
        let prefix = format!("{}.", client.new_inbox());
        let inbox = client
            .subscribe(format!("{prefix}*"))
            .await
            .map_err(|native| closed("connection").with_source(native))?;
        let replies = Arc::new(Self {
            prefix,
            room: Semaphore::new(IN_FLIGHT),
            slots: Mutex::default(),
            sweep: Notify::new(),
            patience,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(read(Ending(replies.clone()), inbox));
        tasks.spawn(keep(Ending(replies.clone()), link.clone()));
        Ok((replies, Reading { _tasks: tasks }))
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn ticket(self: &Arc<Self>) -> Result<Ticket> {
        let permit = match self.room.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.room.acquire().await.map_err(|_| closed("connection"))?,
        };
        permit.forget();
        let turn = self.lock().take();
        Ok(Ticket { replies: self.clone(), turn, stage: Stage::Still })
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // No code panics while it holds the lock; the list is consistent between calls anyway.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that deadlines are looked at from now on.
    fn swept(&self, mut slots: MutexGuard<'_, Slots>) {
        let begin = !std::mem::replace(&mut slots.swept, true);
        drop(slots);
        if begin {
            self.sweep.notify_one();
        }
    }

    fn tell(&self) {
        let wakers = self.lock().tell();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Hands answers out, and wakes those who wait for them once the lock is free.
    fn answer(&self, answers: &mut Vec<(Turn, Answer)>, wakers: &mut Vec<Waker>) {
        let mut freed = 0;
        {
            let mut slots = self.lock();
            for (turn, answer) in answers.drain(..) {
                let (waker, free) = slots.answer(turn, answer);
                wakers.extend(waker);
                freed += usize::from(free);
            }
        }
        self.room.add_permits(freed);
        wakers.drain(..).for_each(Waker::wake);
    }

    fn parse(&self, message: &Message) -> Option<(Turn, Answer)> {
        let token = message.subject.strip_prefix(self.prefix.as_str())?;
        Some((Turn::of_token(token)?, read_answer(message.status, &message.payload)))
    }
}

impl Ticket {
    /// Where the answer is to go.
    pub(crate) fn subject(&self) -> Subject {
        let prefix = &self.replies.prefix;
        let mut subject = String::with_capacity(prefix.len() + 16);
        subject.push_str(prefix);
        let _ = write!(subject, "{:x}", self.turn.token());
        subject.into()
    }

    pub(crate) fn sent(&mut self) {
        self.stage = Stage::Sent;
    }

    /// An answer that has come already; another is not waited for.
    pub(crate) fn now(mut self) -> Option<Answer> {
        self.stage = Stage::Still;
        let answer = self.replies.lock().now(self.turn)?;
        self.over();
        Some(answer)
    }

    fn over(&mut self) {
        self.stage = Stage::Over;
        self.replies.room.add_permits(1);
    }

    /// Waits for the answer. `refused` is asked at first, and again whenever something happened on
    /// the connection.
    ///
    /// # Cancel safety
    /// Safe to drop; the answer is then dropped too.
    pub(crate) async fn answer(
        mut self,
        wait: &mut Wait,
        refused: impl Fn() -> Option<Error>,
    ) -> Result<Answer, Gone> {
        let answer = poll_fn(|cx| {
            loop {
                let mut slots = self.replies.lock();
                match slots.look(self.turn, cx, wait.deadline, &mut wait.seen) {
                    Look::Answer(answer) => return Poll::Ready(Ok(answer)),
                    Look::News => {
                        let over = slots.over;
                        drop(slots);
                        let why = refused().or_else(|| over.then(|| closed("connection")));
                        if let Some(why) = why {
                            return Poll::Ready(Err(Gone::Refused(why)));
                        }
                    }
                    Look::Late => return Poll::Ready(Err(Gone::Late)),
                    Look::Wait => {
                        self.replies.swept(slots);
                        return Poll::Pending;
                    }
                }
            }
        })
        .await;
        match &answer {
            Ok(_) => self.over(),
            Err(_) => self.stage = Stage::Still,
        }
        answer
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let until = match self.stage {
            Stage::Over => return,
            Stage::Still => None,
            Stage::Sent => Some(Instant::now() + self.replies.patience),
        };
        let mut slots = self.replies.lock();
        match slots.leave(self.turn, until) {
            Left::Before => {}
            Left::Free => {
                drop(slots);
                self.replies.room.add_permits(1);
            }
            Left::Counted => self.replies.swept(slots),
        }
    }
}

async fn read(ending: Ending, mut inbox: Subscriber) {
    let replies = &ending.0;
    let (mut answers, mut wakers) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    while let Some(message) = inbox.next().await {
        answers.extend(replies.parse(&message));
        while answers.len() < BATCH
            && let Some(Some(message)) = inbox.next().now_or_never()
        {
            answers.extend(replies.parse(&message));
        }
        replies.answer(&mut answers, &mut wakers);
    }
}

/// Tells what happens on the connection, and keeps the deadlines.
async fn keep(ending: Ending, link: Arc<Link>) {
    let replies = &ending.0;
    let mut changes = link.watch();
    let each = (replies.patience / SWEEPS).clamp(Duration::from_millis(5), Duration::from_secs(1));
    let mut tick = interval(each);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Nothing is looked at while nobody waits.
    let mut ticking = false;
    loop {
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => replies.tell(),
                Err(_) => return,
            },
            () = replies.sweep.notified(), if !ticking => {
                ticking = true;
                tick.reset();
            }
            _ = tick.tick(), if ticking => {
                let (late, freed) = {
                    let mut slots = replies.lock();
                    let swept = slots.sweep(Instant::now());
                    ticking = slots.swept;
                    swept
                };
                replies.room.add_permits(freed);
                late.into_iter().for_each(Waker::wake);
            }
        }
    }
}

/// What the server says of a message.
#[derive(Deserialize)]
struct Confirmation<'a> {
    #[serde(borrow, default)]
    stream: Option<Cow<'a, str>>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    error: Option<jetstream::Error>,
}

fn read_answer(status: Option<StatusCode>, payload: &[u8]) -> Answer {
    if status == Some(StatusCode::NO_RESPONDERS) {
        // No stream takes the subject; asked for again before it is believed, see the publisher.
        let why = error::error(ErrorKind::NotFound, "no stream takes this subject");
        return Err(why.with_outcome(Outcome::Refused));
    }
    let unreadable = || {
        let why = error::error(ErrorKind::Unexpected, "the confirmation is unreadable");
        why.with_outcome(Outcome::Unknown)
    };
    match serde_json::from_slice(payload) {
        Ok(Confirmation { error: Some(refused), .. }) => {
            Err(error::server(refused).with_outcome(Outcome::Refused))
        }
        Ok(Confirmation { stream: Some(_), seq: Some(_), duplicate, .. }) => Ok(duplicate),
        Ok(_) => Err(unreadable()),
        Err(native) => Err(unreadable().with_source(native)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_confirmation_only_where_it_says_so() {
        let read = |text: &str| read_answer(None, text.as_bytes());
        assert!(!read(r#"{"stream":"orders","seq":7}"#).unwrap());
        assert!(!read(r#"{"stream":"ord\u0065rs","domain":"hub","seq":7,"new":[{}]}"#).unwrap());
        assert!(read(r#"{"stream":"orders","seq":7,"duplicate":true}"#).unwrap());
        let full = r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"orders","seq":0}"#;
        let full = read(full).unwrap_err();
        assert_eq!(
            (full.kind(), full.outcome()),
            (ErrorKind::Backpressure, Some(Outcome::Refused))
        );
        for bad in ["", "{}", "+OK", "[]", r#"{"stream":"orders"}"#, r#"{"seq":7}"#] {
            let error = read(bad).unwrap_err();
            let said = (error.kind(), error.outcome());
            assert_eq!(said, (ErrorKind::Unexpected, Some(Outcome::Unknown)), "{bad}");
        }
        let nobody = read_answer(Some(StatusCode::NO_RESPONDERS), b"").unwrap_err();
        assert_eq!(
            (nobody.kind(), nobody.outcome()),
            (ErrorKind::NotFound, Some(Outcome::Refused))
        );
    }
}
