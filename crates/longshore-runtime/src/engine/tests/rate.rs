//! The rate alone: never more than was said, and not much less.

use std::time::Duration;

use longshore_core::policy::RateLimit;
use proptest::prelude::*;

use super::ms;
use crate::engine::rate::Rate;

#[test]
fn starts_are_spread_evenly_and_nothing_is_saved_up() {
    let mut rate = Rate::new(RateLimit { count: 5, per: ms(1_000) });
    assert_eq!(rate.take(ms(0)), Ok(()));
    assert_eq!(rate.take(ms(0)), Err(ms(200)));
    assert_eq!(rate.take(ms(199)), Err(ms(200)));
    assert_eq!(rate.take(ms(200)), Ok(()));
    assert_eq!(rate.take(ms(10_000)), Ok(()));
    assert_eq!(rate.take(ms(10_000)), Err(ms(10_200)));
}

#[test]
fn a_slow_rate_and_a_long_period_do_not_overflow() {
    let mut rate = Rate::new(RateLimit { count: 1, per: Duration::from_secs(10 * 365 * 86_400) });
    assert_eq!(rate.take(ms(1)), Ok(()));
    assert!(rate.take(ms(2)).is_err());
    let mut rate = Rate::new(RateLimit { count: u32::MAX, per: Duration::from_nanos(1) });
    assert_eq!(rate.take(ms(1)), Ok(()));
}

/// The starts of one who asks when it was told to, each time up to `late` too late.
fn starts(limit: RateLimit, late: &[u64], until: Duration) -> Vec<Duration> {
    let mut rate = Rate::new(limit);
    let (mut at, mut turn, mut starts) = (ms(0), 0, Vec::new());
    while at < until {
        match rate.take(at) {
            Ok(()) => starts.push(at),
            Err(then) => {
                at = then + Duration::from_micros(late[turn % late.len()]);
                turn += 1;
            }
        }
    }
    starts
}

proptest! {
    #[test]
    fn no_span_of_the_period_has_more(
        count in 1u32..3_000, per in 1u64..3_000,
        late in prop::collection::vec(0u64..30_000, 1..8)
    ) {
        let limit = RateLimit { count, per: ms(per) };
        let starts = starts(limit, &late, ms(per * 3));
        for span in starts.windows(count as usize + 1) {
            let took = span[count as usize] - span[0];
            prop_assert!(took >= limit.per, "{count} and one more in {took:?}");
        }
    }

    /// With timers that are late by a millisecond.
    #[test]
    fn and_not_much_less(count in 1u32..5_000, per in 1_000u64..2_000) {
        let limit = RateLimit { count, per: ms(per) };
        let starts = starts(limit, &[1_000], ms(per * 3));
        let wanted = f64::from(count) * 3.0;
        let least = wanted * 0.95 - 1.0;
        prop_assert!(starts.len() as f64 >= least, "{} of {wanted}", starts.len());
    }
}
