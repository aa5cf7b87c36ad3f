//! The breaker and the rate between deliveries and their runs.

use longshore_core::policy::{Breaker, RateLimit};

use super::*;
use crate::engine::{BreakerState, Gate};

fn with(
    change: impl FnOnce(longshore_core::policy::Builder) -> longshore_core::policy::Builder,
) -> Config {
    let base = config();
    let policy = change(base.policy.to_builder()).build().unwrap();
    Config { policy: Arc::new(policy), ..base }
}

/// Opens at the second failure; no fast retries.
fn breaks() -> Config {
    let rules = Breaker {
        window: ms(60_000),
        min: 2,
        ratio: 0.5,
        open: ms(1_000),
        max_open: ms(4_000),
        probes: 1,
    };
    with(|policy| policy.fast_delays([]).breaker(Some(rules)))
}

fn limited(count: u32) -> Config {
    with(|policy| policy.rate_limit(Some(RateLimit { count, per: ms(1_000) })))
}

fn starts(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Start(_))).count()
}

fn releases(actions: &[Action]) -> usize {
    let release = |action: &&Action| {
        matches!(action, Action::Settle { settlement: Settlement::Release { .. }, .. })
    };
    actions.iter().filter(release).count()
}

fn changes(actions: &[Action]) -> Vec<(BreakerState, Option<Duration>)> {
    let change = |action: &Action| match action {
        Action::Alarm(Alarm::Breaker { state, open_for }) => Some((*state, *open_for)),
        _ => None,
    };
    actions.iter().filter_map(change).collect()
}

/// Answers every settlement that was ordered.
fn answer(bench: &mut Bench, actions: Vec<Action>) {
    for action in actions {
        if let Action::Settle { key, settlement } = action {
            bench.settled((key, settlement), Ok(()));
        }
    }
}

/// Fails twice: open from now on, and what was buffered is released.
fn open(bench: &mut Bench) -> Vec<Action> {
    let (first, second) = (bench.running(), bench.running());
    for _ in 0..3 {
        let message = bench.message();
        bench.receive(message);
    }
    let early = bench.fail(first, "x".into());
    let third = started(&early);
    assert!(changes(&early).is_empty());
    answer(bench, early);
    let mut actions = bench.fail(second, "x".into());
    assert_eq!(changes(&actions), [(BreakerState::Open, Some(ms(1_000)))]);
    assert_eq!((starts(&actions), releases(&actions)), (0, 2), "{actions:?}");
    // What runs ends as ever, and its end changes nothing.
    let last = bench.fail(third, "x".into());
    assert!(changes(&last).is_empty());
    actions.extend(last);
    actions
}

#[test]
fn open_gives_back_what_waits_and_asks_for_nothing() {
    let mut bench = Bench::new(breaks());
    assert_eq!(bench.engine.credit(), None);
    let actions = open(&mut bench);
    assert_eq!(bench.engine.credit(), Some(0));
    for action in &actions {
        if let Action::Settle { settlement: Settlement::Release { record, .. }, .. } = action {
            assert!(record.is_none(), "no attempt, no record");
        }
    }
    answer(&mut bench, actions);
    assert_eq!((bench.engine.held(), bench.engine.tally.released), (0, 2));
    assert_eq!(bench.engine.tally.failed, 3);
}

#[test]
fn what_comes_all_the_same_is_released_with_its_return_explained() {
    let mut bench = Bench::new(Config { release_counted: true, ..breaks() });
    open(&mut bench);
    let received = Received { deliveries: 2, ..bench.message() };
    let actions = bench.receive(received);
    assert_eq!(starts(&actions), 0);
    let Settlement::Release { record: Some(record), .. } = ordered(actions).1 else { panic!() };
    assert_eq!((record.failures, record.explained), (0, 1));
}

