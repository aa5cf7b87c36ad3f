//! The handles of the metrics: asked for once, since a look-up costs more than a count.

use std::time::Duration;

use longshore_core::policy::Reason;
use longshore_core::{ErrorKind, Outcome, Receipt, Result, Source, Stats};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata};

use super::table;
use crate::engine::{Meter, RESULTS, RunEnd, VERDICTS};

const METADATA: Metadata<'static> = Metadata::new("longshore", Level::INFO, Some("longshore"));

/// The labels that every metric of one sender or one worker has.
#[derive(Clone, Debug)]
pub(crate) struct Scope(Vec<Label>);

impl Scope {
    pub(crate) fn sender(backend: &'static str, topic: &str) -> Self {
        Self(vec![Label::new("backend", backend), Label::new("topic", topic.to_owned())])
    }

    pub(crate) fn worker(backend: &'static str, source: &Source) -> Self {
        let mut scope = Self::sender(backend, source.topic().as_str());
        scope.0.push(Label::new("group", source.group().as_str().to_owned()));
        scope
    }

    fn key(&self, name: &'static str, more: &[(&'static str, &'static str)]) -> Key {
        let more = more.iter().map(|(name, value)| Label::new(*name, *value));
        Key::from_parts(name, self.0.iter().cloned().chain(more).collect::<Vec<_>>())
    }

    fn counter(&self, name: &'static str, more: &[(&'static str, &'static str)]) -> Counter {
        let key = self.key(name, more);
        metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
    }

    fn gauge(&self, name: &'static str, more: &[(&'static str, &'static str)]) -> Gauge {
        let key = self.key(name, more);
        metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA))
    }

    fn histogram(&self, name: &'static str) -> Histogram {
        let key = self.key(name, &[]);
        metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
    }
}

/// What a sender counts.
pub(crate) struct SenderMeters {
    confirmed: Counter,
    refused: Counter,
    unroutable: Counter,
    unknown: Counter,
    not_sent: Counter,
    seconds: Histogram,
    in_flight: Gauge,
}

impl SenderMeters {
    pub(crate) fn new(backend: &'static str, topic: &str) -> Self {
        let scope = Scope::sender(backend, topic);
        let published = |outcome| scope.counter(table::PUBLISHED, &[("outcome", outcome)]);
        Self {
            confirmed: published("confirmed"),
            refused: published("refused"),
            unroutable: published("unroutable"),
            unknown: published("unknown"),
            not_sent: published("not_sent"),
            seconds: scope.histogram(table::PUBLISH_SECONDS),
            in_flight: scope.gauge(table::PUBLISH_IN_FLIGHT, &[]),
        }
    }

    /// So many more are on their way.
    pub(crate) fn taken(&self, count: u32) {
        self.in_flight.increment(f64::from(count));
    }

    /// So many are on their way no more.
    pub(crate) fn gone(&self, count: u32) {
        self.in_flight.decrement(f64::from(count));
    }

    /// One message's outcome, as its sender hears it.
    pub(crate) fn outcome(&self, outcome: &Result<Receipt>, took: Option<Duration>) {
        let counter = match outcome {
            Ok(_) => &self.confirmed,
            Err(error) if error.kind() == ErrorKind::Unroutable => &self.unroutable,
            Err(error) => match error.outcome() {
                Some(Outcome::Refused) => &self.refused,
                Some(Outcome::Unknown) => &self.unknown,
                Some(Outcome::NotSent) | None => &self.not_sent,
            },
        };
        counter.increment(1);
        if let (Ok(_), Some(took)) = (outcome, took) {
            self.seconds.record(took);
        }
    }
}

/// What a lane of a worker counts. The lanes of one worker share their metrics.
pub(crate) struct LaneMeters {
    handled: Vec<Counter>,
    settled: Vec<[Counter; RESULTS.len()]>,
    dead_lettered: Vec<Counter>,
    fast_retries: Counter,
    redelivered: [Counter; 2],
    handler: Histogram,
    queued: Histogram,
    late: Histogram,
    reconnects: Counter,
}

