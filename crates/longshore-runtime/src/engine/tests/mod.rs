//! Every transition of the engine, as tables of inputs and what must come out.

mod breaker;
mod drain;
mod failures;
mod flow;
mod isolation;
mod leases;
mod properties;
mod rate;
mod tally;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use longshore_core::{
    AckToken, Error, ErrorKind, Failure, GroupName, Headers, InstanceId, MessageId, Policy,
    Position, Received, Record, Result, Settlement, TopicName,
};

use super::types::{Alarm, Config};
use super::*;

const LEASE: Duration = Duration::from_secs(30);

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An engine, its clock, and what it ordered last.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) at: Duration,
    next: u64,
}

pub(super) fn config() -> Config {
    let policy = Policy::builder()
        .max_attempts(4)
        .fast_delays([ms(100)])
        .delayed([ms(1_000), ms(2_000)])
        .jitter(0.0)
        .handler_timeout(ms(10_000))
        .breaker(None)
        .build()
        .unwrap();
    let facts = Facts {
        topic: TopicName::new("orders").unwrap(),
        group: GroupName::new("billing").unwrap(),
        backend: "model",
        handler: "bill".into(),
        instance: InstanceId::generate(),
        policy: policy.fingerprint(),
    };
    Config {
        policy: Arc::new(policy),
        book: Book(Arc::new(facts)),
        concurrency: 2,
        max_body: 1_000,
        suspects: false,
        isolation: true,
        release_counted: false,
    }
}

pub(super) fn wall(at: Duration) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000) + at
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        Self { engine: Engine::new(config, 7), at: Duration::ZERO, next: 0 }
    }

    /// A first delivery of a new message.
    pub(super) fn message(&mut self) -> Received {
        self.next += 1;
        Received {
            token: AckToken { epoch: 1, slot: 0, seq: self.next },
            topic: TopicName::new("orders").unwrap(),
            body: Bytes::from_static(b"{}"),
            key: None,
            id: Some(MessageId::new(format!("m{}", self.next)).unwrap()),
            message_type: None,
            content_type: None,
            headers: Headers::new(),
            published_at: Some(wall(Duration::ZERO)),
            position: Position::Sequence(self.next),
            deliveries: 1,
            lease: Some(LEASE),
            record: None,
            letter: None,
        }
    }

    /// A delivery that comes with a record.
    pub(super) fn redelivered(&mut self, deliveries: u32, record: Record) -> Received {
        Received { deliveries, record: Some(Arc::new(record)), ..self.message() }
    }

    pub(super) fn step(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        self.engine.step(Now { mono: self.at, wall: wall(self.at) }, input, &mut out);
        out
    }

    pub(super) fn receive(&mut self, received: Received) -> Vec<Action> {
        let actions = self.step(Input::Received(received));
        self.begin(&actions);
        actions
    }

    /// Shards take what is started at once.
    fn begin(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Start(start) = action {
                self.step(Input::Begun { key: start.key });
            }
        }
    }

    /// Receives one and expects it to start at once.
    pub(super) fn running(&mut self) -> Key {
        let message = self.message();
        started(&self.receive(message))
    }

    pub(super) fn end(&mut self, key: Key, ended: Ended) -> Vec<Action> {
        let actions = self.step(Input::Ended { key, ended });
        self.begin(&actions);
        actions
    }

    pub(super) fn fail(&mut self, key: Key, failure: Failure) -> Vec<Action> {
        self.end(key, Ended::Failed(failure))
    }

    /// Lets time pass to each wake-up in turn, as the worker does.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Action> {
        let until = self.at + time;
        let mut out = Vec::new();
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake <= until) {
            assert!(wake >= self.at || out.is_empty(), "a wake-up in the past");
            self.at = self.at.max(wake);
            let actions = self.step(Input::Tick);
            self.begin(&actions);
            // The model broker extends every lease.
            for action in &actions {
                if let Action::Extend { key, .. } = action {
                    self.step(Input::Extended { key: *key, result: Ok(()) });
                }
            }
            out.extend(actions);
        }
        self.at = until;
        out
    }

    pub(super) fn settled(&mut self, order: (Key, Settlement), result: Result<()>) -> Vec<Action> {
        let (key, settlement) = order;
        self.step(Input::Settled { key, settlement, result })
    }
}

/// The only start among the actions.
pub(super) fn started(actions: &[Action]) -> Key {
    let starts: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Start(start) => Some(start.key),
            _ => None,
        })
        .collect();
    assert_eq!(starts.len(), 1, "{actions:?}");
    starts[0]
}

/// The only settlement among the actions.
pub(super) fn ordered(actions: Vec<Action>) -> (Key, Settlement) {
    let mut orders: Vec<_> = actions
        .into_iter()
        .filter_map(|action| match action {
            Action::Settle { key, settlement } => Some((key, settlement)),
            _ => None,
        })
        .collect();
    assert_eq!(orders.len(), 1, "{orders:?}");
    orders.remove(0)
}

pub(super) fn orders_nothing(actions: &[Action]) -> bool {
    !actions.iter().any(|action| matches!(action, Action::Settle { .. }))
}

pub(super) fn cancelled(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Cancel { .. }))
}

pub(super) fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "no broker")
}

#[test]
fn success_is_acked_and_frees_its_slot() {
    let mut bench = Bench::new(config());
    let first = bench.running();
    bench.running();
    let message = bench.message();
    assert!(bench.receive(message).is_empty(), "two slots are taken");
    let actions = bench.end(first, Ended::Ok);
    started(&actions);
    let order = ordered(actions);
    assert!(matches!(order.1, Settlement::Ack(_)));
    assert_eq!(bench.engine.held(), 3, "held until the broker has answered");
    bench.settled(order, Ok(()));
    assert_eq!(bench.engine.held(), 2);
    assert_eq!(bench.engine.tally.succeeded, 1);
}

#[test]
fn first_deliveries_start_in_order() {
    let mut bench = Bench::new(Config { concurrency: 1, ..config() });
    let mut key = bench.running();
    for _ in 0..5 {
        let message = bench.message();
        bench.receive(message);
    }
    for place in 1..=5 {
        let actions = bench.end(key, Ended::Ok);
        key = started(&actions);
        assert_eq!(key.place, place);
    }
}

#[test]
fn a_failed_settlement_keeps_the_message_and_is_ordered_again_with_backoff() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    let mut order = ordered(bench.end(key, Ended::Ok));
    for wait in [100, 200, 400] {
        let actions = bench.settled(order, Err(unavailable()));
        assert!(matches!(actions[..], [Action::Alarm(Alarm::SettleFailed { .. })]), "{actions:?}");
        assert!(orders_nothing(&bench.pass(ms(wait - 1))));
        order = ordered(bench.pass(ms(1)));
        assert!(matches!(order.1, Settlement::Ack(_)));
    }
    bench.settled(order, Ok(()));
    assert_eq!((bench.engine.held(), bench.engine.tally.settle_failures), (0, 3));
}

#[test]
fn an_answer_to_what_is_over_changes_nothing() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    let order = ordered(bench.end(key, Ended::Ok));
    let again = (order.0, order.1.clone());
    bench.settled(order, Ok(()));
    assert!(bench.settled(again, Ok(())).is_empty());
    assert!(bench.end(key, Ended::Ok).is_empty());
    // The place is used again; the old key means nobody.
    bench.running();
    assert!(bench.end(key, Ended::Ok).is_empty());
    assert_eq!(bench.engine.held(), 1);
}