#[test]
fn half_open_lets_one_through_and_a_success_closes_it() {
    let mut bench = Bench::new(breaks());
    let actions = open(&mut bench);
    answer(&mut bench, actions);
    assert_eq!(bench.engine.next_wake(), Some(ms(1_000)), "also with nothing held");
    assert_eq!(changes(&bench.pass(ms(1_000))), [(BreakerState::HalfOpen, None)]);
    assert_eq!(bench.engine.credit(), Some(1));
    let probe = bench.running();
    assert_eq!(bench.engine.credit(), Some(0));
    let message = bench.message();
    let actions = bench.receive(message);
    assert_eq!((starts(&actions), releases(&actions)), (0, 1), "no second one waits");
    let actions = bench.end(probe, Ended::Ok);
    assert_eq!(changes(&actions), [(BreakerState::Closed, None)]);
    assert_eq!(bench.engine.credit(), None);
    bench.running();
    bench.running();
}

#[test]
fn a_probe_that_fails_opens_for_twice_as_long() {
    let mut bench = Bench::new(breaks());
    open(&mut bench);
    bench.pass(ms(1_000));
    let probe = bench.running();
    let actions = bench.fail(probe, "x".into());
    assert_eq!(changes(&actions), [(BreakerState::Open, Some(ms(2_000)))]);
    assert!(changes(&bench.pass(ms(1_999))).is_empty());
    assert_eq!(changes(&bench.pass(ms(1))), [(BreakerState::HalfOpen, None)]);
}

#[test]
fn a_probe_that_says_nothing_makes_room_for_another() {
    for ended in [Ended::Failed(Failure::permanent("x")), Ended::Failed(Failure::discard("x"))] {
        let mut bench = Bench::new(breaks());
        let actions = open(&mut bench);
        answer(&mut bench, actions);
        bench.pass(ms(1_000));
        let probe = bench.running();
        let actions = bench.end(probe, ended);
        assert!(changes(&actions).is_empty());
        answer(&mut bench, actions);
        assert_eq!(bench.engine.credit(), Some(1));
        bench.running();
    }
    // Nor does one whose lease was lost.
    let mut bench = Bench::new(breaks());
    let actions = open(&mut bench);
    answer(&mut bench, actions);
    bench.pass(ms(1_000));
    let probe = bench.running();
    bench.step(Input::Lost { epoch: 1 });
    bench.end(probe, Ended::Failed("x".into()));
    assert_eq!(bench.engine.credit(), Some(1));
}

#[test]
fn only_transient_failures_trip_it() {
    let rows: Vec<(fn() -> Ended, bool)> = vec![
        (|| Ended::Failed("unclassified".into()), true),
        (|| Ended::Failed(Failure::transient("x")), true),
        (|| Ended::Failed(Failure::panicked("x".into())), true),
        (|| Ended::Failed(Failure::retry_after(ms(5), "x")), true),
        (|| Ended::Failed(Failure::permanent("x")), false),
        (|| Ended::Failed(Failure::undecodable("x")), false),
        (|| Ended::Failed(Failure::reject("c", "x")), false),
        (|| Ended::Failed(Failure::discard("x")), false),
        (|| Ended::Cancelled, false),
        (|| Ended::Ok, false),
    ];
    for (end, trips) in rows {
        let mut bench = Bench::new(breaks());
        for _ in 0..20 {
            if bench.engine.credit().is_some() {
                break;
            }
            let key = bench.running();
            let actions = bench.end(key, end());
            answer(&mut bench, actions);
        }
        assert_eq!(bench.engine.credit(), trips.then_some(0), "{:?}", end());
    }
    // Time-outs do.
    let mut bench = Bench::new(breaks());
    for _ in 0..2 {
        let key = bench.running();
        bench.pass(ms(11_000));
        bench.end(key, Ended::Cancelled);
    }
    assert_eq!(bench.engine.credit(), Some(0));
}

