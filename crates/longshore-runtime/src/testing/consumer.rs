//! A consumer that is watched, and can be made to fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_core::{
    AckToken, Consumer, Error, ErrorKind, Event, LeaseKind, MessageId, Received, Result,
    Settlement, Source,
};
use tokio_util::sync::CancellationToken;

use super::faults::strike;
use super::journal::What;
use super::stage::Stage;

/// A consumer as the kit sees it: what it holds, and whether it is alive.
#[derive(Debug)]
pub(super) struct Hands {
    source: Source,
    /// Gone after a crash: dropping it is what the broker sees of a process that died.
    inner: Mutex<Option<Arc<dyn Consumer>>>,
    held: Mutex<HashMap<AckToken, Held>>,
    gone: CancellationToken,
}

#[derive(Debug)]
struct Held {
    id: Option<MessageId>,
    /// The kit took its lease away.
    lost: bool,
}

impl Hands {
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn holds(&self) -> bool {
        !self.held().is_empty()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Plays the death of its process.
    pub(super) fn crash(&self) {
        self.gone.cancel();
        self.held().clear();
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Takes every lease away; says how many there were.
    pub(super) async fn lose_leases(&self, lease: LeaseKind) -> usize {
        let lost: Vec<_> = {
            let mut held = self.held();
            held.iter_mut()
                .filter(|(_, held)| !held.lost)
                .map(|(token, held)| {
                    held.lost = true;
                    *token
                })
                .collect()
        };
        // A clock in the broker ends what nobody extends. Where there is none, the kit gives back.
        if lease != LeaseKind::Timed
            && let Ok(inner) = self.inner()
        {
            let release = |token: &AckToken| Settlement::Release { token: *token, record: None };
            let releases: Vec<_> = lost.iter().map(release).collect();
            inner.settle(&releases, &mut Vec::new()).await;
        }
        lost.len()
    }

    fn inner(&self) -> Result<Arc<dyn Consumer>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clone().ok_or_else(|| Error::closed("consumer"))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<AckToken, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_lost(&self, token: AckToken) -> bool {
        self.is_gone() || self.held().get(&token).is_some_and(|held| held.lost)
    }
}

/// The consumer that a worker gets.
#[derive(Debug)]
pub(super) struct Watched {
    hands: Arc<Hands>,
    stage: Arc<Stage>,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn Consumer>, source: Source, stage: Arc<Stage>) -> Self {
        let hands = Arc::new(Hands {
            source,
            inner: Mutex::new(Some(inner.into())),
            held: Mutex::default(),
            gone: CancellationToken::new(),
        });
        stage.enter(&hands);
        Self { hands, stage }
    }

    fn write(&self, id: Option<MessageId>, what: What) {
        let source = &self.hands.source;
        let (topic, group) = (self.stage.bare(source.topic()), source.group().clone());
        self.stage.journal().write(topic, Some(group), id, what);
    }

    fn delivered(&self, received: &Received) {
        let held = Held { id: received.id.clone(), lost: false };
        self.hands.held().insert(received.token, held);
        // A letter in the hands of a redrive is no attempt.
        if !matches!(self.hands.source, Source::DeadLetters { .. }) {
            let (attempt, deliveries) = (received.attempt(), received.deliveries);
            self.write(received.id.clone(), What::Delivered { attempt, deliveries });
        }
    }

    fn settled(&self, settlement: &Settlement, result: &Result<()>) {
        let token = settlement.token();
        let lost = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::LeaseLost);
        let id = {
            let mut held = self.hands.held();
            match result {
                Err(_) if !lost => held.get(&token).and_then(|held| held.id.clone()),
                _ => held.remove(&token).and_then(|held| held.id),
            }
        };
        let what = match result {
            Ok(()) => What::of(settlement),
            Err(_) if lost => What::LeaseLost,
            Err(error) => What::NotSettled(error.clone()),
        };
        self.write(id, what);
    }

    /// What a fault answers in the broker's place.
    fn fault(&self, token: AckToken) -> Option<Error> {
        if self.hands.is_lost(token) {
            return Some(Error::lease_lost());
        }
        strike(&self.stage.faults.refused_settlements)
            .then(|| Error::new(ErrorKind::Unavailable, "the test kit refuses this settlement"))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for Watched {
    async fn receive(&self, out: &mut Vec<Event>, limit: usize) -> Result<()> {
        let inner = self.hands.inner()?;
        let from = out.len();
        tokio::select! {
            biased;
            () = self.hands.gone.cancelled() => return Err(Error::closed("consumer")),
            result = inner.receive(out, limit) => result?,
        }
        for event in &out[from..] {
            match event {
                Event::Message(received) => self.delivered(received),
                Event::Lost { epoch, .. } => {
                    self.hands.held().retain(|token, _| token.epoch != *epoch);
                }
                Event::Revoking { .. } | Event::State(_) => {}
            }
        }
        Ok(())
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        let faults: Vec<_> = batch.iter().map(|one| self.fault(one.token())).collect();
        let sound = batch.iter().zip(&faults).filter(|(_, fault)| fault.is_none());
        let sound: Vec<_> = sound.map(|(one, _)| one.clone()).collect();
        let mut results = Vec::with_capacity(sound.len());
        if let Ok(inner) = self.hands.inner() {
            tokio::select! {
                biased;
                // Whether it happened, nobody of this process will hear.
                () = self.hands.gone.cancelled() => {}
                () = inner.settle(&sound, &mut results) => {}
            }
        }
        if self.hands.is_gone() {
            results.clear();
        }
        let mut results = results.into_iter();
        for (settlement, fault) in batch.iter().zip(faults) {
            let result = match fault {
                Some(error) => Err(error),
                None => results.next().unwrap_or_else(|| Err(Error::lease_lost())),
            };
            if !self.hands.is_gone() {
                self.settled(settlement, &result);
            }
            out.push(result);
        }
    }

    async fn extend(&self, tokens: &[AckToken], by: Duration, out: &mut Vec<Result<()>>) {
        let lost: Vec<_> = tokens.iter().map(|token| self.hands.is_lost(*token)).collect();
        let sound = tokens.iter().zip(&lost).filter(|(_, lost)| !**lost);
        let sound: Vec<_> = sound.map(|(token, _)| *token).collect();
        let mut results = Vec::with_capacity(sound.len());
        if let Ok(inner) = self.hands.inner() {
            tokio::select! {
                biased;
                () = self.hands.gone.cancelled() => results.clear(),
                () = inner.extend(&sound, by, &mut results) => {}
            }
        }
        let mut results = results.into_iter();
        for (token, lost) in tokens.iter().zip(lost) {
            let result = if lost { None } else { results.next() };
            let result = result.unwrap_or_else(|| Err(Error::lease_lost()));
            if matches!(&result, Err(error) if error.kind() == ErrorKind::LeaseLost)
                && let Some(held) = self.hands.held().remove(token)
            {
                self.write(held.id, What::LeaseLost);
            }
            out.push(result);
        }
    }

    async fn set_prefetch(&self, prefetch: u16) {
        let Ok(inner) = self.hands.inner() else { return };
        tokio::select! {
            biased;
            () = self.hands.gone.cancelled() => {}
            () = inner.set_prefetch(prefetch) => {}
        }
    }

    async fn close(&self) -> Result<()> {
        match self.hands.inner() {
            Ok(inner) => inner.close().await,
            // What died needs no closing.
            Err(_) => Ok(()),
        }
    }
}
