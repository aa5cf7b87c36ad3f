//! Schedules. Every kind of back-off is the same value: a list of gaps whose last one repeats.

use std::time::Duration;

/// No list is longer: the last gap repeats anyway.
const MAX_GAPS: usize = 64;

/// The same gap each time.
#[must_use]
pub fn fixed(gap: Duration) -> Vec<Duration> {
    vec![gap]
}

/// `first`, then `step` more each time, up to `max`.
#[must_use]
pub fn linear(first: Duration, step: Duration, max: Duration) -> Vec<Duration> {
    grow(first, max, |gap| gap.saturating_add(step))
}

/// `first`, then `factor` times the one before, up to `max`. A factor that does not grow gives one
/// gap.
#[must_use]
pub fn exponential(first: Duration, factor: f64, max: Duration) -> Vec<Duration> {
    grow(first, max, |gap| Duration::try_from_secs_f64(gap.as_secs_f64() * factor).unwrap_or(max))
}

fn grow(first: Duration, max: Duration, next: impl Fn(Duration) -> Duration) -> Vec<Duration> {
    let mut gaps = vec![first.min(max)];
    while gaps.len() < MAX_GAPS {
        let last = gaps[gaps.len() - 1];
        let gap = next(last).min(max);
        if gap <= last {
            break;
        }
        gaps.push(gap);
    }
    gaps
}

/// Gap number `n`, from 1: entry `n` of `fast ++ delayed`, the last delayed one repeating. The flag
/// says whether it is fast. `None` where the lists hold none for it.
pub(super) fn gap(fast: &[Duration], delayed: &[Duration], n: u32) -> Option<(Duration, bool)> {
    let index = n.saturating_sub(1) as usize;
    match fast.get(index) {
        Some(gap) => Some((*gap, true)),
        None => delayed.get(index - fast.len()).or(delayed.last()).map(|gap| (*gap, false)),
    }
}

/// Additive jitter: a gap becomes `[gap, (1 + share) gap]`, so it is never early.
pub(super) fn jittered(gap: Duration, share: f64, roll: f64) -> Duration {
    let extra = gap.as_secs_f64() * share * roll.clamp(0.0, 1.0);
    gap.saturating_add(Duration::try_from_secs_f64(extra).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(list: &[u64]) -> Vec<Duration> {
        list.iter().map(|n| Duration::from_millis(*n)).collect()
    }

    #[test]
    fn the_kinds_are_lists() {
        let d = Duration::from_millis;
        assert_eq!(fixed(d(5)), ms(&[5]));
        assert_eq!(linear(d(10), d(10), d(35)), ms(&[10, 20, 30, 35]));
        assert_eq!(exponential(d(10), 2.0, d(50)), ms(&[10, 20, 40, 50]));
        assert_eq!(exponential(d(10), 1.0, d(50)), ms(&[10]));
        assert_eq!(exponential(d(10), f64::NAN, d(50)), ms(&[10, 50]));
    }

    #[test]
    fn fast_ones_come_first_and_the_last_delayed_one_repeats() {
        let (fast, delayed) = (ms(&[1, 2]), ms(&[10, 20]));
        let gaps: Vec<_> = (1..=6).map(|n| gap(&fast, &delayed, n)).collect();
        let d = Duration::from_millis;
        let wanted = [(1, true), (2, true), (10, false), (20, false), (20, false), (20, false)];
        assert_eq!(gaps, wanted.map(|(n, fast)| Some((d(n), fast))));
        assert_eq!(gap(&fast, &[], 3), None);
    }

    proptest! {
        #[test]
        fn jitter_is_additive_and_bounded(nanos in 0..u64::MAX / 4, share in 0.0..=1.0, roll in -1.0..2.0) {
            let gap = Duration::from_nanos(nanos);
            let got = jittered(gap, share, roll);
            prop_assert!(got >= gap);
            prop_assert!(got.as_secs_f64() <= gap.as_secs_f64() * (1.0 + share) * 1.000_001 + 1e-6);
        }

        #[test]
        fn growth_is_monotone_to_its_cap(first in 1..10_000_u64, factor in 0.0..100.0_f64, max in 1..1_000_000_u64) {
            let (first, max) = (Duration::from_millis(first), Duration::from_millis(max));
            let gaps = exponential(first, factor, max);
            prop_assert!(gaps.is_sorted() && gaps.len() <= MAX_GAPS && gaps.iter().all(|g| *g <= max));
        }
    }
}
