//! The loop of one lane: receives, settles, extends leases, keeps time, drains.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use longshore_core::{AckToken, Consumer, Event, Result, Retryability, Settlement, Source};
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::client::Client;
use crate::engine::{Input, Key};

/// The most events of one receive.
const RECEIVE: usize = 256;
/// Settle calls that overlap; what comes meanwhile waits for the next call, and makes it larger.
const OVERLAP: usize = 4;
/// How long a consumer may take to be made again.
const REBUILD: Duration = Duration::from_secs(30);
/// Between two tries of that.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);
/// How long a drained lane waits, beyond the budget, for the settlements of what it cancelled.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(5);

pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Client,
    pub(super) source: Source,
    pub(super) lease: Duration,
    pub(super) consumer: Arc<dyn Consumer>,
    pub(super) prefetch: u16,
    pub(super) drain: Duration,
    pub(super) stop: CancellationToken,
}

type Received = (Vec<Event>, Result<()>);

/// What a call to the consumer came to.
enum Done {
    Settled {
        keys: Vec<Key>,
        settlements: Vec<Settlement>,
        results: Vec<Result<()>>,
    },
    Extended {
        keys: Vec<Key>,
        results: Vec<Result<()>>,
    },
    /// The consumer's prefetch is set.
    Set,
}

#[derive(Clone, Copy)]
enum Phase {
    Reading,
    /// Running handlers may end until then.
    Draining(Instant),
    /// They were cancelled; their settlements may end until then.
    Aborting(Instant),
}

