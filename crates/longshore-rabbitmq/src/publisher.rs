//! The outgoing side.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use lapin::Confirmation;
use lapin::protocol::AMQPSoftError;
use lapin::types::ShortString;
use longshore_core::{
    Confirms, Error, ErrorKind, Message, MessageId, Outcome, Publisher, Receipt, Result, TopicName,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::ask::Questions;
use crate::codec;
use crate::declare::is_ours;
use crate::error::{self, BACKEND, closed, error};
use crate::lane::{Answer, Flight, Lane, Patience, confirmed};
use crate::names::short;
use crate::shared::Shared;

/// What may be under way at a time, in units of memory. It bounds what a program holds that does not
/// wait for its confirmations.
const WINDOW: u32 = 64 * 1024;
/// One unit; a message takes at least one.
const UNIT: usize = 1024;

pub(crate) struct RabbitPublisher {
    shared: Arc<Shared>,
    topic: TopicName,
    name: ShortString,
    /// Whoever is first polled is first written; and see [`Lane::publish`].
    turn: Mutex<Option<Arc<Lane>>>,
    /// Nothing is known of where the exchange leads: unroutable messages are to come back.
    foreign: bool,
    window: Arc<Semaphore>,
    closed: AtomicBool,
}

/// One message of a batch.
enum Sent {
    Flying(MessageId, Flight),
    Known(Error),
}

impl RabbitPublisher {
    /// # Errors
    /// `NotFound` where the topic does not exist.
    pub(crate) async fn open(shared: Arc<Shared>, topic: &TopicName) -> Result<Self> {
        let mut questions = Questions::new(&shared.outgoing, shared.deadline());
        questions.topic(topic).await?;
        let foreign = !is_ours(&mut questions, topic).await?;
        drop(questions);
        if foreign {
            let text = "the exchange is not as longshore makes it, or is not for these credentials \
                        to look at: each batch waits for its confirmations";
            tracing::warn!(%topic, text);
        }
        Ok(Self {
            name: short(topic.as_str())?,
            shared,
            topic: topic.clone(),
            turn: Mutex::default(),
            foreign,
            window: Arc::new(Semaphore::new(WINDOW as usize)),
            closed: AtomicBool::new(false),
        })
    }

    fn check_open(&self) -> Result<()> {
        self.shared.check().map_err(|error| error.with_outcome(Outcome::NotSent))?;
        match self.closed.load(Ordering::Acquire) {
            true => Err(closed("publisher").with_outcome(Outcome::NotSent)),
            false => Ok(()),
        }
    }

    /// The channel; a new one where the last was closed.
    async fn lane(&self, last: &mut Option<Arc<Lane>>, deadline: Instant) -> Result<Arc<Lane>> {
        if let Some(lane) = last.as_ref().filter(|lane| lane.is_open()) {
            // What is queued now would only be written once the server reads again.
            self.shared.outgoing.writable(deadline).await?;
            return Ok(lane.clone());
        }
        let lane = Arc::new(Lane::open(&self.shared.outgoing, deadline).await?);
        *last = Some(lane.clone());
        Ok(lane)
    }

    async fn room(&self, batch: &[Message], deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let units = |message: &Message| 1 + message.size() / UNIT;
        let wanted = batch.iter().map(units).sum::<usize>();
        let wanted = u32::try_from(wanted).unwrap_or(WINDOW).min(WINDOW);
        let full = || {
            let why = match self.shared.outgoing.silence() {
                // It answers, and too slowly.
                silent if silent.kind() == ErrorKind::Timeout => {
                    error(ErrorKind::Backpressure, "too much waits for its confirmation")
                }
                why => why,
            };
            why.with_outcome(Outcome::NotSent)
        };
        match timeout_at(deadline, self.window.clone().acquire_many_owned(wanted)).await {
            Ok(permit) => permit.map_err(|_| closed("publisher").with_outcome(Outcome::NotSent)),
            Err(_) => Err(full()),
        }
    }

    /// Queues one message, or says why not.
    fn send(&self, lane: &Arc<Lane>, message: Message) -> Sent {
        let id = message.id.clone().unwrap_or_else(MessageId::generate);
        let ready = message
            .check(self.shared.config.max_body)
            .and_then(|()| codec::outgoing(&message, &id, self.shared.setup.clock.now()))
            .and_then(|(properties, body)| {
                lane.check(&properties, body.len())?;
                Ok((properties, body))
            });
        match ready {
            Ok((properties, body)) => {
                // A fanout ignores the key. Of what is parked, it says the topic.
                let (exchange, key) = (self.name.clone(), self.name.clone());
                let flight = lane.publish(exchange, key, self.foreign, properties, body);
                match flight.is_unsent() {
                    true => Sent::Known(error::down().with_outcome(Outcome::NotSent)),
                    false => Sent::Flying(id, flight),
                }
            }
            Err(why) => Sent::Known(why.with_backend(BACKEND).with_outcome(Outcome::NotSent)),
        }
    }
}

#[async_trait]
impl Publisher for RabbitPublisher {
    async fn publish(&self, batch: &mut Vec<Message>) -> Result<Confirms> {
        self.check_open()?;
        let deadline = self.shared.deadline();
        let turn = timeout_at(deadline, self.turn.lock()).await;
        let unsent = |_| self.shared.outgoing.silence().with_outcome(Outcome::NotSent);
        let mut turn = turn.map_err(unsent)?;
        let lane = self.lane(&mut turn, deadline).await?;
        let permit = self.room(batch, deadline).await?;
        // Nothing is awaited from here on, so all of the batch is taken or nothing.
        let sent = batch.drain(..).map(|message| self.send(&lane, message)).collect();
        let mut underway = Underway {
            shared: self.shared.clone(),
            topic: self.topic.clone(),
            lane,
            sent,
            foreign: self.foreign,
            outcomes: Vec::new(),
            deadline,
            permit: Some(permit),
        };
        if self.foreign {
            // No other batch on this channel until all confirmations are there, wherever this ends:
            // a return could be anybody's.
            let lane = turn.take();
            let outcomes = underway.routed().await;
            if underway.sent.is_empty() {
                *turn = lane;
            }
            return Ok(Confirms::ready(outcomes));
        }
        drop(turn);
        // A busy sender would otherwise never let another task of its thread run.
        tokio::task::coop::consume_budget().await;
        Ok(Confirms::later(async move {
            underway.answered(|_| {}).await;
            std::mem::take(&mut underway.outcomes)
        }))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let patience = self.shared.patience();
        // A confirmation that nobody polls would be waited for in vain.
        let _ = timeout(patience, self.window.acquire_many(WINDOW)).await;
        if let Ok(mut turn) = timeout(patience, self.turn.lock()).await {
            *turn = None;
        }
        Ok(())
    }
}

/// A batch that waits for its confirmations. Dropped, it goes on waiting by itself: the client
/// library would keep what nobody waits for, for ever.
struct Underway {
    shared: Arc<Shared>,
    topic: TopicName,
    lane: Arc<Lane>,
    sent: VecDeque<Sent>,
    foreign: bool,
    outcomes: Vec<Result<Receipt>>,
    deadline: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

impl Underway {
    /// Waits for all outcomes.
    async fn answered(&mut self, mut came_back: impl FnMut(&Confirmation)) {
        let mut patience = Patience::until(self.deadline);
        let mut late = VecDeque::new();
        while let Some(first) = self.sent.front_mut() {
            let flight = match first {
                Sent::Flying(_, flight) => flight,
                Sent::Known(_) => {
                    if let Some(Sent::Known(why)) = self.sent.pop_front() {
                        self.outcomes.push(Err(why));
                    }
                    continue;
                }
            };
            let answer = patience.answer(flight).await;
            let Some(Sent::Flying(id, flight)) = self.sent.pop_front() else { continue };
            let outcome = match answer {
                Some(answer) => {
                    if let Ok(confirmation) = &answer {
                        came_back(confirmation);
                    }
                    self.judge(answer)
                }
                None => {
                    let why = self.shared.outgoing.silence().with_outcome(Outcome::Unknown);
                    late.push_back(Sent::Flying(id.clone(), flight));
                    Err(why)
                }
            };
            self.outcomes.push(outcome.map(|()| Receipt { id, duplicate: false }));
        }
        self.sent = late;
    }

    /// The same where the server gives back what has nowhere to go.
    async fn routed(&mut self) -> Vec<Result<Receipt>> {
        let ids: Vec<_> = self
            .sent
            .iter()
            .map(|sent| match sent {
                Sent::Flying(id, _) => Some(id.clone()),
                Sent::Known(_) => None,
            })
            .collect();
        let mut back = HashSet::new();
        self.answered(|confirmation| {
            if let Confirmation::Ack(Some(it)) | Confirmation::Nack(Some(it)) = confirmation {
                back.extend(codec::incoming(&it.properties).id);
            }
        })
        .await;
        let mut outcomes = std::mem::take(&mut self.outcomes);
        for (id, outcome) in ids.iter().zip(&mut outcomes) {
            if id.as_ref().is_some_and(|id| back.contains(id)) {
                *outcome = Err(unroutable(&self.topic));
            }
        }
        outcomes
    }

    fn judge(&self, answer: Answer) -> Result<()> {
        let native = match answer {
            Ok(confirmation) => {
                self.lane.settled();
                // Only a foreign exchange was asked to give anything back. There it may be another's.
                return match confirmation {
                    Confirmation::Ack(Some(_)) if !self.foreign => Err(unroutable(&self.topic)),
                    confirmation => confirmed(&confirmation),
                };
            }
            Err(native) => native,
        };
        // Closed by ourselves, or ended for good: that is the reason, whatever the channel says.
        if let Err(end) = self.shared.outgoing.check() {
            return Err(end.with_outcome(Outcome::Unknown).with_source(native));
        }
        // The server names no message when it closes a channel. Of one alone it is known which.
        let alone = self.lane.is_alone();
        let outcome = if alone { Outcome::Refused } else { Outcome::Unknown };
        let why = if error::is_soft(&native, &AMQPSoftError::NOTFOUND) {
            error::no_topic(&self.topic).with_source(native)
        } else if error::is_soft(&native, &AMQPSoftError::PRECONDITIONFAILED) {
            let (kind, text) = match alone {
                true => {
                    (ErrorKind::TooLarge, "the body exceeds a limit that was set on the server")
                }
                // Sent again, each of the others passes.
                false => (ErrorKind::Unavailable, "the server refused a message beside this one"),
            };
            error(kind, text).with_source(native)
        } else {
            let forbidden = error::is_soft(&native, &AMQPSoftError::ACCESSREFUSED);
            let why = error::native(native).with_context("topic", self.topic.as_str());
            return Err(why.with_outcome(if forbidden { outcome } else { Outcome::Unknown }));
        };
        Err(why.with_outcome(outcome))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        let permit = self.permit.take();
        let waits = |sent: &Sent| matches!(sent, Sent::Flying(_, Flight::Waiting(_)));
        if !sent.iter().any(waits) {
            return;
        }
        // Ends with the connection at the latest.
        self.shared.runtime.spawn(async move {
            for one in sent {
                if let Sent::Flying(_, flight) = one {
                    let _ = flight.await;
                }
            }
            drop(permit);
        });
    }
}

fn unroutable(topic: &TopicName) -> Error {
    let text = format!("topic `{topic}` leads nowhere: no queue is bound to its exchange");
    error(ErrorKind::Unroutable, text).with_outcome(Outcome::Refused)
}

impl fmt::Debug for RabbitPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitPublisher").field("topic", &self.topic).finish_non_exhaustive()
    }
}
