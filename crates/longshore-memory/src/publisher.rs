//! The outgoing side.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use longshore_core::{
    Confirms, Error, Message, MessageId, Outcome, Publisher, Receipt, Result, TopicName,
};
use tokio::time::{Instant, timeout_at};

use crate::codec;
use crate::error::{BACKEND, closed, full};
use crate::flight::after;
use crate::registry::Client;
use crate::world::{State, World};

pub(crate) struct MemoryPublisher {
    client: Arc<Client>,
    topic: usize,
    closed: AtomicBool,
}

/// A place in the line of those who wait for room; given up wherever the wait ends.
struct InLine<'a>(&'a World);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_line -= 1;
        // The next in line may have room that only this one was told of.
        self.0.announce_room(&state);
    }
}

impl MemoryPublisher {
    pub(crate) fn open(client: Arc<Client>, topic: &TopicName) -> Result<Self> {
        client.check_open()?;
        let topic = client.world.lock().topic_place(topic)?;
        Ok(Self { client, topic, closed: AtomicBool::new(false) })
    }

    fn check_open(&self) -> Result<()> {
        self.client.check_open()?;
        if self.closed.load(Ordering::Acquire) { Err(closed("publisher")) } else { Ok(()) }
    }

    /// Takes from the front of `batch` as long as there is room.
    fn store(
        &self,
        state: &mut State,
        batch: &mut Vec<Message>,
        outcomes: &mut Vec<Result<Receipt>>,
    ) {
        let now = Instant::now();
        let wall = self.client.setup.clock.now();
        let before = state.stored;
        loop {
            let room = self.client.world.capacity.saturating_sub(state.stored).min(batch.len());
            if room == 0 {
                break;
            }
            for message in batch.drain(..room) {
                outcomes.push(self.store_one(state, message, now, wall));
            }
            // A refused message or a duplicate took no room: there may be more for the rest.
        }
        if state.stored > before {
            state.wake_groups(self.topic);
        }
    }

    fn store_one(
        &self,
        state: &mut State,
        message: Message,
        now: Instant,
        wall: std::time::SystemTime,
    ) -> Result<Receipt> {
        message
            .check(self.client.config.max_body)
            .map_err(|error| error.with_backend(BACKEND).with_outcome(Outcome::Refused))?;
        let topic = &mut state.topics[self.topic];
        let id = message.id.clone().unwrap_or_else(MessageId::generate);
        if !topic.known.admit(&id, now) {
            return Ok(Receipt { id, duplicate: true });
        }
        let entry = codec::entry(message, id.clone(), topic.next_seq(), now, wall);
        state.store(self.topic, entry);
        Ok(Receipt { id, duplicate: false })
    }

    /// The usual case, a single message for which there is room, makes no list of outcomes.
    fn publish_one(&self, batch: &mut Vec<Message>) -> Result<Option<Result<Receipt>>> {
        let mut state = self.client.world.lock();
        // Under the lock, so that nothing is stored after a close has returned.
        self.check_open()?;
        let before = state.stored;
        if state.in_line > 0 || before >= self.client.world.capacity {
            return Ok(None);
        }
        let (now, wall) = (Instant::now(), self.client.setup.clock.now());
        let outcome = batch.pop().map(|message| self.store_one(&mut state, message, now, wall));
        if state.stored > before {
            state.wake_groups(self.topic);
        }
        Ok(outcome)
    }

    /// Waits in line for room, as long as a publish may.
    async fn wait_and_store(
        &self,
        batch: &mut Vec<Message>,
        outcomes: &mut Vec<Result<Receipt>>,
        in_line: InLine<'_>,
    ) {
        let deadline = after(Instant::now(), self.client.config.publish_timeout);
        let world = in_line.0;
        let mut why = full(world.capacity);
        if let Ok(_first) = timeout_at(deadline, world.line.lock()).await {
            loop {
                if let Err(closed) = self.check_open() {
                    why = closed.with_outcome(Outcome::NotSent);
                    break;
                }
                self.sweep_and_store(batch, outcomes);
                if batch.is_empty() {
                    return;
                }
                if timeout_at(deadline, world.room.notified()).await.is_err() {
                    self.sweep_and_store(batch, outcomes);
                    break;
                }
            }
        }
        // Not one of the rest is taken, though a smaller wish might fit: they keep their order.
        outcomes.extend(batch.drain(..).map(|_| Err(why.clone())));
    }

    /// Room may also be under letters that are too old to keep.
    fn sweep_and_store(&self, batch: &mut Vec<Message>, outcomes: &mut Vec<Result<Receipt>>) {
        let now = Instant::now();
        let mut state = self.client.world.lock();
        if state.stored >= self.client.world.capacity {
            (0..state.groups.len()).for_each(|group| state.tick(group, now));
        }
        self.store(&mut state, batch, outcomes);
    }
}

#[async_trait]
impl Publisher for MemoryPublisher {
    async fn publish(&self, batch: &mut Vec<Message>) -> Result<Confirms> {
        if batch.len() == 1
            && let Some(outcome) = self.publish_one(batch)?
        {
            tokio::task::coop::consume_budget().await;
            return Ok(Confirms::one(outcome));
        }
        let mut outcomes: Vec<Result<Receipt, Error>> = Vec::with_capacity(batch.len());
        let in_line = {
            let mut state = self.client.world.lock();
            // Under the lock, so that nothing is stored after a close has returned.
            self.check_open()?;
            if state.in_line == 0 {
                self.store(&mut state, batch, &mut outcomes);
            }
            (!batch.is_empty()).then(|| {
                state.in_line += 1;
                InLine(&self.client.world)
            })
        };
        if let Some(in_line) = in_line {
            self.wait_and_store(batch, &mut outcomes, in_line).await;
        }
        // Behind the work, since calls are taken in the order of their first poll. A busy sender
        // would otherwise never let another task of its thread run.
        tokio::task::coop::consume_budget().await;
        Ok(Confirms::ready(outcomes))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.client.world.room.notify_one();
        Ok(())
    }
}

impl fmt::Debug for MemoryPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPublisher").field("topic", &self.topic).finish_non_exhaustive()
    }
}
