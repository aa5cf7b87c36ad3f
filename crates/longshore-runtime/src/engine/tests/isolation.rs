use longshore_core::policy::Reason;

use super::*;

fn suspects() -> Config {
    Config { suspects: true, concurrency: 1, ..config() }
}

#[test]
fn two_unexplained_returns_make_a_suspect_before_its_handler_runs() {
    let mut bench = Bench::new(config());
    let received = Received { deliveries: 2, ..bench.message() };
    started(&bench.receive(received));
    let received = Received { deliveries: 3, ..bench.message() };
    let actions = bench.receive(received);
    assert!(!actions.iter().any(|a| matches!(a, Action::Start(_))));
    let (_, settlement) = ordered(actions);
    let Settlement::Suspect { record, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!((record.deliveries, record.explained, record.suspect), (3, 3, true));
    // The hand-over in the suspect lane is the fourth: nothing of it is unexplained.
    let there = Received {
        deliveries: record.deliveries + 1,
        record: Some(Arc::new(*record)),
        ..bench.message()
    };
    assert_eq!(there.unexplained(), 0);
}

#[test]
fn delayed_retries_and_graceful_returns_explain_themselves() {
    let mut bench = Bench::new(config());
    let record = Record { failures: 3, delayed: 3, explained: 2, ..Record::default() };
    let received = bench.redelivered(7, record);
    started(&bench.receive(received));
}

#[test]
fn as_many_again_in_the_suspect_lane_name_the_culprit() {
    let record = || Record { deliveries: 3, explained: 3, suspect: true, ..Record::default() };
    for deliveries in [4, 5] {
        let mut bench = Bench::new(suspects());
        let received = bench.redelivered(deliveries, record());
        started(&bench.receive(received));
    }
    let mut bench = Bench::new(suspects());
    let received = bench.redelivered(6, record());
    let (_, settlement) = ordered(bench.receive(received));
    let Settlement::DeadLetter { letter, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!((letter.reason, letter.attempts), (Reason::CrashSuspect, 0));
    assert_eq!(letter.deliveries, 6);
}

#[test]
fn what_succeeds_there_is_done_and_what_fails_there_is_retried_like_any_other() {
    let mut bench = Bench::new(suspects());
    let record = Record { deliveries: 3, explained: 3, suspect: true, ..Record::default() };
    let received = bench.redelivered(4, record);
    let key = started(&bench.receive(received));
    bench.fail(key, "x".into());
    bench.pass(ms(100));
    let (_, settlement) = ordered(bench.fail(key, "x".into()));
    let Settlement::Retry { record, .. } = settlement else { panic!("{settlement:?}") };
    assert_eq!((record.failures, record.delayed, record.suspect), (2, 1, true));
    // Back in the main lane: four hand-overs before, this is the fifth, and all are explained.
    assert_eq!(record.deliveries, 4);
    let back = bench.redelivered(5, *record);
    assert_eq!(back.unexplained(), 0);
}

#[test]
fn without_the_capability_nothing_is_isolated() {
    let mut bench = Bench::new(Config { isolation: false, ..config() });
    let received = Received { deliveries: 99, ..bench.message() };
    started(&bench.receive(received));
}
