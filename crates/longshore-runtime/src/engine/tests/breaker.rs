//! The breaker alone: its table, and what holds after any history.

use longshore_core::policy::Breaker as Rules;
use proptest::prelude::*;

use super::ms;
use crate::engine::breaker::{Breaker, BreakerState, Pass};

fn rules() -> Rules {
    Rules {
        window: ms(10_000),
        min: 4,
        ratio: 0.5,
        open: ms(1_000),
        max_open: ms(3_000),
        probes: 2,
    }
}

/// One word for each thing that can happen; time passes with `+ms`.
fn play(breaker: &mut Breaker, script: &str) -> BreakerState {
    let mut at = ms(0);
    let mut passes: Vec<Pass> = Vec::new();
    for word in script.split_whitespace() {
        match word {
            "start" => passes.push(breaker.admit().expect(script)),
            "shut" => assert_eq!(breaker.admit(), None, "{script}"),
            "ok" | "fail" | "nothing" => {
                let pass = match passes.is_empty() {
                    true => breaker.admit().expect(script),
                    false => passes.remove(0),
                };
                let well = match word {
                    "ok" => Some(true),
                    "fail" => Some(false),
                    _ => None,
                };
                breaker.ended(at, pass, well);
            }
            time => {
                at += ms(time.trim_start_matches('+').parse().expect(script));
                breaker.tick(at);
            }
        }
    }
    breaker.state()
}

#[test]
fn every_row_of_the_table() {
    use BreakerState::{Closed, HalfOpen, Open};
    for (name, script, wanted) in [
        ("too few runs mean nothing", "fail fail fail", Closed),
        ("enough runs, all failed", "fail fail fail fail", Open),
        ("half of them", "ok ok fail fail", Open),
        ("less than half of them", "ok ok ok fail", Closed),
        ("the ratio counts, not who is last", "fail fail fail ok", Open),
        ("what says nothing is no run", "nothing nothing nothing fail fail fail", Closed),
        ("old runs are forgotten", "fail fail fail +10000 fail", Closed),
        ("young ones are not", "fail fail fail +8000 fail", Open),
        ("open lets nothing start", "fail fail fail fail shut +999 shut", Open),
        ("its time is over", "fail fail fail fail +1000", HalfOpen),
        ("two probes and no more", "fail fail fail fail +1000 start start shut", HalfOpen),
        ("one success is not two", "fail fail fail fail +1000 ok", HalfOpen),
        ("two are", "fail fail fail fail +1000 ok ok", Closed),
        ("any failure opens it again", "fail fail fail fail +1000 ok fail", Open),
        ("a failure beside a probe that is on", "fail fail fail fail +1000 start start fail", Open),
        (
            "what says nothing makes room",
            "fail fail fail fail +1000 start nothing start start",
            HalfOpen,
        ),
        ("open for twice as long", "fail fail fail fail +1000 fail +1999 shut", Open),
        ("and no longer", "fail fail fail fail +1000 fail +2000", HalfOpen),
        ("at most so long", "fail fail fail fail +1000 fail +2000 fail +2999", Open),
        ("and half-open then", "fail fail fail fail +1000 fail +2000 fail +3000", HalfOpen),
        (
            "after a success the first open time again",
            "fail fail fail fail +1000 fail +2000 ok ok fail fail fail fail +1000",
            HalfOpen,
        ),
        ("closing forgets the window", "fail fail fail fail +1000 ok ok fail fail fail", Closed),
        (
            "what began before does not count",
            "start start start start start fail fail fail fail +1000 fail",
            HalfOpen,
        ),
        (
            "nor does it close",
            "start start start start start start fail fail fail fail +1000 ok ok",
            HalfOpen,
        ),
    ] {
        assert_eq!(play(&mut Breaker::new(rules()), script), wanted, "{name}: {script}");
    }
}

#[derive(Clone, Debug)]
enum Move {
    Start,
    End { which: usize, well: Option<bool> },
    Pass(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => Just(Move::Start),
        4 => (any::<usize>(), prop::option::of(any::<bool>()))
            .prop_map(|(which, well)| Move::End { which, well }),
        2 => (0u64..2_000).prop_map(Move::Pass),
    ];
    prop::collection::vec(one, 1..300)
}

proptest! {
    #[test]
    fn it_opens_for_a_reason_and_never_for_longer_than_it_may(moves in moves()) {
        let mut breaker = Breaker::new(rules());
        let mut at = ms(0);
        let mut on: Vec<Pass> = Vec::new();
        // What ended with a result that counts while it was closed.
        let mut counted = Vec::new();
        let mut probing = 0;
        for one in moves {
            let before = breaker.state();
            match one {
                Move::Start => {
                    let pass = breaker.admit();
                    prop_assert_eq!(pass.is_none(), before == BreakerState::Open
                        || before == BreakerState::HalfOpen && probing == 2);
                    probing += usize::from(pass.is_some() && before == BreakerState::HalfOpen);
                    on.extend(pass);
                }
                Move::End { which, well } => {
                    if on.is_empty() {
                        continue;
                    }
                    let pass = on.swap_remove(which % on.len());
                    let current = pass == breaker.pass();
                    if let (true, BreakerState::Closed, Some(well)) = (current, before, well) {
                        counted.push((at, well));
                    }
                    if current && before == BreakerState::HalfOpen && well.is_none() {
                        probing -= 1;
                    }
                    breaker.ended(at, pass, well);
                }
                Move::Pass(time) => {
                    at += ms(time);
                    breaker.tick(at);
                }
            }
            let after = breaker.state();
            if (before, after) == (BreakerState::Closed, BreakerState::Open) {
                let recent = counted.iter().filter(|(when, _)| at - *when < rules().window);
                let failed = recent.filter(|(_, well)| !well).count();
                prop_assert!(failed >= 2, "opened after {failed} failures in the window");
            }
            if before != after {
                counted.clear();
                probing = 0;
                if let Some(until) = breaker.until() {
                    prop_assert!(until - at >= rules().open && until - at <= rules().max_open);
                }
            }
            prop_assert!(!(before == BreakerState::Open && after == BreakerState::Closed));
        }
        // Whatever happened, successes close it.
        for _ in 0..3 {
            at += rules().max_open;
            breaker.tick(at);
            while let Some(pass) = breaker.admit().filter(|_| !breaker.is_closed()) {
                breaker.ended(at, pass, Some(true));
            }
            while let Some(pass) = on.pop() {
                breaker.ended(at, pass, None);
            }
        }
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
