//! Looks at a worker from outside: what its group has in the broker, and whether it gets any of it.

use std::sync::Arc;
use std::time::Duration;

use longshore_core::{LeaseKind, Source, Stats};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::client::Client;
use crate::engine::BreakerState;
use crate::observe::{GroupGauges, Vitals};

/// How often the worker's own state is shown: it costs no round trip.
const OWN: Duration = Duration::from_secs(1);
/// After so many looks at the broker that found messages, room for them, and none that came, the
/// consumer is a phantom.
const STRIKES: u32 = 3;
/// The wall clock may go astray by so much between two looks.
const JUMP: f64 = 5.0;

pub(super) struct Watch {
    pub(super) client: Client,
    pub(super) source: Source,
    pub(super) lanes: Vec<Arc<Shared>>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) gauges: GroupGauges,
    /// How often the broker is asked.
    pub(super) every: Duration,
    pub(super) prefetch: usize,
}

/// What the last looks found.
struct Memory {
    asked: Option<Instant>,
    received: u64,
    strikes: u32,
    unrouted: bool,
    clocks: (Instant, std::time::SystemTime),
}

impl Watch {
    pub(super) async fn run(self, ended: CancellationToken) {
        let mut own = interval(OWN.min(self.every));
        own.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = Memory {
            asked: None,
            received: 0,
            strikes: 0,
            unrouted: false,
            clocks: (Instant::now(), self.client.clock().now()),
        };
        while ended.run_until_cancelled(own.tick()).await.is_some() {
            self.own();
            self.clocks(&mut memory);
            if memory.asked.is_none_or(|asked| asked.elapsed() >= self.every) {
                memory.asked = Some(Instant::now());
                if ended.run_until_cancelled(self.ask(&mut memory)).await.is_none() {
                    break;
                }
            }
        }
        self.own();
        self.gauges.connected.set(0.0);
        self.gauges.worker_ready.set(0.0);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn own(&self) {
        let loads = self.lanes.iter().map(|lane| lane.load());
        let (held, buffered) = loads.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        self.gauges.in_flight.set(held as f64);
        self.gauges.buffered.set(buffered as f64);
        self.gauges.breaker.set(match self.lanes[0].breaker() {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        });
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        self.gauges.connected.set(flag(self.vitals.attached()));
        self.gauges.worker_ready.set(flag(self.vitals.health().ready()));
    }

    fn clocks(&self, memory: &mut Memory) {
        let now = (Instant::now(), self.client.clock().now());
        let (mono, wall) = std::mem::replace(&mut memory.clocks, now);
        let passed = (now.0 - mono).as_secs_f64();
        let shown = match now.1.duration_since(wall) {
            Ok(forth) => forth.as_secs_f64(),
            Err(back) => -back.duration().as_secs_f64(),
        };
        if (shown - passed).abs() > JUMP {
            self.lanes[0].alarms().clock_jump(shown - passed);
        }
    }

    async fn ask(&self, memory: &mut Memory) {
        let (topic, group) = (self.source.topic().clone(), self.source.group().clone());
        if let Some(stats) = self.stats(&self.source).await {
            self.gauges.group(&stats);
            let unrouted = stats.unrouted > 0;
            if unrouted && !std::mem::replace(&mut memory.unrouted, unrouted) {
                self.lanes[0].alarms().unrouted(stats.unrouted);
            }
            memory.unrouted = unrouted;
            self.judge(memory, &stats);
        }
        if self.lanes.len() > 1 {
            let suspects = Source::Suspects { topic: topic.clone(), group: group.clone() };
            if let Some(stats) = self.stats(&suspects).await {
                self.gauges.suspects(&stats);
            }
        }
        if let Some(stats) = self.stats(&Source::DeadLetters { topic, group }).await {
            self.gauges.dead(&stats);
        }
    }

    /// A broker that cannot be asked keeps what was shown last: the link has its own metric.
    async fn stats(&self, source: &Source) -> Option<Stats> {
        timeout(self.every, self.client.broker().stats(source)).await.ok()?.ok()
    }

    fn judge(&self, memory: &mut Memory, stats: &Stats) {
        let main = &self.lanes[0];
        let received = main.tally().received;
        let came = received > std::mem::replace(&mut memory.received, received);
        let held = main.held();
        // In a session, what is ready may be another member's alone.
        let waits_in_vain = stats.ready > 0
            && !came
            && held < self.prefetch
            && self.vitals.attached()
            && main.breaker() == BreakerState::Closed
            && self.client.info().capabilities.lease != LeaseKind::Session;
        if !waits_in_vain {
            memory.strikes = 0;
            self.vitals.phantom(false);
            return;
        }
        memory.strikes += 1;
        if memory.strikes < STRIKES {
            return;
        }
        memory.strikes = 0;
        self.vitals.phantom(true);
        main.alarms().phantom();
        // What is held would be lost to a consumer that is made again: it ends first.
        if held == 0 {
            main.rebuild.notify_one();
        }
    }
}
