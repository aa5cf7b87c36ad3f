//! Metrics, health, alarms: what an operator sees of a story whose end is known.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use longshore_core::{
    AckToken, Broker, BrokerInfo, Consumer, ConsumerSpec, Event, Failure, Finding, Message, Page,
    Publisher, Result, Settlement, Source, Stats,
};
use longshore_runtime::observe::{AlarmKind, METRICS, MetricKind, NotReady};
use longshore_runtime::{Handled, Running};
use metrics::{Key, Label, set_default_local_recorder};
use metrics_util::MetricKind as Seen;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use super::*;

/// Everything that was counted, by name and labels.
fn counters(snapshotter: &Snapshotter) -> BTreeMap<String, u64> {
    let seen = snapshotter.snapshot().into_vec().into_iter();
    seen.filter_map(|(key, _, _, value)| match value {
        DebugValue::Counter(count) => Some((text(key.key()), count)),
        _ => None,
    })
    .filter(|(_, count)| *count > 0)
    .collect()
}

fn text(key: &Key) -> String {
    let shown = |label: &Label| match label.key() {
        "backend" | "topic" | "group" => None,
        _ => Some(label.value().to_owned()),
    };
    let labels: Vec<_> = key.labels().filter_map(shown).collect();
    format!("{} {}", key.name(), labels.join(" ")).trim().to_owned()
}

async fn bill(order: u64) -> Handled {
    match order {
        7 => Ok(()),
        8 => Err(Failure::discard("nobody wants it")),
        9 => panic!("a bug"),
        13 => Err(Failure::permanent("stolen")),
        _ => Err(Failure::transient("closed")),
    }
}

async fn play(client: &Client) -> Running {
    let policy = Policy::builder().max_attempts(3).fast_delays([ms(1)]).delayed([ms(50)]);
    let policy = policy.jitter(0.0).build().unwrap();
    let worker =
        client.worker("orders", "billing").policy(policy).json(bill).start().await.unwrap();
    let sender = client.sender("orders").await.unwrap();
    for order in [7_u64, 8, 9, 13, 99] {
        sender.send(Message::json(&order).unwrap()).await.unwrap();
    }
    worker.idle().await;
    worker
}

#[tokio::test(start_paused = true)]
async fn each_transition_is_counted_under_its_name() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = set_default_local_recorder(&recorder);
    let client = client().await;
    let worker = play(&client).await;
    worker.stop().await.unwrap();
    let counted = counters(&snapshotter);
    let due = [
        ("longshore_alarms_total dead_lettered", 3),
        ("longshore_dead_lettered_total attempts-exhausted", 1),
        ("longshore_dead_lettered_total panicked", 1),
        ("longshore_dead_lettered_total permanent", 1),
        ("longshore_fast_retries_total", 2),
        ("longshore_handled_total discarded", 1),
        ("longshore_handled_total ok", 1),
        ("longshore_handled_total panicked", 3),
        ("longshore_handled_total permanent", 1),
        ("longshore_handled_total transient", 3),
        ("longshore_published_total confirmed", 5),
        ("longshore_redelivered_total true", 2),
        ("longshore_settled_total ack ok", 1),
        ("longshore_settled_total dead_letter ok", 3),
        ("longshore_settled_total discard ok", 1),
        ("longshore_settled_total retry ok", 2),
    ];
    let due: BTreeMap<_, _> = due.map(|(name, count)| (name.to_owned(), count)).into();
    assert_eq!(counted, due);
}

