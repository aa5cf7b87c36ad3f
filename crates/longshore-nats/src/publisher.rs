//! The outgoing side.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::Subject;
use async_trait::async_trait;
use longshore_core::{
    Confirms, Error, ErrorKind, Message, MessageId, Outcome, Publisher, Receipt, Result, TopicName,
};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::codec;
use crate::declare::stream_info;
use crate::error::{self, BACKEND, closed, no_topic};
use crate::interest::{Groups, Interested};
use crate::link::Concern;
use crate::names::TopicNames;
use crate::replies::{Gone, Ticket, Wait};
use crate::shared::{Shared, is_missing};

/// All of them are taken where everything in flight is waited for.
const BATCHES: u32 = 1 << 16;

pub(crate) struct NatsPublisher {
    shared: Arc<Shared>,
    names: TopicNames,
    /// The topic as a subject: cloned for each message without allocating.
    subject: Subject,
    /// Who is first polled is first written.
    turn: Mutex<()>,
    groups: Arc<Groups>,
    in_flight: Arc<Semaphore>,
    closed: AtomicBool,
}

/// One message on its way.
enum Sent {
    Waiting(MessageId, Ticket),
    Known(Error),
}

impl NatsPublisher {
    pub(crate) async fn open(shared: Arc<Shared>, topic: &TopicName) -> Result<Self> {
        let names = TopicNames::new(topic);
        let info = stream_info(&shared, &names.stream).await;
        info.map_err(|error| match is_missing(&error) {
            true => no_topic(topic).with_source(error),
            false => error,
        })?;
        let in_flight = Arc::new(Semaphore::new(BATCHES as usize));
        let subject = Subject::from(names.topic.as_str());
        Ok(Self {
            shared,
            names,
            subject,
            turn: Mutex::new(()),
            groups: Arc::default(),
            in_flight,
            closed: AtomicBool::new(false),
        })
    }

    fn check_open(&self) -> Result<()> {
        self.shared.link.check().map_err(|error| error.with_outcome(Outcome::NotSent))?;
        if self.closed.load(Ordering::Acquire) { Err(closed("publisher")) } else { Ok(()) }
    }

    async fn send(
        &self,
        message: Message,
        interested: Option<Interested>,
        deadline: Instant,
    ) -> Sent {
        let id = message.id.clone().unwrap_or_else(MessageId::generate);
        let checked = message
            .check(self.shared.config.max_body)
            .map_err(|error| error.with_backend(BACKEND))
            .and_then(|()| codec::outgoing(&message, &id));
        let mut headers = match checked {
            Ok(headers) => headers,
            Err(error) => return Sent::Known(error.with_outcome(Outcome::Refused)),
        };
        if let Some(interested) = interested {
            let marked = format!("{id}{}", interested.mark());
            if let Err(error) = codec::set(&mut headers, "Nats-Msg-Id", &marked) {
                return Sent::Known(error);
            }
        }
        let sent = async {
            let mut ticket = self.shared.replies.ticket().await?;
            let (subject, reply) = (self.subject.clone(), ticket.subject());
            let client = &self.shared.client;
            client
                .publish_with_reply_and_headers(subject, reply, headers, message.body)
                .await
                .map_err(error::unsent)?;
            ticket.sent();
            Ok(ticket)
        };
        match timeout_at(deadline, sent).await {
            Ok(Ok(ticket)) => Sent::Waiting(id, ticket),
            Ok(Err(error)) => Sent::Known(error),
            // Neither queued nor written: the client's line is full.
            Err(_) => Sent::Known(self.no_room()),
        }
    }

    fn no_room(&self) -> Error {
        let error = match self.shared.link.is_up() {
            true => error::error(ErrorKind::Backpressure, "the server takes no more for now"),
            false => error::down(),
        };
        error.with_outcome(Outcome::NotSent)
    }
}

