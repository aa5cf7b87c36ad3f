//! What a settlement does is counted once, at the broker's answer.

use longshore_core::policy::Reason;

use super::*;
use crate::tally::Tally;

/// Orders one settlement of a new delivery.
type Order = fn(&mut Bench) -> (Key, Settlement);

type Count = fn(&Tally) -> u64;

fn orders() -> Vec<(&'static str, Order, Count)> {
    vec![
        ("retry", |bench| retried(bench), |tally| tally.retried),
        ("dead letter", |bench| failed(bench, Failure::permanent("x")), |t| t.dead_lettered),
        ("discard", |bench| failed(bench, Failure::discard("x")), |tally| tally.discarded),
        ("suspect", |bench| suspected(bench), |tally| tally.suspected),
        ("release", |bench| released(bench), |tally| tally.released),
    ]
}

fn failed(bench: &mut Bench, failure: Failure) -> (Key, Settlement) {
    let key = bench.running();
    ordered(bench.fail(key, failure))
}

fn retried(bench: &mut Bench) -> (Key, Settlement) {
    failed(bench, Failure::retry_after(ms(5), "x"))
}

fn suspected(bench: &mut Bench) -> (Key, Settlement) {
    let received = Received { deliveries: 3, ..bench.message() };
    ordered(bench.receive(received))
}

fn released(bench: &mut Bench) -> (Key, Settlement) {
    bench.step(Input::Drain);
    let message = bench.message();
    ordered(bench.receive(message))
}

fn alarms(actions: &[Action]) -> usize {
    let told = |action: &&Action| {
        matches!(action, Action::Alarm(Alarm::DeadLettered { .. } | Alarm::Suspected { .. }))
    };
    actions.iter().filter(told).count()
}

#[test]
fn nothing_counts_before_the_answer_and_a_second_try_counts_once() {
    for (name, order, count) in orders() {
        let mut bench = Bench::new(config());
        let first = order(&mut bench);
        assert_eq!(count(&bench.engine.tally), 0, "{name}");
        assert_eq!(alarms(&bench.settled(first, Err(unavailable()))), 0, "{name}");
        assert_eq!(count(&bench.engine.tally), 0, "{name}");
        let again = ordered(bench.pass(ms(100)));
        let repeat = (again.0, again.1.clone());
        let told = alarms(&bench.settled(again, Ok(())));
        assert_eq!(told, usize::from(["dead letter", "suspect"].contains(&name)), "{name}");
        assert_eq!(count(&bench.engine.tally), 1, "{name}");
        assert!(bench.settled(repeat, Ok(())).is_empty(), "{name}");
        assert_eq!(count(&bench.engine.tally), 1, "{name}");
    }
}

#[test]
fn what_another_member_may_have_is_not_counted() {
    for (name, order, count) in orders() {
        let mut bench = Bench::new(config());
        let order = order(&mut bench);
        assert_eq!(alarms(&bench.settled(order, Err(Error::lease_lost()))), 0, "{name}");
        let tally = bench.engine.tally;
        assert_eq!((count(&tally), tally.lease_lost), (0, 1), "{name}");
    }
}

#[test]
fn the_alarms_say_why() {
    let mut bench = Bench::new(config());
    let order = failed(&mut bench, Failure::permanent("x"));
    let actions = bench.settled(order, Ok(()));
    let reason = Reason::Permanent;
    assert!(
        matches!(actions[..], [Action::Alarm(Alarm::DeadLettered { reason: r })] if r == reason)
    );
    let order = suspected(&mut bench);
    let actions = bench.settled(order, Ok(()));
    assert!(matches!(actions[..], [Action::Alarm(Alarm::Suspected { unexplained: 2 })]));
}