impl Lane {
    /// Runs until it is stopped and drained, or until an error that no reconnect can mend.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut calls = FuturesUnordered::new();
        let mut settling = 0;
        let mut receive = Some(self.receive(Vec::new()));
        let mut prefetch = Prefetch { is: self.prefetch, setting: false };
        let mut news = self.shared.news();
        let mut phase = Phase::Reading;
        let mut outcome = Ok(());
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let plan = self.shared.plan();
            if matches!(phase, Phase::Reading) && prefetch.changes(plan.credit, self.prefetch) {
                // Dropped, not awaited: what it would have returned stays with the broker.
                receive = None;
                calls.push(self.set_prefetch(prefetch.is));
            }
            // What is released while more is on its way here would only come back.
            settling += self.give_orders(settling < OVERLAP && !prefetch.setting, &mut calls);
            let deadline = match phase {
                Phase::Reading => None,
                _ if plan.held == 0 => break,
                Phase::Draining(until) | Phase::Aborting(until) => Some(until),
            };
            let wake = plan.wake.into_iter().chain(deadline).min();
            set(timer.as_mut(), wake);
            tokio::select! {
                (mut events, result) = wait(&mut receive) => {
                    self.feed(&mut events);
                    if result.is_ok() {
                        receive = Some(self.receive(events));
                    } else {
                        receive = None;
                        outcome = result;
                        self.stop.cancel();
                    }
                }
                Some(done) = calls.next(), if !calls.is_empty() => {
                    settling -= usize::from(matches!(done, Done::Settled { .. }));
                    if matches!(done, Done::Set) {
                        prefetch.setting = false;
                        if matches!(phase, Phase::Reading) {
                            receive = Some(self.receive(Vec::new()));
                        }
                    }
                    self.answer(done);
                }
                Ok(()) = news.changed() => self.shared.step([Input::Tick]),
                () = self.shared.rebuild.notified(), if matches!(phase, Phase::Reading) => {
                    if !prefetch.setting && self.shared.held() == 0 {
                        receive = None;
                        match self.rebuild().await {
                            // Stopped: the old one is closed.
                            Ok(()) if self.stop.is_cancelled() => {}
                            Ok(()) => {
                                // A new one starts with all of it; a breaker that is open lowers
                                // it again.
                                prefetch.is = self.prefetch;
                                receive = Some(self.receive(Vec::new()));
                            }
                            Err(error) => {
                                outcome = Err(error);
                                self.stop.cancel();
                            }
                        }
                    }
                }
                () = self.shared.lane.notified() => {}
                () = &mut timer, if wake.is_some() => {
                    self.shared.step([Input::Tick]);
                    match phase {
                        Phase::Draining(until) if Instant::now() >= until => {
                            self.shared.step([Input::Abort]);
                            phase = Phase::Aborting(Instant::now() + LAST_SETTLEMENTS);
                        }
                        Phase::Aborting(until) if Instant::now() >= until => break,
                        _ => {}
                    }
                }
                () = self.stop.cancelled(), if matches!(phase, Phase::Reading) => {
                    // Dropped, not awaited: what it would have returned stays with the broker.
                    receive = None;
                    phase = Phase::Draining(Instant::now() + self.drain);
                    self.shared.step([Input::Drain]);
                }
            }
        }
        drop((calls, receive));
        // What is still held after the last deadline goes back to the group with the consumer.
        let closed = self.consumer.close().await;
        outcome.and(closed)
    }

    /// Makes the consumer again, while nothing of it is held; tries until the broker can do it or
    /// the worker is stopped.
    async fn rebuild(&mut self) -> Result<()> {
        // It is the one that failed: what closing it meets is no news.
        let _ = timeout(REBUILD, self.consumer.close()).await;
        loop {
            let make = self.client.consumer(&self.source, self.prefetch, self.lease);
            let made = self.stop.run_until_cancelled(timeout(REBUILD, make)).await;
            match made {
                Some(Ok(Ok(consumer))) => {
                    self.consumer = consumer.into();
                    return Ok(());
                }
                Some(Ok(Err(error))) if error.retryability() != Retryability::Transient => {
                    return Err(error);
                }
                Some(_) => {
                    self.stop.run_until_cancelled(tokio::time::sleep(REBUILD_PAUSE)).await;
                }
                None => return Ok(()),
            }
        }
    }

    fn receive(&self, mut events: Vec<Event>) -> BoxFuture<'static, Received> {
        let consumer = self.consumer.clone();
        Box::pin(async move {
            let result = consumer.receive(&mut events, RECEIVE).await;
            (events, result)
        })
    }

    fn feed(&self, events: &mut Vec<Event>) {
        self.shared.step(events.drain(..).filter_map(|event| match event {
            Event::Message(received) => Some(Input::Received(received)),
            Event::Revoking { epoch, .. } => Some(Input::Revoking { epoch }),
            Event::Lost { epoch, .. } => Some(Input::Lost { epoch }),
            Event::State(link) => {
                self.shared.link(&link);
                None
            }
        }));
    }

    /// Begins what the engine ordered; says how many settle calls that makes.
    fn give_orders(
        &self,
        settlements: bool,
        calls: &mut FuturesUnordered<BoxFuture<'static, Done>>,
    ) -> usize {
        let orders = self.shared.take_orders(settlements);
        if !orders.extensions.is_empty() {
            calls.push(self.extend(orders.extensions));
        }
        if orders.settlements.is_empty() {
            return 0;
        }
        calls.push(self.settle(orders.settlements));
        1
    }

    fn settle(&self, orders: Vec<(Key, Settlement)>) -> BoxFuture<'static, Done> {
        let consumer = self.consumer.clone();
        let (keys, settlements): (Vec<_>, Vec<_>) = orders.into_iter().unzip();
        Box::pin(async move {
            let mut results = Vec::with_capacity(keys.len());
            consumer.settle(&settlements, &mut results).await;
            Done::Settled { keys, settlements, results }
        })
    }

    fn set_prefetch(&self, prefetch: u16) -> BoxFuture<'static, Done> {
        let consumer = self.consumer.clone();
        Box::pin(async move {
            consumer.set_prefetch(prefetch).await;
            Done::Set
        })
    }

    /// All by the shortest: a group has one lease, and only while it is changed are there two.
    fn extend(&self, orders: Vec<(Key, AckToken, Duration)>) -> BoxFuture<'static, Done> {
        let consumer = self.consumer.clone();
        let by = orders.iter().map(|(_, _, by)| *by).min().unwrap_or_default();
        let (keys, tokens): (Vec<_>, Vec<_>) =
            orders.into_iter().map(|(key, token, _)| (key, token)).unzip();
        Box::pin(async move {
            let mut results = Vec::with_capacity(keys.len());
            consumer.extend(&tokens, by, &mut results).await;
            Done::Extended { keys, results }
        })
    }

    fn answer(&self, done: Done) {
        match done {
            Done::Settled { keys, settlements, results } => {
                let answers = keys.into_iter().zip(settlements).zip(results);
                self.shared.step(answers.map(|((key, settlement), result)| Input::Settled {
                    key,
                    settlement,
                    result,
                }));
            }
            Done::Extended { keys, results } => {
                let answers = keys.into_iter().zip(results);
                self.shared.step(answers.map(|(key, result)| Input::Extended { key, result }));
            }
            Done::Set => {}
        }
    }
}

/// The prefetch of the lane's consumer.
struct Prefetch {
    /// As it is, or as it is being set.
    is: u16,
    setting: bool,
}

impl Prefetch {
    /// Whether it must be set anew; one call at a time.
    fn changes(&mut self, credit: Option<usize>, most: u16) -> bool {
        let wanted = credit.map_or(most, |credit| u16::try_from(credit).unwrap_or(most).min(most));
        if self.setting || wanted == self.is {
            return false;
        }
        *self = Self { is: wanted, setting: true };
        true
    }
}

async fn wait(receive: &mut Option<BoxFuture<'static, Received>>) -> Received {
    match receive {
        Some(receive) => receive.await,
        None => pending().await,
    }
}

/// Registering a timer costs more than looking at it.
fn set(timer: Pin<&mut Sleep>, wake: Option<Instant>) {
    if let Some(wake) = wake
        && timer.deadline() != wake
    {
        timer.reset(wake);
    }
}
