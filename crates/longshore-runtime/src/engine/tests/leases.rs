use super::*;

fn lost(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Alarm(Alarm::LeaseLost)))
}

#[test]
fn leases_of_all_that_is_held_are_extended_in_time() {
    let mut bench = Bench::new(Config { concurrency: 1, ..config() });
    let message = bench.message();
    bench.receive(message);
    let message = bench.message();
    bench.receive(message);
    let mut extended = [0; 2];
    for _ in 0..60 {
        for action in bench.pass(ms(1_000)) {
            if let Action::Extend { key, .. } = action {
                extended[key.place as usize] += 1;
            }
        }
    }
    assert!(extended.iter().all(|n| (5..=6).contains(n)), "every third of 30 s: {extended:?}");
}

#[test]
fn a_lost_lease_cancels_the_run_and_nothing_is_settled() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    let result = Err(Error::lease_lost());
    assert!(cancelled(&bench.step(Input::Extended { key, result })));
    for ended in [Ended::Ok, Ended::Cancelled] {
        let mut bench = Bench::new(config());
        let key = bench.running();
        bench.step(Input::Lost { epoch: 1 });
        let actions = bench.end(key, ended);
        assert!(orders_nothing(&actions) && lost(&actions), "{actions:?}");
        assert_eq!(bench.engine.held(), 0);
    }
}

#[test]
fn it_ends_fast_retries_and_forgets_their_failures() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    bench.fail(key, "x".into());
    assert!(lost(&bench.step(Input::Lost { epoch: 1 })));
    assert!(bench.pass(ms(1_000)).is_empty(), "its timer means nothing any more");
    let key = bench.running();
    assert!(matches!(ordered(bench.end(key, Ended::Ok)).1, Settlement::Ack(_)));
}

#[test]
fn what_is_buffered_is_dropped_and_does_not_start() {
    let mut bench = Bench::new(Config { concurrency: 1, ..config() });
    let key = bench.running();
    let message = bench.message();
    bench.receive(message);
    bench.step(Input::Lost { epoch: 1 });
    assert!(bench.end(key, Ended::Cancelled).iter().all(|a| !matches!(a, Action::Start(_))));
    assert_eq!(bench.engine.held(), 0);
}

#[test]
fn another_epoch_is_left_alone() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    bench.step(Input::Lost { epoch: 2 });
    assert!(matches!(ordered(bench.end(key, Ended::Ok)).1, Settlement::Ack(_)));
}

#[test]
fn our_own_clock_ends_a_lease_that_cannot_be_extended() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    let mut lost_in_time = false;
    while bench.at <= LEASE + LEASE / 3 {
        bench.at += ms(1_000);
        for action in bench.step(Input::Tick) {
            match action {
                Action::Extend { key, .. } => {
                    assert!(bench.at < LEASE, "an extension of what is over");
                    bench.step(Input::Extended { key, result: Err(unavailable()) });
                }
                // At the handler's time-out; the lease then outranks it.
                Action::Cancel { .. } => lost_in_time = true,
                _ => {}
            }
        }
    }
    assert!(lost_in_time);
    let actions = bench.end(key, Ended::Ok);
    assert!(orders_nothing(&actions) && lost(&actions), "{actions:?}");
}

#[test]
fn a_settlement_under_way_is_judged_by_its_answer() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    let order = ordered(bench.end(key, Ended::Ok));
    assert!(bench.step(Input::Lost { epoch: 1 }).is_empty());
    assert!(lost(&bench.settled(order, Err(Error::lease_lost()))));
    assert_eq!(bench.engine.held(), 0);
}

#[test]
fn a_settlement_that_failed_is_not_ordered_again_for_a_lost_lease() {
    let extended = |key| Input::Extended { key, result: Err(Error::lease_lost()) };
    for told in [|_| Input::Lost { epoch: 1 }, extended as fn(Key) -> Input] {
        let mut bench = Bench::new(config());
        let key = bench.running();
        let order = ordered(bench.end(key, Ended::Ok));
        assert!(bench.step(told(key)).is_empty(), "its answer is waited for");
        let extends = |action: &Action| matches!(action, Action::Extend { .. });
        assert!(!bench.pass(LEASE / 2).iter().any(extends), "nobody's lease is extended");
        assert!(lost(&bench.settled(order, Err(unavailable()))));
        assert_eq!(bench.engine.held(), 0);
        assert!(orders_nothing(&bench.pass(ms(1_000))));
    }
}

#[test]
fn a_revocation_gives_back_what_has_not_started() {
    let mut bench = Bench::new(Config { concurrency: 1, ..config() });
    let key = bench.running();
    let message = bench.message();
    bench.receive(message);
    let (_, settlement) = ordered(bench.step(Input::Revoking { epoch: 1 }));
    assert!(matches!(settlement, Settlement::Release { record: None, .. }));
    assert!(matches!(ordered(bench.end(key, Ended::Ok)).1, Settlement::Ack(_)));
}

#[test]
fn where_the_connection_is_the_lease_nothing_is_extended() {
    let mut bench = Bench::new(config());
    let received = Received { lease: None, ..bench.message() };
    bench.receive(received);
    let actions = bench.pass(Duration::from_secs(3600));
    assert!(!actions.iter().any(|a| matches!(a, Action::Extend { .. })));
}

#[test]
fn the_broker_says_how_long_a_lease_is() {
    let mut bench = Bench::new(config());
    bench.running();
    // The group was declared anew, with a shorter one: this delivery has it already.
    let received = Received { lease: Some(ms(3_000)), ..bench.message() };
    bench.receive(received);
    let extended = |actions: Vec<Action>| {
        let by = |action| match action {
            Action::Extend { key, by, .. } => Some((key.place, by)),
            _ => None,
        };
        actions.into_iter().filter_map(by).collect::<Vec<_>>()
    };
    assert_eq!(extended(bench.pass(ms(1_500))), [(1, ms(3_000))], "in time for the shorter");
    assert!(extended(bench.pass(ms(10_000))).contains(&(0, LEASE)), "and for the longer");
}
