//! Seeds on all cores, with progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use longshore_sim::{Mutant, Options, Seen, run};

/// One seed in so many is played a second time: the two histories must be the same.
const TWICE: u64 = 32;
/// Seeds between two looks at the clock and the bar.
const CHUNK: u64 = 64;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Seeds(u64),
    Time(Duration),
}

/// The seeds to play.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) first: u64,
    pub(crate) bound: Bound,
}

/// What came of them.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The lowest seed that showed an anomaly, or whose two histories differed.
    pub(crate) anomaly: Option<u64>,
    pub(crate) seeds: u64,
    pub(crate) steps: u64,
    pub(crate) twice: u64,
    pub(crate) seen: Seen,
    pub(crate) took: Duration,
}

impl Fleet {
    /// Plays seeds until the bound or the first anomaly; the lowest one, whatever the threads do.
    pub(crate) fn run(&self, options: &Options) -> Found {
        let begun = Instant::now();
        let bar = self.bar(options.mutant);
        let last = match self.bound {
            Bound::Seeds(seeds) => self.first.saturating_add(seeds),
            Bound::Time(_) => u64::MAX,
        };
        let next = AtomicU64::new(self.first);
        let lowest = AtomicU64::new(u64::MAX);
        let work = || {
            let mut found = Found::default();
            loop {
                let from = next.fetch_add(CHUNK, Ordering::Relaxed);
                let over = matches!(self.bound, Bound::Time(limit) if begun.elapsed() >= limit);
                if from >= last || over {
                    return found;
                }
                for seed in from..last.min(from.saturating_add(CHUNK)) {
                    if seed > lowest.load(Ordering::Relaxed) {
                        return found;
                    }
                    found.play(seed, options, &lowest);
                }
                bar.inc(CHUNK);
            }
        };
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut found = thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            threads.into_iter().fold(Found::default(), |sum, thread| {
                sum.and(thread.join().expect("what can panic is caught inside"))
            })
        });
        bar.finish_and_clear();
        let seed = lowest.load(Ordering::Relaxed);
        found.anomaly = (seed != u64::MAX).then_some(seed);
        found.took = begun.elapsed();
        found
    }

    fn bar(&self, mutant: Option<Mutant>) -> ProgressBar {
        let (bar, template) = match self.bound {
            Bound::Seeds(seeds) => {
                (ProgressBar::new(seeds), "{msg:40} {wide_bar} {pos}/{len} {per_sec} {eta}")
            }
            Bound::Time(_) => {
                (ProgressBar::new_spinner(), "{msg:40} {spinner} {pos} {per_sec} {elapsed}")
            }
        };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(mutant.map_or("seeds", Mutant::name));
        bar
    }
}

impl Found {
    fn play(&mut self, seed: u64, options: &Options, lowest: &AtomicU64) {
        let outcome = run(seed, options);
        self.seeds += 1;
        self.steps += outcome.steps;
        self.seen = self.seen.and(outcome.seen);
        let mut bad = outcome.anomaly.is_some();
        if seed.is_multiple_of(TWICE) {
            self.twice += 1;
            bad |= run(seed, options).hash != outcome.hash;
        }
        if bad {
            lowest.fetch_min(seed, Ordering::Relaxed);
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            anomaly: None,
            seeds: self.seeds + other.seeds,
            steps: self.steps + other.steps,
            twice: self.twice + other.twice,
            seen: self.seen.and(other.seen),
            took: Duration::ZERO,
        }
    }
}
