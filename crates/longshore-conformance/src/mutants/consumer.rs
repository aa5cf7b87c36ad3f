use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    AckToken, Broker, Consumer, Error, Event, Received, Result, Settlement, Source,
};
use tokio::sync::Notify;

use super::broken::{World, copy, message};
use super::fault::{Closing, Spread};

/// The epoch of tokens that no broker gave: settling them does nothing.
const FORGED: u32 = u32::MAX;

/// What a broken broker hands to a consumer beside its own messages.
#[derive(Debug)]
pub(super) struct Mailbox {
    source: Source,
    messages: Mutex<VecDeque<Received>>,
    arrived: Notify,
}

impl Mailbox {
    fn put(&self, mut received: Received) {
        static FORGERIES: AtomicU64 = AtomicU64::new(0);
        let seq = FORGERIES.fetch_add(1, Ordering::Relaxed);
        received.token = AckToken { epoch: FORGED, slot: 0, seq };
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push_back(received);
        self.arrived.notify_one();
    }

    fn take(&self) -> Option<Received> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[derive(Debug)]
pub(super) struct BrokenConsumer {
    inner: Arc<dyn Broker>,
    consumer: Arc<dyn Consumer>,
    world: Arc<World>,
    source: Source,
    pub(super) mailbox: Arc<Mailbox>,
    held: Mutex<HashMap<AckToken, Received>>,
}

impl BrokenConsumer {
    pub(super) fn new(
        inner: Arc<dyn Broker>,
        consumer: Arc<dyn Consumer>,
        world: Arc<World>,
        source: Source,
    ) -> Self {
        let mailbox = Arc::new(Mailbox {
            source: source.clone(),
            messages: Mutex::default(),
            arrived: Notify::new(),
        });
        world.fault.replay(&source).into_iter().for_each(|again| mailbox.put(again));
        Self { inner, consumer, world, source, mailbox, held: Mutex::default() }
    }

    /// Hands over what came from the broker, as the fault has it. Never waits: what was received is
    /// in nobody's hands until it is in `out`.
    fn hand_over(&self, received: Received, out: &mut Vec<Event>) {
        let fault = &self.world.fault;
        let token = received.token;
        let Some(received) = fault.deliver(&self.source, received) else {
            let consumer = self.consumer.clone();
            tokio::spawn(async move {
                consumer.settle(&[Settlement::Ack(token)], &mut Vec::new()).await;
            });
            return;
        };
        match fault.spread(&self.source) {
            Spread::Nobody => {}
            Spread::Again(times) => (0..times).for_each(|_| self.mailbox.put(received.clone())),
            Spread::Members => {
                for other in self.world.mailboxes() {
                    if other.source == self.source && !Arc::ptr_eq(&other, &self.mailbox) {
                        other.put(received.clone());
                    }
                }
            }
        }
        if let Some(patience) = fault.patience() {
            let consumer = self.consumer.clone();
            tokio::spawn(async move {
                tokio::time::sleep(patience).await;
                consumer.settle(&[Settlement::Ack(token)], &mut Vec::new()).await;
            });
        }
        self.held().insert(received.token, received.clone());
        out.push(Event::Message(received));
    }

    async fn settle_one(&self, mut settlement: Settlement) -> Result<()> {
        let token = settlement.token();
        if token.epoch == FORGED {
            return Ok(());
        }
        let Some(own) = self.world.fault.token(token) else {
            return Err(Error::lease_lost());
        };
        set_token(&mut settlement, own);
        let held = self.held().get(&token).cloned();
        let Some(received) = held else {
            let mut results = Vec::new();
            self.consumer.settle(&[settlement], &mut results).await;
            return results.into_iter().next().unwrap_or(Ok(()));
        };
        if self.world.fault.echo(&settlement) {
            copy(&self.inner, self.source.topic(), message(&received)).await;
        }
        let (mut orders, mut results) = (Vec::new(), Vec::new());
        self.world.fault.settle(settlement, &received, &mut orders);
        if !orders.is_empty() {
            self.consumer.settle(&orders, &mut results).await;
        }
        if let Some(Err(_)) = results.first()
            && let Some(instead) = orders.first().and_then(|order| self.world.fault.failed(order))
        {
            results.clear();
            self.consumer.settle(&[instead], &mut results).await;
        }
        results.into_iter().next().unwrap_or(Ok(()))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<AckToken, Received>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_token(settlement: &mut Settlement, to: AckToken) {
    match settlement {
        Settlement::Ack(token)
        | Settlement::Release { token, .. }
        | Settlement::Retry { token, .. }
        | Settlement::Suspect { token, .. }
        | Settlement::DeadLetter { token, .. }
        | Settlement::Redrive { token, .. } => *token = to,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for BrokenConsumer {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        let from = out.len();
        loop {
            self.world.fault.hold(&self.source).await;
            if let Some(forged) = self.mailbox.take() {
                out.push(Event::Message(forged));
                return Ok(());
            }
            let mut events = Vec::new();
            tokio::select! {
                () = self.mailbox.arrived.notified() => continue,
                received = self.consumer.receive(&mut events, limit) => received?,
            }
            for event in events {
                match event {
                    Event::Message(received) => self.hand_over(received, out),
                    other => out.push(other),
                }
            }
            if out.len() > from {
                return Ok(());
            }
        }
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        for settlement in batch {
            out.push(self.settle_one(settlement.clone()).await);
        }
    }

    async fn extend(&self, tokens: &[AckToken], by: Duration, out: &mut Vec<Result<()>>) {
        for token in tokens {
            if token.epoch == FORGED || !self.world.fault.extends() {
                out.push(Ok(()));
                continue;
            }
            match self.world.fault.token(*token) {
                Some(own) => self.consumer.extend(&[own], by, out).await,
                None => out.push(Err(Error::lease_lost())),
            }
        }
    }

    async fn set_prefetch(&self, prefetch: u16) {
        if let Some(prefetch) = self.world.fault.prefetch(prefetch) {
            self.consumer.set_prefetch(prefetch).await;
        }
    }

    async fn close(&self) -> Result<()> {
        match self.world.fault.closing() {
            Closing::Clean => {}
            Closing::After(late) => tokio::time::sleep(late).await,
            Closing::Acks => {
                let held: Vec<_> = self.held().drain().map(|(token, _)| token).collect();
                let acks: Vec<_> = held.into_iter().map(Settlement::Ack).collect();
                self.consumer.settle(&acks, &mut Vec::new()).await;
            }
        }
        self.consumer.close().await
    }
}