#[tokio::test(start_paused = true)]
async fn every_metric_has_the_labels_of_the_table_and_every_one_is_there() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = set_default_local_recorder(&recorder);
    let client = client().await;
    let worker = play(&client).await;
    // Long enough for the worker to look at its group.
    tokio::time::sleep(Duration::from_secs(11)).await;
    worker.stop().await.unwrap();
    let mut missing: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
    for (key, _, help, _) in snapshotter.snapshot().into_vec() {
        let (kind, key) = key.into_parts();
        let metric = METRICS.iter().find(|metric| metric.name == key.name()).unwrap();
        let labels: Vec<_> = key.labels().map(Label::key).collect();
        assert_eq!(labels, metric.labels, "{}", metric.name);
        let kinds = [
            (MetricKind::Counter, Seen::Counter),
            (MetricKind::Gauge, Seen::Gauge),
            (MetricKind::Histogram, Seen::Histogram),
        ];
        assert!(kinds.contains(&(metric.kind, kind)), "{}", metric.name);
        assert_eq!(&*help.unwrap(), metric.help);
        missing.retain(|name| *name != metric.name);
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(start_paused = true)]
async fn gauges_show_what_the_group_has_in_the_broker() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = set_default_local_recorder(&recorder);
    let client = client().await;
    let worker = play(&client).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let gauges: BTreeMap<_, _> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(key, _, _, value)| match value {
            DebugValue::Gauge(value) => Some((text(key.key()), value.into_inner())),
            _ => None,
        })
        .collect();
    let shown = |name: &str| gauges[name];
    assert!((shown("longshore_dead") - 3.0).abs() < 1e-9);
    assert!(shown("longshore_ready").abs() < 1e-9);
    assert!((shown("longshore_connection_state") - 1.0).abs() < 1e-9);
    assert!((shown("longshore_worker_ready") - 1.0).abs() < 1e-9);
    assert!(shown("longshore_oldest_seconds dead") > 0.0);
    assert!(shown("longshore_publish_in_flight").abs() < 1e-9);
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_program_hears_each_alarm() {
    let client = client().await;
    let mut alarms = client.alarms();
    let worker = play(&client).await;
    worker.stop().await.unwrap();
    let mut reasons = Vec::new();
    for _ in 0..3 {
        let alarm = alarms.next().await.unwrap();
        assert_eq!(alarm.kind, AlarmKind::DeadLettered);
        assert_eq!(alarm.group.as_ref().unwrap().as_str(), "billing");
        reasons.push(alarm.message);
    }
    reasons.sort();
    let due = ["attempts-exhausted", "panicked", "permanent"];
    let due = due.map(|reason| format!("a message was dead-lettered: {reason}"));
    assert_eq!(reasons, due);
    drop((worker, client));
    assert!(alarms.next().await.is_none());
}

/// A broker whose first consumer of the group is a phantom (attached, and deaf), and which parks
/// messages while it is told to.
#[derive(Debug)]
struct Haunted {
    inner: Memory,
    deaf: AtomicBool,
    parked: Arc<AtomicU64>,
}

#[async_trait]
impl Broker for Haunted {
    fn info(&self) -> &BrokerInfo {
        self.inner.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.inner.declare(topology).await
    }

    async fn publisher(&self, topic: &TopicName) -> Result<Box<dyn Publisher>> {
        self.inner.publisher(topic).await
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        let main = matches!(spec.source, Source::Group { .. });
        if main && self.deaf.swap(false, Ordering::AcqRel) {
            return Ok(Box::new(Phantom));
        }
        self.inner.consumer(spec).await
    }

    async fn browse(&self, source: &Source, page: &Page) -> Result<Vec<Received>> {
        self.inner.browse(source, page).await
    }

    async fn stats(&self, source: &Source) -> Result<Stats> {
        let unrouted = self.parked.load(Ordering::Acquire);
        Ok(Stats { unrouted, ..self.inner.stats(source).await? })
    }

    async fn audit(&self) -> Result<Vec<Finding>> {
        self.inner.audit().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn native(&self) -> &(dyn std::any::Any + Send + Sync) {
        self.inner.native()
    }
}

#[derive(Debug)]
struct Phantom;

#[async_trait]
impl Consumer for Phantom {
    async fn receive(&self, _: &mut Vec<Event>, _: usize) -> Result<()> {
        std::future::pending().await
    }

    async fn settle(&self, batch: &[Settlement], out: &mut Vec<Result<()>>) {
        out.extend(batch.iter().map(|_| Ok(())));
    }

    async fn extend(&self, tokens: &[AckToken], _: Duration, out: &mut Vec<Result<()>>) {
        out.extend(tokens.iter().map(|_| Ok(())));
    }

