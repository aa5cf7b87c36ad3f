//! Chance that does not depend on order: each draw is named by what it is for, so leaving one fault
//! out of a scenario changes nothing about the others.

use std::ops::RangeInclusive;

/// What a draw is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum For {
    /// How long a hand-over is on its way.
    HandOver,
    /// How long a call is on its way, there and back.
    Request,
    Answer,
    /// How long a run waits for a shard.
    Shard,
    /// How long a run takes.
    Run,
    /// How a run that is cancelled ends.
    CancelledEnd,
    /// Which member is served first, and which message.
    Pick,
    /// How late a timer is.
    Timer,
    /// How long a dead process stays down.
    Down,
    /// Seeds of the engines.
    Engine,
}

/// A seed, and whether all chance is taken out of latencies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice {
    pub(crate) seed: u64,
    pub(crate) calm: bool,
}

impl Dice {
    /// A number that only `what`, `a` and `b` decide.
    pub(crate) fn roll(self, what: For, a: u64, b: u64) -> u64 {
        mix(mix(mix(self.seed, what as u64), a), b)
    }

    /// One of `range`; its start where all is calm.
    pub(crate) fn within(self, what: For, a: u64, b: u64, range: RangeInclusive<u64>) -> u64 {
        if self.calm {
            return *range.start();
        }
        range.start() + self.roll(what, a, b) % (range.end() - range.start() + 1)
    }

    /// True `percent` times in a hundred.
    pub(crate) fn chance(self, what: For, a: u64, b: u64, percent: u64) -> bool {
        self.roll(what, a, b) % 100 < percent
    }
}

/// Folds a number into a hash: the finaliser of splitmix64, a bijection for each `hash`.
pub(crate) fn mix(hash: u64, number: u64) -> u64 {
    let mut x =
        (hash ^ number.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
