use super::*;

#[test]
fn what_has_not_started_is_released_and_what_runs_ends() {
    let mut bench = Bench::new(Config { concurrency: 1, ..config() });
    let key = bench.running();
    let message = bench.message();
    bench.receive(message);
    let (_, settlement) = ordered(bench.step(Input::Drain));
    assert!(matches!(settlement, Settlement::Release { record: None, .. }));
    let actions = bench.end(key, Ended::Ok);
    assert!(!actions.iter().any(|a| matches!(a, Action::Start(_))), "nothing starts after stop");
    assert!(matches!(ordered(actions).1, Settlement::Ack(_)));
}

#[test]
fn what_still_comes_is_released() {
    let mut bench = Bench::new(config());
    bench.step(Input::Drain);
    let message = bench.message();
    assert!(matches!(ordered(bench.receive(message)).1, Settlement::Release { record: None, .. }));
}

#[test]
fn the_spent_budget_cancels_without_an_attempt() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    bench.step(Input::Drain);
    assert!(cancelled(&bench.step(Input::Abort)));
    let order = ordered(bench.end(key, Ended::Cancelled));
    assert!(matches!(order.1, Settlement::Release { record: None, .. }));
    bench.settled(order, Ok(()));
    assert_eq!((bench.engine.tally.failed, bench.engine.tally.released), (0, 1));
}

#[test]
fn fast_failures_are_kept_when_a_run_is_cancelled() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    bench.fail(key, "x".into());
    bench.pass(ms(100));
    bench.step(Input::Drain);
    bench.step(Input::Abort);
    let (_, settlement) = ordered(bench.end(key, Ended::Cancelled));
    let Settlement::Release { record: Some(record), .. } = settlement else {
        panic!("{settlement:?}")
    };
    assert_eq!((record.failures, record.explained), (1, 0));
}

#[test]
fn a_pause_goes_on_in_the_broker() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    bench.fail(key, "x".into());
    bench.pass(ms(40));
    let (_, settlement) = ordered(bench.step(Input::Drain));
    let Settlement::Retry { after, record, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!((after, record.failures, record.delayed), (ms(60), 1, 1));
}

#[test]
fn a_failure_while_draining_waits_in_the_broker() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    bench.step(Input::Drain);
    let (_, settlement) = ordered(bench.fail(key, "x".into()));
    assert!(matches!(settlement, Settlement::Retry { after, .. } if after == ms(100)));
}

#[test]
fn where_the_broker_counts_releases_a_redelivered_one_is_explained() {
    for (deliveries, wanted) in [(1, None), (2, Some(1))] {
        let mut bench = Bench::new(Config { release_counted: true, ..config() });
        bench.step(Input::Drain);
        let received = Received { deliveries, ..bench.message() };
        let (_, settlement) = ordered(bench.receive(received));
        let Settlement::Release { record, .. } = settlement else { panic!("{settlement:?}") };
        assert_eq!(record.map(|record| record.explained), wanted);
    }
}

#[test]
fn a_failed_release_is_ordered_again() {
    let mut bench = Bench::new(config());
    bench.step(Input::Drain);
    let message = bench.message();
    let order = ordered(bench.receive(message));
    bench.settled(order, Err(unavailable()));
    let order = ordered(bench.pass(ms(100)));
    bench.settled(order, Ok(()));
    assert_eq!(bench.engine.held(), 0);
}