    async fn set_prefetch(&self, _: u16) {}

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_phantom_is_not_ready_is_told_and_is_made_again() {
    let setup = Setup { clock: Arc::new(TokioClock::new()), ..Setup::default() };
    let inner = longshore_memory::connect("memory://", setup.clone()).await.unwrap();
    let broker = Haunted { inner, deaf: AtomicBool::new(true), parked: Arc::default() };
    let client = Client::new(Arc::new(broker), setup);
    let mut alarms = client.alarms();
    let worker =
        client.worker("orders", "billing").watch(ms(500)).json(bill).start().await.unwrap();
    assert!(worker.health().ready());
    let sender = client.sender("orders").await.unwrap();
    sender.send(Message::json(&7_u64).unwrap()).await.unwrap();

    let alarm = alarms.next().await.unwrap();
    assert_eq!(alarm.kind, AlarmKind::PhantomConsumer);
    let health = client.health();
    assert!(health.live() && !health.ready(), "{health}");
    assert!(matches!(health.reasons[..], [NotReady::Phantom { .. }]), "{health:?}");

    worker.idle().await;
    assert_eq!(worker.tally().succeeded, 1);
    // The next look finds that it gets its messages.
    tokio::time::sleep(ms(1100)).await;
    assert!(client.health().ready(), "{}", client.health());
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_is_told_each_time_that_it_begins() {
    let setup = Setup { clock: Arc::new(TokioClock::new()), ..Setup::default() };
    let inner = longshore_memory::connect("memory://", setup.clone()).await.unwrap();
    let parked = Arc::new(AtomicU64::new(2));
    let broker = Haunted { inner, deaf: AtomicBool::new(false), parked: parked.clone() };
    let client = Client::new(Arc::new(broker), setup);
    let mut alarms = client.alarms();
    let worker =
        client.worker("orders", "billing").watch(ms(500)).json(bill).start().await.unwrap();
    assert_eq!(alarms.next().await.unwrap().kind, AlarmKind::Unrouted);
    for _ in 0..2 {
        let again = tokio::time::timeout(ms(5_000), alarms.next()).await;
        assert!(again.is_err(), "told again while nothing changed: {again:?}");
        parked.store(0, Ordering::Release);
        tokio::time::sleep(ms(1100)).await;
        parked.store(1, Ordering::Release);
        assert_eq!(alarms.next().await.unwrap().kind, AlarmKind::Unrouted);
    }
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_not_ready_and_a_closed_one_is() {
    let client = client().await;
    let broken = Arc::new(AtomicBool::new(true));
    let state = broken.clone();
    let handler = move |_: u64| {
        let broken = state.load(Ordering::Acquire);
        async move { if broken { Err(Failure::transient("down")) } else { Ok(()) } }
    };
    let policy = Policy::from_toml(
        r#"
        fast_delays = []
        delayed = ["1s"]
        max_attempts = 100
        breaker = { window = "60s", min = 2, ratio = 0.5, open = "30s", max_open = "5m", probes = 1 }
        "#,
    )
    .unwrap();
    let mut alarms = client.alarms();
    let worker = client.worker("orders", "billing").policy(policy).json(handler);
    let worker = worker.start().await.unwrap();
    let sender = client.sender("orders").await.unwrap();
    for order in 0..4_u64 {
        sender.send(Message::json(&order).unwrap()).await.unwrap();
    }
    assert_eq!(alarms.next().await.unwrap().kind, AlarmKind::BreakerOpened);
    let health = worker.health();
    assert!(health.live(), "{health}");
    assert!(matches!(health.reasons[..], [NotReady::BreakerOpen { .. }]), "{health:?}");
    broken.store(false, Ordering::Release);
    worker.idle().await;
    assert!(worker.health().ready(), "{}", worker.health());
    assert_eq!(worker.tally().succeeded, 4);
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_died_is_not_live() {
    let client = client().await;
    let worker = client.worker("orders", "billing").json(bill).start().await.unwrap();
    client.broker().close().await.unwrap();
    worker.ended().await;
    let health = client.health();
    assert!(!health.live() && !health.ready(), "{health}");
    assert!(matches!(health.reasons[..], [NotReady::Ended { .. }]), "{health:?}");
    drop(worker);
    // Nobody holds it any more: it is no part of the service.
    assert!(client.health().ready());
}