#[async_trait]
impl Publisher for NatsPublisher {
    async fn publish(&self, batch: &mut Vec<Message>) -> Result<Confirms> {
        self.check_open()?;
        let turn = self.turn.lock().await;
        let interested = self.groups.before(&self.shared, &self.names).await;
        let interested = interested.map_err(|error| error.with_outcome(Outcome::NotSent))?;
        let since = self.shared.link.denials();
        let deadline = Instant::now() + self.shared.deadline();
        let permit = self.in_flight.clone().try_acquire_owned();
        let permit = permit.map_err(|_| self.no_room())?;
        let mut sent = Vec::with_capacity(batch.len());
        // Taken from the front one by one: dropped at the await, what is left was not sent.
        batch.reverse();
        let line = Line(batch);
        while let Some(message) = line.0.pop() {
            let one = self.send(message, interested, deadline).await;
            let full = matches!(&one, Sent::Known(why)
                if matches!(why.kind(), ErrorKind::Backpressure | ErrorKind::Unavailable));
            sent.push(one);
            if full {
                // Not one of the rest is taken, so that they keep their order.
                let rest = line.0.drain(..).map(|_| Sent::Known(self.no_room()));
                sent.extend(rest);
            }
        }
        drop(line);
        drop(turn);
        // A busy sender would otherwise never let another task of its thread run.
        tokio::task::coop::consume_budget().await;
        let (shared, names) = (self.shared.clone(), self.names.clone());
        let groups = self.groups.clone();
        Ok(Confirms::later(async move {
            let mut outcomes = confirm(&shared, &names, sent, since).await;
            if let Some(before) = interested
                && outcomes.iter().any(Result::is_ok)
                && let Err(why) = groups.behind(&shared, &names, before).await
            {
                let why = why.with_outcome(Outcome::Unknown);
                outcomes.iter_mut().filter(|it| it.is_ok()).for_each(|it| *it = Err(why.clone()));
            }
            drop(permit);
            outcomes
        }))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        // A confirmation that nobody polls would be waited for in vain.
        let all = self.in_flight.acquire_many(BATCHES);
        let _ = tokio::time::timeout(self.shared.deadline(), all).await;
        Ok(())
    }
}

/// Puts what is left of a batch back into its order, wherever the call ends.
struct Line<'a>(&'a mut Vec<Message>);

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.reverse();
    }
}

/// One outcome each, in order, under one deadline for all.
async fn confirm(
    shared: &Shared,
    names: &TopicNames,
    sent: Vec<Sent>,
    since: u64,
) -> Vec<Result<Receipt>> {
    let mut outcomes = Vec::with_capacity(sent.len());
    // From the first poll: whoever polls late finds the answers waiting.
    let mut wait = Wait::until(Instant::now() + shared.deadline());
    let refused = || shared.link.refusal(since, Concern::Subject(names.topic.as_str()));
    let mut over: Option<Error> = None;
    for one in sent {
        let (id, ticket) = match one {
            Sent::Waiting(id, ticket) => (id, ticket),
            Sent::Known(error) => {
                outcomes.push(Err(error));
                continue;
            }
        };
        let answer = match &over {
            // Given up, but for what has come already.
            Some(why) => ticket.now().unwrap_or_else(|| Err(why.clone())),
            None => ticket.answer(&mut wait, refused).await.unwrap_or_else(|gone| {
                let why = given_up(shared, gone);
                over = Some(why.clone());
                Err(why)
            }),
        };
        outcomes.push(answer.map(|duplicate| Receipt { id, duplicate }));
    }
    believe_missing(shared, names, &mut outcomes).await;
    outcomes
}

fn given_up(shared: &Shared, gone: Gone) -> Error {
    let (why, outcome) = match gone {
        Gone::Late => (shared.link.silence(), Outcome::Unknown),
        Gone::Refused(why) if why.kind() == ErrorKind::Forbidden => (why, Outcome::Refused),
        Gone::Refused(why) => (why, Outcome::Unknown),
    };
    why.with_outcome(outcome)
}

/// "Nobody takes this subject" is also what a server says that has no leader for the stream yet. So
/// it is asked, once a batch.
async fn believe_missing(shared: &Shared, names: &TopicNames, outcomes: &mut [Result<Receipt>]) {
    let missing = |outcome: &Result<Receipt>| outcome.as_ref().is_err_and(is_missing);
    if !outcomes.iter().any(missing) {
        return;
    }
    let why = match stream_info(shared, &names.stream).await {
        Err(error) if is_missing(&error) => no_topic(&names.topic).with_source(error),
        _ => error::error(ErrorKind::Unavailable, "the topic's stream is not available now"),
    };
    for outcome in outcomes.iter_mut().filter(|outcome| missing(outcome)) {
        *outcome = Err(why.clone().with_outcome(Outcome::Refused));
    }
}

impl fmt::Debug for NatsPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsPublisher").field("topic", &self.names.topic).finish_non_exhaustive()
    }
}
