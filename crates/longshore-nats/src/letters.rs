//! The reader of a dead-letter queue.
//!
//! It reads by sequence and holds nothing on the server: letters are never in flight there, so a
//! reader that dies leaves each where it was. Two readers may see the same letter; what both of
//! them redrive is stored once, by the copy's id.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Message;
use async_trait::async_trait;
use futures::future::join_all;
use longshore_core::{
    AckToken, Consumer, ConsumerSpec, Event, MessageId, Received, Result, Settlement,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::browse::{Found, next};
use crate::codec::{self, Place};
use crate::declare::stream_info;
use crate::error::{closed, lease_lost, no_group, unsupported};
use crate::names::GroupNames;
use crate::shared::{Shared, is_missing};

/// How often an empty queue is looked at.
const POLL: Duration = Duration::from_millis(250);
const EPOCH: u32 = 1;

#[derive(Clone)]
struct Open {
    message: Message,
    place: Place,
    id: Option<MessageId>,
    letter: Option<String>,
}

#[derive(Default)]
struct State {
    open: HashMap<u64, Open>,
    /// The last sequence that was handed over.
    seen: u64,
}

pub(crate) struct LetterConsumer {
    shared: Arc<Shared>,
    names: GroupNames,
    prefetch: AtomicUsize,
    state: Mutex<State>,
    wake: Notify,
    closed: AtomicBool,
}

impl LetterConsumer {
    pub(crate) async fn open(shared: Arc<Shared>, spec: &ConsumerSpec) -> Result<Self> {
        let names = GroupNames::from_source(&spec.source);
        let info = stream_info(&shared, &names.dlq_stream).await;
        info.map_err(|error| match is_missing(&error) {
            true => no_group(&names.of.topic, &names.group).with_source(error),
            false => error,
        })?;
        Ok(Self {
            shared,
            names,
            prefetch: AtomicUsize::new(usize::from(spec.prefetch.max(1))),
            state: Mutex::default(),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next letter, where there is one and room for it.
    async fn read(&self, out: &mut Vec<Event>) -> Result<bool> {
        let (after, full) = {
            let state = self.state();
            (state.seen, state.open.len() >= self.prefetch.load(Ordering::Relaxed))
        };
        if full {
            return Ok(false);
        }
        let (stream, subject) = (&self.names.dlq_stream, &self.names.dlq);
        let Some(found) = next(&self.shared, stream, subject, after).await? else {
            return Ok(false);
        };
        let (mut received, open) = self.letter(found);
        let sequence = open.place.sequence;
        let mut state = self.state();
        state.seen = sequence;
        state.open.insert(sequence, open);
        received.token = AckToken { epoch: EPOCH, slot: 0, seq: sequence };
        out.push(Event::Message(received));
        Ok(true)
    }

    fn letter(&self, found: Found) -> (Received, Open) {
        let letter = found.parts.letter.as_ref().map(|letter| letter.id.to_string());
        let id = codec::identity(&found.parts, found.place);
        let open = Open { message: found.message, place: found.place, id: id.clone(), letter };
        let body = open.message.payload.clone();
        let topic = &self.names.of.topic;
        (codec::received(topic, body, found.parts, found.place, id, None, None), open)
    }

    async fn settle_one(&self, settlement: &Settlement) -> Result<()> {
        let token = settlement.token();
        let open = self.state().open.get(&token.seq).cloned();
        let open = open.filter(|_| token.epoch == EPOCH).ok_or_else(lease_lost)?;
        match settlement {
            Settlement::Ack(_) => self.delete(token.seq).await?,
            Settlement::Release { .. } => {}
            Settlement::Redrive { record, .. } => {
                let (shared, names) = (&self.shared, &self.names);
                let (id, letter) = (open.id.as_ref(), open.letter.as_deref());
                crate::copy::redrive(shared, names, &open.message, id, letter, record, open.place)
                    .await?;
                self.delete(token.seq).await?;
            }
            Settlement::Retry { .. }
            | Settlement::Suspect { .. }
            | Settlement::DeadLetter { .. } => {
                return Err(unsupported("this settlement of a dead letter"));
            }
        }
        self.state().open.remove(&token.seq);
        self.wake.notify_one();
        Ok(())
    }

    async fn delete(&self, sequence: u64) -> Result<()> {
        #[derive(Serialize)]
        struct Delete {
            seq: u64,
            no_erase: bool,
        }
        #[derive(Deserialize)]
        struct Deleted {}
        let stream = &self.names.dlq_stream;
        let operation = format!("STREAM.MSG.DELETE.{stream}");
        let delete = Delete { seq: sequence, no_erase: true };
        match self.shared.api::<Deleted>(&operation, stream, &delete).await {
            // Another redrive was faster, or this is the second try.
            Err(error) if is_missing(&error) => Ok(()),
            result => result.map(drop),
        }
    }

    fn check(&self) -> Result<()> {
        self.shared.link.check()?;
        if self.closed.load(Ordering::Acquire) { Err(closed("consumer")) } else { Ok(()) }
    }
}

#[async_trait]
impl Consumer for LetterConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        let before = out.len();
        loop {
            self.check()?;
            while out.len() - before < limit.max(1) {
                match self.read(out).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error)
                        if error.retryability() == longshore_core::Retryability::Transient =>
                    {
                        tracing::debug!(%error, "the dead-letter queue cannot be read now");
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if out.len() > before {
                return Ok(());
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        out.extend(join_all(batch.iter().map(|one| self.settle_one(one))).await);
    }

    async fn extend(&self, tokens: &[AckToken], _by: Duration, out: &mut Vec<Result<()>>) {
        let state = self.state();
        out.extend(tokens.iter().map(|token| {
            if state.open.contains_key(&token.seq) { Ok(()) } else { Err(lease_lost()) }
        }));
    }

    async fn set_prefetch(&self, prefetch: u16) {
        // Nothing is underway: letters are read one by one.
        self.prefetch.store(usize::from(prefetch), Ordering::Relaxed);
        self.wake.notify_one();
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.state().open.clear();
        self.wake.notify_one();
        Ok(())
    }
}

impl fmt::Debug for LetterConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LetterConsumer")
            .field("stream", &self.names.dlq_stream)
            .finish_non_exhaustive()
    }
}
