//! The incoming side.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{AckToken, Consumer, ConsumerSpec, Event, Result, Settlement};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::codec;
use crate::error::lease_lost;
use crate::flight::Member;
use crate::group::{Handed, Lane};
use crate::registry::Client;
use crate::settle::settle;

pub(crate) struct MemoryConsumer {
    client: Arc<Client>,
    group: usize,
    lane: Lane,
    epoch: u32,
    wake: Arc<Notify>,
}

/// What a receive found.
enum Found {
    Events,
    /// Nothing, and at this time something may be due.
    Nothing(Option<Instant>),
}

impl MemoryConsumer {
    pub(crate) fn open(client: Arc<Client>, spec: &ConsumerSpec) -> Result<Self> {
        let lane = Lane::from(&spec.source);
        let mut state = client.world.lock();
        // Under the lock, so that a close that runs beside it finds this consumer or is found.
        client.check_open()?;
        let group = state.group_place(spec.source.topic(), spec.source.group())?;
        let epoch = state.next_epoch();
        let prefetch = usize::from(spec.prefetch.max(1));
        let member = Member {
            epoch,
            client: client.id,
            instance: spec.instance.clone(),
            connection: client.setup.instance.clone(),
            prefetch,
            most: prefetch,
            held: 0,
            crashed: false,
        };
        state.groups[group].join(lane, member);
        let wake = state.groups[group].wake.clone();
        drop(state);
        Ok(Self { client, group, lane, epoch, wake })
    }

    fn try_receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<Found> {
        let now = Instant::now();
        let mut state = self.client.world.lock();
        state.tick(self.group, now);
        let state = &mut *state;
        let group = &mut state.groups[self.group];
        let topic = &state.topics[group.topic].name;
        let lease = group.lease;
        let handed = group.hand_over(self.lane, self.epoch, limit, now, |handed| {
            let mut received = match handed {
                Handed::Message(token, item) => codec::message(topic, item, token),
                Handed::Letter(token, dead) => codec::letter(topic, dead, token),
            };
            received.lease = Some(lease);
            out.push(Event::Message(received));
        })?;
        Ok(if handed > 0 { Found::Events } else { Found::Nothing(group.next_due(self.lane)) })
    }

    fn leave(&self, counted: bool) {
        self.client.world.lock().groups[self.group].leave(self.lane, self.epoch, counted);
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        // A busy reader would otherwise never let another task of its thread run.
        tokio::task::coop::consume_budget().await;
        let limit = limit.max(1);
        // The common case first: there is something, and nobody need be told to wake us.
        if let Found::Events = self.try_receive(out, limit)? {
            return Ok(());
        }
        loop {
            // Registered before the look, so that what happens in between is not missed.
            let mut woken = pin!(self.wake.notified());
            woken.as_mut().enable();
            match self.try_receive(out, limit)? {
                Found::Events => return Ok(()),
                Found::Nothing(None) => woken.await,
                Found::Nothing(Some(due)) => tokio::select! {
                    () = woken => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        let now = Instant::now();
        let mut state = self.client.world.lock();
        // First, so that a lease that is over is lost even where nobody has noticed yet.
        state.tick(self.group, now);
        for settlement in batch {
            out.push(settle(&mut state, self.group, self.lane, self.epoch, settlement, now));
        }
        self.client.world.announce_room(&state);
    }

    async fn extend(&self, tokens: &[AckToken], by: Duration, out: &mut Vec<Result<()>>) {
        let now = Instant::now();
        let mut state = self.client.world.lock();
        state.tick(self.group, now);
        let group = &mut state.groups[self.group];
        for token in tokens {
            out.push(if token.epoch != self.epoch {
                Err(lease_lost())
            } else {
                match self.lane {
                    Lane::Main => group.main.extend(*token, now, by),
                    Lane::Suspects => group.suspect.extend(*token, now, by),
                    Lane::Letters => group.letters.flight.extend(*token, now, by),
                }
            });
        }
    }

    async fn set_prefetch(&self, prefetch: u16) {
        // Nothing is underway here: what is not handed over is with the group.
        let mut state = self.client.world.lock();
        state.groups[self.group].set_prefetch(self.lane, self.epoch, usize::from(prefetch));
    }

    async fn close(&self) -> Result<()> {
        self.leave(false);
        Ok(())
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        // Nobody said goodbye, so these hand-overs count, as after a connection that went away.
        self.leave(true);
    }
}

impl fmt::Debug for MemoryConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConsumer")
            .field("lane", &self.lane)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
