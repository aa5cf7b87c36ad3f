//! The reader of a dead-letter queue.
//!
//! It reads by id and holds nothing on the server: letters are never in flight there, so a reader
//! that dies leaves each where it was. Two readers may see the same letter; what both of them
//! redrive goes back once, since the letter is there once.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use longshore_core::{
    AckToken, Consumer, ConsumerSpec, Event, MessageId, RETRY_HEADER, Result, Settlement,
};
use tokio::sync::Notify;

use crate::browse::{Found, letters};
use crate::codec;
use crate::error::{closed, lease_lost, no_group, unsupported};
use crate::line::Line;
use crate::names::{EntryId, GroupNames};
use crate::reply::Fields;
use crate::script::{self, Call};
use crate::settings::Settings;
use crate::shared::Shared;

/// How often an empty queue is looked at.
const POLL: Duration = Duration::from_millis(250);
/// How many letters are read at once; each may be large.
const PAGE: usize = 20;
const EPOCH: u32 = 1;

#[derive(Clone)]
struct Open {
    id: EntryId,
    fields: Arc<Fields>,
    message_id: Option<MessageId>,
}

struct State {
    open: HashMap<u64, Open>,
    /// The next token's number.
    number: u64,
    /// The last that was handed over, or looked at.
    seen: Option<EntryId>,
}

pub(crate) struct LetterConsumer {
    shared: Arc<Shared>,
    line: Arc<Line>,
    names: GroupNames,
    prefetch: AtomicUsize,
    most: usize,
    state: Mutex<State>,
    wake: Notify,
    closed: AtomicBool,
}

/// # Errors
/// `NotFound` where the group does not exist, or has no dead-letter queue.
pub(crate) async fn check(shared: &Shared, names: &GroupNames) -> Result<()> {
    let settings = Settings::read(shared, names).await?;
    match settings.and_then(|settings| settings.retention) {
        Some(_) => Ok(()),
        None => {
            Err(no_group(&names.topic, &names.group)
                .with_context("why", "it has no dead-letter queue"))
        }
    }
}

impl LetterConsumer {
    pub(crate) async fn open(shared: Arc<Shared>, spec: &ConsumerSpec) -> Result<Self> {
        let names = GroupNames::from_source(&spec.source);
        check(&shared, &names).await?;
        let most = usize::from(spec.prefetch.max(1));
        Ok(Self {
            line: shared.control(&names.topic),
            shared,
            names,
            prefetch: AtomicUsize::new(most),
            most,
            state: Mutex::new(State { open: HashMap::new(), number: 1, seen: None }),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next letters, as many as there is room for.
    async fn read(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        let (seen, room) = {
            let state = self.state();
            let room = self.prefetch.load(Ordering::Relaxed).saturating_sub(state.open.len());
            (state.seen, room.min(limit).min(PAGE))
        };
        if room == 0 {
            return Ok(());
        }
        let found = letters(&self.line, &self.names, seen, room).await?;
        let mut state = self.state();
        for Found { place, fields, .. } in found {
            let parts = codec::incoming(&fields);
            let mut received = codec::received(&self.names.topic, parts, place, 1, None, None);
            received.token = AckToken { epoch: EPOCH, slot: 0, seq: state.number };
            let open =
                Open { id: place.id, fields: Arc::new(fields), message_id: received.id.clone() };
            state.seen = Some(place.id);
            let number = state.number;
            state.open.insert(number, open);
            state.number += 1;
            out.push(Event::Message(received));
        }
        Ok(())
    }

    async fn settle_one(&self, settlement: &Settlement) -> Result<()> {
        let token = settlement.token();
        let open = self.state().open.get(&token.seq).cloned();
        let open = open.filter(|_| token.epoch == EPOCH).ok_or_else(lease_lost)?;
        match settlement {
            Settlement::Ack(_) => {
                let mut delete = redis::cmd("XDEL");
                delete.arg(&self.names.dlq).arg(open.id.to_string());
                // Gone already where another reader was faster, or this is the second try.
                self.line.query(delete).await?;
            }
            Settlement::Release { .. } => {}
            Settlement::Redrive { record, .. } => {
                let mut fields = codec::base(&open.fields, open.message_id.as_ref());
                fields.push((RETRY_HEADER.into(), Bytes::from(record.encode())));
                let mut call = Call::new(&script::REDRIVE, &[&self.names.dlq, &self.names.redrive])
                    .arg(open.id.to_string());
                for (name, value) in &fields {
                    call = call.arg(&name[..]).arg(&value[..]);
                }
                // Where it is gone, it was redriven or removed.
                self.line.run(call).await?;
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

    fn check(&self) -> Result<()> {
        self.shared.end.check()?;
        if self.closed.load(Ordering::Acquire) { Err(closed("consumer")) } else { Ok(()) }
    }
}

#[async_trait]
impl Consumer for LetterConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        let before = out.len();
        loop {
            self.check()?;
            match self.read(out, limit.max(1)).await {
                Ok(()) => {}
                Err(error) if error.retryability() == longshore_core::Retryability::Transient => {
                    tracing::debug!(%error, "the dead-letter queue cannot be read now");
                }
                Err(error) => return Err(error),
            }
            if out.len() > before {
                return Ok(());
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.shared.end.reached() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        out.extend(futures::future::join_all(batch.iter().map(|one| self.settle_one(one))).await);
    }

    async fn extend(&self, tokens: &[AckToken], _by: Duration, out: &mut Vec<Result<()>>) {
        let state = self.state();
        out.extend(tokens.iter().map(|token| {
            if state.open.contains_key(&token.seq) { Ok(()) } else { Err(lease_lost()) }
        }));
    }

    async fn set_prefetch(&self, prefetch: u16) {
        // Nothing is underway: letters are read as they are asked for.
        self.prefetch.store(usize::from(prefetch).min(self.most), Ordering::Relaxed);
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
        f.debug_struct("LetterConsumer").field("dlq", &self.names.dlq).finish_non_exhaustive()
    }
}