#[test]
fn fast_retries_end_as_ever_and_have_no_say_while_it_is_open() {
    let config = breaks();
    let policy = config.policy.to_builder().fast_delays([ms(100)]).build().unwrap();
    let mut bench = Bench::new(Config { policy: Arc::new(policy), ..config });
    let (first, second) = (bench.running(), bench.running());
    bench.fail(first, "x".into());
    let actions = bench.fail(second, "x".into());
    assert_eq!(changes(&actions), [(BreakerState::Open, Some(ms(1_000)))]);
    assert_eq!(starts(&bench.pass(ms(100))), 2);
    assert!(changes(&bench.end(first, Ended::Ok)).is_empty());
    let order = ordered(bench.fail(second, "x".into()));
    assert!(matches!(order.1, Settlement::Retry { .. }));
    assert_eq!(bench.engine.credit(), Some(0));
}

#[test]
fn the_suspect_lane_shares_the_breaker_and_one_probe_is_one_in_both() {
    let gate = Gate::new(&breaks().policy);
    let lane = |config| {
        let mut bench = Bench::new(config);
        bench.engine = Engine::new(Config { ..breaks() }, 7).sharing(gate.clone());
        bench
    };
    let mut main = lane(breaks());
    let mut suspects = lane(Config { suspects: true, concurrency: 1, ..breaks() });
    let record = Record { deliveries: 3, explained: 3, suspect: true, ..Record::default() };
    open(&mut main);
    suspects.step(Input::Tick);
    assert_eq!(suspects.engine.credit(), Some(0));
    let received = suspects.redelivered(4, record.clone());
    let (_, settlement) = ordered(suspects.receive(received));
    assert!(matches!(settlement, Settlement::Release { .. }), "no count is burnt there");

    for bench in [&mut main, &mut suspects] {
        bench.pass(ms(1_000));
        assert_eq!(gate.state(), BreakerState::HalfOpen);
    }
    let received = suspects.redelivered(5, Record { explained: 4, ..record });
    let probe = started(&suspects.receive(received));
    main.step(Input::Tick);
    assert_eq!((main.engine.credit(), suspects.engine.credit()), (Some(0), Some(0)));
    suspects.end(probe, Ended::Ok);
    main.step(Input::Tick);
    assert_eq!((main.engine.credit(), suspects.engine.credit()), (None, None));
}

#[test]
fn the_rate_holds_starts_back_and_leases_are_extended() {
    let mut bench = Bench::new(Config { concurrency: 10, ..limited(2) });
    bench.running();
    for _ in 0..3 {
        let message = bench.message();
        assert_eq!(starts(&bench.receive(message)), 0);
    }
    assert_eq!(bench.engine.next_wake(), Some(ms(500)));
    assert_eq!(starts(&bench.pass(ms(499))), 0);
    assert_eq!(starts(&bench.pass(ms(1))), 1);
    assert_eq!(starts(&bench.pass(ms(1_000))), 2);
    assert_eq!(bench.engine.next_wake().map(|at| at > ms(1_500)), Some(true), "nobody waits");

    let mut bench = Bench::new(limited(1));
    bench.running();
    for _ in 0..40 {
        let message = bench.message();
        bench.receive(message);
    }
    let extended = bench.pass(LEASE);
    assert!(extended.iter().any(|action| matches!(action, Action::Extend { .. })));
    assert_eq!(bench.engine.tally.lease_lost, 0);
}

#[test]
fn a_fast_retry_waits_for_the_rate_before_anything_new_does() {
    let mut bench = Bench::new(Config { concurrency: 2, ..limited(1) });
    let first = bench.running();
    let message = bench.message();
    bench.receive(message);
    bench.fail(first, "x".into());
    assert_eq!(starts(&bench.pass(ms(999))), 0);
    let retried = started(&bench.pass(ms(1)));
    assert_eq!(retried, first);
    assert_ne!(started(&bench.pass(ms(1_000))), first);
}

#[test]
fn a_fast_retry_that_waits_for_the_rate_goes_into_the_broker_at_a_drain() {
    let mut bench = Bench::new(limited(1));
    let first = bench.running();
    bench.fail(first, "x".into());
    bench.pass(ms(300));
    let (_, settlement) = ordered(bench.step(Input::Drain));
    let Settlement::Retry { record, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!(record.failures, 1);
    assert!(starts(&bench.pass(ms(5_000))) == 0);
}
