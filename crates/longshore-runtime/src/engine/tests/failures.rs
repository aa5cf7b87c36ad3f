use longshore_core::HeaderName;
use longshore_core::policy::Reason;

use super::*;

#[test]
fn a_failure_is_tried_again_here_first_and_holds_its_slot() {
    let mut bench = Bench::new(Config { concurrency: 1, ..config() });
    let key = bench.running();
    let message = bench.message();
    bench.receive(message);
    let actions = bench.fail(key, "disk".into());
    assert!(actions.is_empty(), "nothing is durable yet, and the slot stays taken: {actions:?}");
    assert!(bench.pass(ms(99)).is_empty(), "never early");
    let actions = bench.pass(ms(1));
    assert_eq!(started(&actions), key);
    let Action::Start(start) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((start.attempt, bench.engine.tally.fast_retries), (2, 1));
}

#[test]
fn then_in_the_retry_lane_with_all_failures_in_the_record() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    bench.fail(key, "disk".into());
    bench.pass(ms(100));
    let (_, settlement) = ordered(bench.fail(key, "disk".into()));
    let Settlement::Retry { after, record, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!(after, ms(1_000));
    assert_eq!((record.failures, record.delayed, record.deliveries), (2, 1, 1));
    assert_eq!(record.origin.as_deref(), Some("1"));
    assert_eq!(record.first_failed_at, Some(wall(Duration::ZERO)));
    let history: Vec<_> = record.history.iter().map(|entry| (entry.n, entry.delay_ms)).collect();
    assert_eq!(history, [(1, Some(100)), (2, Some(1_000))]);
}

#[test]
fn attempts_go_on_from_the_record_and_run_out() {
    let mut bench = Bench::new(config());
    let record = Record {
        failures: 3,
        deliveries: 0,
        delayed: 2,
        first_failed_at: Some(wall(Duration::ZERO)),
        ..Record::default()
    };
    let received = bench.redelivered(3, record);
    let actions = bench.receive(received);
    let Action::Start(start) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(start.attempt, 4);
    let key = start.key;
    let (_, settlement) = ordered(bench.fail(key, Failure::transient("disk")));
    let Settlement::DeadLetter { letter, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!(letter.reason, Reason::AttemptsExhausted);
    assert_eq!((letter.attempts, letter.deliveries, letter.delayed_retries), (4, 3, 2));
    let cause = letter.cause.unwrap();
    assert_eq!((&*cause.message, cause.transient), ("disk", true));
}

#[test]
fn what_cannot_help_ends_at_once() {
    let rows: Vec<(Failure, Option<Reason>)> = vec![
        (Failure::permanent("x"), Some(Reason::Permanent)),
        (Failure::undecodable("x"), Some(Reason::Undecodable)),
        (Failure::reject("code", "x"), Some(Reason::Rejected)),
        (Failure::discard("x"), None),
    ];
    for (failure, wanted) in rows {
        let mut bench = Bench::new(config());
        let key = bench.running();
        let name = format!("{failure:?}");
        let order = ordered(bench.fail(key, failure));
        match (&order.1, wanted) {
            (Settlement::DeadLetter { letter, .. }, Some(reason)) => {
                assert_eq!((letter.reason, letter.attempts), (reason, 1), "{name}");
            }
            (Settlement::Ack(_), None) => {}
            (other, _) => panic!("{name}: {other:?}"),
        }
        bench.settled(order, Ok(()));
        let discarded = u64::from(wanted.is_none());
        assert_eq!(bench.engine.tally.discarded, discarded, "{name}");
    }
}

#[test]
fn a_handler_that_exceeds_its_time_is_cancelled_and_counted() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    assert!(!cancelled(&bench.pass(ms(9_999))));
    assert!(cancelled(&bench.pass(ms(500))), "resolution: a twentieth");
    assert!(bench.end(key, Ended::Cancelled).is_empty(), "a fast retry");
    assert_eq!((bench.engine.tally.failed, bench.engine.tally.fast_retries), (1, 1));
    assert_eq!(started(&bench.pass(ms(100))), key);
}

#[test]
fn a_handler_that_ends_well_while_it_is_cancelled_has_ended_well() {
    let mut bench = Bench::new(config());
    let key = bench.running();
    assert!(cancelled(&bench.pass(ms(11_000))));
    assert!(matches!(ordered(bench.end(key, Ended::Ok)).1, Settlement::Ack(_)));
}

#[test]
fn a_forged_record_is_clamped() {
    let mut bench = Bench::new(config());
    let record = Record { failures: u32::MAX, redrives: u32::MAX, ..Record::default() };
    let received = bench.redelivered(1, record);
    let actions = bench.receive(received);
    let Action::Start(start) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(start.attempt, 5, "one more than the maximum");
    let key = start.key;
    let (_, settlement) = ordered(bench.fail(key, "x".into()));
    let Settlement::DeadLetter { letter, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!((letter.reason, letter.redrive_count), (Reason::RedriveExhausted, u32::MAX));
}

#[test]
fn an_old_message_is_not_tried_again() {
    let mut bench = Bench::new(config());
    bench.at = Duration::from_secs(25 * 3600);
    let record =
        Record { failures: 1, first_failed_at: Some(wall(Duration::ZERO)), ..Record::default() };
    let received = bench.redelivered(2, record);
    let key = started(&bench.receive(received));
    let (_, settlement) = ordered(bench.fail(key, "x".into()));
    let Settlement::DeadLetter { letter, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!(letter.reason, Reason::TooOld);
}

#[test]
fn a_message_without_an_id_gets_one_at_its_first_failure() {
    let mut bench = Bench::new(config());
    let mut received = bench.message();
    received.id = None;
    received.position = Position::None;
    let key = started(&bench.receive(received));
    bench.fail(key, "x".into());
    bench.pass(ms(100));
    let (_, settlement) = ordered(bench.fail(key, "x".into()));
    let Settlement::Retry { record, .. } = settlement else { panic!("{settlement:?}") };
    assert!(record.id.is_some());
}

#[test]
fn the_first_keyed_retry_is_told_once() {
    let mut bench = Bench::new(config());
    let mut told = 0;
    for _ in 0..2 {
        let mut received = bench.message();
        received.key = Some(Bytes::from_static(b"k"));
        let key = started(&bench.receive(received));
        let actions = bench.fail(key, Failure::retry_after(ms(5), "x"));
        told += actions.iter().filter(|a| matches!(a, Action::Alarm(Alarm::KeyOvertaken))).count();
    }
    assert_eq!(told, 1);
}

#[test]
fn what_exceeds_the_limits_is_dead_lettered_unseen() {
    for (body, header) in [(1_001, 0), (1, 16 * 1024)] {
        let mut bench = Bench::new(config());
        let mut received = bench.message();
        received.body = vec![0; body].into();
        received.headers.append(HeaderName::from_static("a"), vec![0; header]);
        let (_, settlement) = ordered(bench.receive(received));
        let Settlement::DeadLetter { letter, .. } = settlement else { panic!("{settlement:?}") };
        assert_eq!((letter.reason, letter.attempts), (Reason::Oversize, 0));
    }
}

#[test]
fn waiting_for_a_shard_is_not_the_handlers_time() {
    let mut bench = Bench::new(config());
    let message = bench.message();
    let key = started(&bench.step(Input::Received(message)));
    assert!(!cancelled(&bench.pass(ms(60_000))), "every shard is blocked");
    bench.step(Input::Begun { key });
    assert!(cancelled(&bench.pass(ms(10_500))));
}