impl LaneMeters {
    pub(crate) fn new(scope: &Scope) -> Self {
        let handled = |(_, outcome): &(RunEnd, &'static str)| {
            scope.counter(table::HANDLED, &[("outcome", outcome)])
        };
        let settled = |verdict: &&'static str| {
            RESULTS.map(|result| {
                scope.counter(table::SETTLED, &[("verdict", verdict), ("result", result)])
            })
        };
        let dead =
            |reason: &Reason| scope.counter(table::DEAD_LETTERED, &[("reason", reason.as_str())]);
        let redelivered =
            |explained| scope.counter(table::REDELIVERED, &[("explained", explained)]);
        Self {
            handled: RunEnd::ALL.iter().map(handled).collect(),
            settled: VERDICTS.iter().map(settled).collect(),
            dead_lettered: Reason::ALL.iter().map(dead).collect(),
            fast_retries: scope.counter(table::FAST_RETRIES, &[]),
            redelivered: ["false", "true"].map(redelivered),
            handler: scope.histogram(table::HANDLER_SECONDS),
            queued: scope.histogram(table::QUEUED_SECONDS),
            late: scope.histogram(table::RETRY_LATE_SECONDS),
            reconnects: scope.counter(table::RECONNECTS, &[]),
        }
    }

    /// Passes on what the engine counted, and empties it.
    pub(crate) fn flush(&self, meter: &mut Meter) {
        pass(&self.handled, &mut meter.handled);
        for (counters, counts) in self.settled.iter().zip(&mut meter.settled) {
            pass(counters, counts);
        }
        pass(&self.dead_lettered, &mut meter.dead_lettered);
        pass(&self.redelivered, &mut meter.redelivered);
        pass(
            std::slice::from_ref(&self.fast_retries),
            std::slice::from_mut(&mut meter.fast_retries),
        );
        let histograms = [
            (&self.handler, &mut meter.handler),
            (&self.queued, &mut meter.queued),
            (&self.late, &mut meter.late),
        ];
        for (histogram, values) in histograms {
            values.drain(..).for_each(|value| histogram.record(value));
        }
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.increment(1);
    }
}

fn pass(counters: &[Counter], counts: &mut [u64]) {
    for (counter, count) in counters.iter().zip(counts) {
        if *count > 0 {
            counter.increment(std::mem::take(count));
        }
    }
}

/// What a worker shows of its state and of its group, as it was looked at last.
pub(crate) struct GroupGauges {
    pub(crate) in_flight: Gauge,
    pub(crate) buffered: Gauge,
    pub(crate) connected: Gauge,
    pub(crate) breaker: Gauge,
    pub(crate) worker_ready: Gauge,
    ready: Gauge,
    waiting: Gauge,
    suspects: Gauge,
    dead: Gauge,
    unrouted: Gauge,
    oldest: [Gauge; 3],
}

impl GroupGauges {
    pub(crate) fn new(scope: &Scope) -> Self {
        let gauge = |name| scope.gauge(name, &[]);
        let oldest = |place| scope.gauge(table::OLDEST_SECONDS, &[("place", place)]);
        Self {
            in_flight: gauge(table::IN_FLIGHT),
            buffered: gauge(table::BUFFERED),
            connected: gauge(table::CONNECTION_STATE),
            breaker: gauge(table::BREAKER_STATE),
            worker_ready: gauge(table::WORKER_READY),
            ready: gauge(table::READY),
            waiting: gauge(table::WAITING),
            suspects: gauge(table::SUSPECTS),
            dead: gauge(table::DEAD),
            unrouted: gauge(table::UNROUTED),
            oldest: ["ready", "waiting", "dead"].map(oldest),
        }
    }

    pub(crate) fn group(&self, stats: &Stats) {
        set(&self.ready, stats.ready);
        set(&self.waiting, stats.waiting);
        set(&self.unrouted, stats.unrouted);
        age(&self.oldest[0], stats.oldest_ready);
        age(&self.oldest[1], stats.oldest_waiting);
    }

    pub(crate) fn suspects(&self, stats: &Stats) {
        set(&self.suspects, stats.ready + stats.in_flight);
    }

    pub(crate) fn dead(&self, stats: &Stats) {
        set(&self.dead, stats.ready + stats.in_flight);
        age(&self.oldest[2], stats.oldest_ready);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn set(gauge: &Gauge, count: u64) {
    gauge.set(count as f64);
}

fn age(gauge: &Gauge, age: Option<Duration>) {
    gauge.set(age.unwrap_or_default().as_secs_f64());
}

/// Counts an alarm.
pub(crate) fn alarm(backend: &'static str, kind: &'static str) {
    let scope = Scope(vec![Label::new("backend", backend)]);
    scope.counter(table::ALARMS, &[("kind", kind)]).increment(1);
}

macro_rules! opaque {
    ($($type:ident)+) => {$(
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type)).finish_non_exhaustive()
            }
        }
    )+};
}
opaque!(SenderMeters LaneMeters GroupGauges);
