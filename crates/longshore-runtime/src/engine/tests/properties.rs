//! Any order of inputs: nothing is lost from the table, slots are kept, everything ends.

use longshore_core::policy::{Breaker, RateLimit};
use proptest::prelude::*;

use super::*;

/// What the world does next; numbers pick among what is there.
#[derive(Clone, Debug)]
enum Move {
    Receive { deliveries: u32 },
    Succeed(usize),
    Fail(usize),
    Cancelled(usize),
    Settle { which: usize, answer: u8 },
    Extend(bool),
    Pass(u64),
    Lose,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (1u32..5).prop_map(|deliveries| Move::Receive { deliveries }),
        4 => any::<usize>().prop_map(Move::Succeed),
        4 => any::<usize>().prop_map(Move::Fail),
        1 => any::<usize>().prop_map(Move::Cancelled),
        6 => (any::<usize>(), 0u8..6).prop_map(|(which, answer)| Move::Settle { which, answer }),
        2 => any::<bool>().prop_map(Move::Extend),
        4 => (0u64..20_000).prop_map(Move::Pass),
        1 => Just(Move::Lose),
    ];
    prop::collection::vec(one, 1..150)
}

/// What the worker would know: runs that are on, and settlements without an answer.
#[derive(Default)]
struct World {
    running: Vec<Key>,
    settling: Vec<(Key, Settlement)>,
    extending: Vec<Key>,
}

impl World {
    fn see(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(start) => {
                    assert!(!self.running.contains(&start.key), "started twice");
                    self.running.push(start.key);
                }
                Action::Settle { key, settlement } => {
                    assert!(self.settling.iter().all(|(known, _)| *known != key), "settled twice");
                    assert!(!self.running.contains(&key), "settled while it runs");
                    self.settling.push((key, settlement));
                }
                Action::Extend { key, .. } => self.extending.push(key),
                Action::Cancel { key } => assert!(self.running.contains(&key)),
                Action::Alarm(_) => {}
            }
        }
        assert!(self.running.len() <= 2, "more runs than slots");
    }

    fn end(&mut self, bench: &mut Bench, which: usize, ended: Ended) {
        if !self.running.is_empty() {
            let key = self.running.swap_remove(which % self.running.len());
            self.see(bench.end(key, ended));
        }
    }

    fn play(&mut self, bench: &mut Bench, one: Move) {
        match one {
            Move::Receive { deliveries } => {
                let received = Received { deliveries, ..bench.message() };
                let actions = bench.receive(received);
                self.see(actions);
            }
            Move::Succeed(which) => self.end(bench, which, Ended::Ok),
            Move::Fail(which) => self.end(bench, which, Ended::Failed("x".into())),
            Move::Cancelled(which) => self.end(bench, which, Ended::Cancelled),
            Move::Settle { which, answer } => {
                if !self.settling.is_empty() {
                    let order = self.settling.swap_remove(which % self.settling.len());
                    let result = match answer {
                        0 => Err(Error::lease_lost()),
                        1 | 2 => Err(unavailable()),
                        _ => Ok(()),
                    };
                    self.see(bench.settled(order, result));
                }
            }
            Move::Extend(well) => {
                for key in std::mem::take(&mut self.extending) {
                    let result = if well { Ok(()) } else { Err(unavailable()) };
                    self.see(bench.step(Input::Extended { key, result }));
                }
            }
            Move::Pass(time) => {
                bench.at += ms(time);
                self.see(bench.step(Input::Tick));
            }
            Move::Lose => self.see(bench.step(Input::Lost { epoch: 1 })),
        }
    }
}

/// With a breaker that opens soon and a rate that is felt.
fn narrow() -> Config {
    let base = config();
    let breaker = Breaker {
        window: ms(60_000),
        min: 2,
        ratio: 0.5,
        open: ms(3_000),
        max_open: ms(9_000),
        probes: 1,
    };
    let rate = RateLimit { count: 1, per: ms(700) };
    let policy = base.policy.to_builder().breaker(Some(breaker)).rate_limit(Some(rate));
    Config { policy: Arc::new(policy.build().unwrap()), ..base }
}

proptest! {
    #[test]
    fn every_history_can_be_drained(moves in moves(), narrowed in any::<bool>()) {
        let mut bench = Bench::new(if narrowed { narrow() } else { config() });
        let mut world = World::default();
        for one in moves {
            world.play(&mut bench, one);
        }
        world.see(bench.step(Input::Drain));
        world.see(bench.step(Input::Abort));
        for _ in 0..1_000 {
            if bench.engine.held() == 0 {
                break;
            }
            while !world.running.is_empty() {
                world.end(&mut bench, 0, Ended::Cancelled);
            }
            while let Some(order) = world.settling.pop() {
                world.see(bench.settled(order, Ok(())));
            }
            bench.at += ms(10_000);
            world.see(bench.step(Input::Tick));
        }
        prop_assert_eq!(bench.engine.held(), 0, "a delivery is stuck");
        prop_assert!(world.running.is_empty());
        let tally = bench.engine.tally;
        prop_assert!(tally.retried + tally.dead_lettered + tally.released <= tally.received);
    }
}
